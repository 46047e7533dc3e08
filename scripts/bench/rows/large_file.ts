/**
 * Serving one large file, against nginx.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { Server } from "../../../tests/e2e/harness.ts";
import type { Lab } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import { startNginx } from "../peers/web.ts";
import { must } from "../process.ts";
import { missing, pathOf } from "../programs.ts";
import { faster, lineOf, type Outcome, type Row, without } from "../row.ts";
import { pull } from "../volcast.ts";

const NGINX = "nginx";
const FILE = "large0";

/** See the module. */
export const largeFile: Row = {
  id: "large-file",
  title: "serving a large file",
  measure: (lab) => lab.within("large-file", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const absent = missing(["nginx", "curl"]);
  if (absent.length > 0) {
    return without(largeFile.title, absent);
  }
  const origin = await lab.origin("large");
  const { first } = origin.releases;
  const volume = `${directory}/site.vol`;
  await pull(volume, origin.url);
  await using volcast = await Server.start([volume, "--www", "127.0.0.1:0"]);
  await using nginx = await startNginx(directory, first);
  const expected = Deno.readFileSync(`${first}/${FILE}`);
  const figures = await inTurns(lab.scale.turns, [
    byCurl("volcast", `${volcast.wwwUrl}/${FILE}`, expected),
    byCurl(NGINX, `http://127.0.0.1:${nginx.port}/${FILE}`, expected),
  ]);
  return {
    lines: [lineOf(figures, { own: "volcast", against: NGINX }, {
      what: `a file of ${expected.length / 2 ** 20} MiB, by curl`,
      unit: "MiB/s",
      target: faster(0.25),
    })],
  };
}

function byCurl(name: string, url: string, expected: Uint8Array): Contestant {
  let received = 0;
  return {
    name,
    async prepare() {
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
      if (crc32(bytes) !== crc32(expected)) throw new Error(`${url} is not as it should be`);
    },
    async run() {
      const format = "%{http_code} %{size_download} %{time_total}";
      const out = await must([pathOf("curl")!, "-sS", "-o", "/dev/null", "-w", format, url]);
      const [status, bytes, seconds] = out.split(" ").map(Number);
      received = status === 200 ? bytes : 0;
      return bytes / 2 ** 20 / seconds;
    },
    check() {
      if (received !== expected.length) {
        throw new Error(`${received} of ${expected.length} bytes came`);
      }
    },
  };
}
