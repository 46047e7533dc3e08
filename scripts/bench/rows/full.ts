/**
 * A full pull from an origin to a site, against rsync's daemon, and against the plain copy of the
 * volume's file by `curl -o` from nginx.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { assertSame, digestOfDirectory, digestOfVolume } from "../digest.ts";
import { clear, type Lab } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import type { Origin } from "../origin.ts";
import { rsyncPull, startRsyncDaemon } from "../peers/rsync.ts";
import { startNginx } from "../peers/web.ts";
import { must, type Service } from "../process.ts";
import { missing, pathOf, whyMissing } from "../programs.ts";
import { faster, type LeftOut, type Line, lineOf, type Outcome, type Row } from "../row.ts";
import type { TreeKind } from "../trees.ts";
import { assertPulled, pull, type Pulled } from "../volcast.ts";

const MIB = 2 ** 20;
const RSYNC = "rsync daemon";
const CURL = "curl -o, of the volume's file from nginx";

/** The row of a tree. */
export function fullPull(kind: TreeKind): Row {
  return {
    id: `full-${kind}`,
    title: `full pull of '${kind}'`,
    measure: (lab) => lab.within("full", (directory) => measure(lab, kind, directory)),
  };
}

async function measure(lab: Lab, kind: TreeKind, directory: string): Promise<Outcome> {
  const origin = await lab.origin(kind);
  const leftOut: LeftOut[] = [];
  await using stack = new AsyncDisposableStack();
  const contestants = [byVolcast(origin, `${directory}/site.vol`)];
  const what = `full pull of '${kind}'`;
  if (missing(["rsync"]).length === 0) {
    const { first } = origin.releases;
    const daemon = stack.use(await startRsyncDaemon(directory, { first }));
    contestants.push(byRsync(origin, daemon, `${directory}/rsync`));
  } else leftOut.push({ what: `${what}, against rsync`, why: whyMissing(["rsync"]) });
  const absent = missing(["nginx", "curl"]);
  if (absent.length === 0) {
    const nginx = stack.use(await startNginx(directory, origin.directory));
    contestants.push(byCurl(origin, nginx, `${directory}/curl`));
  } else leftOut.push({ what: `${what}, against curl`, why: whyMissing(absent) });

  const figures = await inTurns(lab.scale.turns, contestants);
  const lines: Line[] = [];
  const isMany = kind === "many";
  if (figures.has(RSYNC)) {
    lines.push(lineOf(figures, { own: "volcast", against: RSYNC }, {
      what,
      unit: "s",
      ...(isMany ? { target: faster(4) } : {}),
    }));
  }
  if (figures.has(CURL)) {
    const { bytes } = await origin.plan("first");
    const fileBytes = Deno.statSync(origin.volume).size;
    const rates = new Map([
      ["volcast", figures.get("volcast")!.map((seconds) => bytes / MIB / seconds)],
      [CURL, figures.get(CURL)!.map((seconds) => fileBytes / MIB / seconds)],
    ]);
    lines.push(lineOf(rates, { own: "volcast", against: CURL }, {
      what: `${what}, throughput`,
      unit: "MiB/s",
      target: faster(0.4),
    }));
  }
  return { lines, leftOut };
}

function byVolcast(origin: Origin, volume: string): Contestant {
  let pulled: Pulled | undefined;
  return {
    name: "volcast",
    prepare: () => clear(volume),
    run: async () => void (pulled = await pull(volume, origin.url)),
    async check() {
      assertPulled(pulled, { kind: "full", name: "first" });
      assertSame(await digestOfVolume(volume), origin.digest("first"));
      await clear(volume);
    },
  };
}

function byRsync(origin: Origin, daemon: Service, target: string): Contestant {
  return {
    name: RSYNC,
    prepare: () => clear(target),
    run: () => rsyncPull(daemon, "first", target),
    async check() {
      assertSame(digestOfDirectory(target), origin.digest("first"));
      await clear(target);
    },
  };
}

function byCurl(origin: Origin, nginx: Service, target: string): Contestant {
  const url = `http://127.0.0.1:${nginx.port}/origin.vol`;
  return {
    name: CURL,
    prepare: () => clear(target),
    run: async () => void await must([pathOf("curl")!, "-sSf", "-o", target, url]),
    async check() {
      if (crcOf(target) !== crcOf(origin.volume)) throw new Error("the copy differs");
      await clear(target);
    },
  };
}

/** Checksum of a file. */
function crcOf(path: string): number {
  const buffer = new Uint8Array(MIB);
  using file = Deno.openSync(path);
  let sum = 0;
  for (let count; (count = file.readSync(buffer)) !== null;) {
    sum = crc32(buffer.subarray(0, count), sum);
  }
  return sum;
}
