/**
 * Serving small files over connections that are kept alive, against caddy and nginx with one worker.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import type { Lab } from "../lab.ts";
import { assertPages, load, type LoadReport } from "../load.ts";
import { type Contestant, inTurns } from "../measure.ts";
import { startCaddy, startNginx } from "../peers/web.ts";
import { missing, type Program, whyMissing } from "../programs.ts";
import {
  faster,
  type LeftOut,
  lineOf,
  lineOfFailures,
  type Outcome,
  type Row,
  type Target,
  without,
} from "../row.ts";
import { pull } from "../volcast.ts";

const PEERS: readonly {
  name: string;
  program: Program;
  start: typeof startNginx;
  target: Target;
}[] = [
  { name: "caddy file-server", program: "caddy", start: startCaddy, target: faster(1.5) },
  { name: "nginx, one worker", program: "nginx", start: startNginx, target: faster(0.5) },
];

/** See the module. */
export const serving: Row = {
  id: "serving",
  title: "serving files of 10 KiB",
  measure: (lab) => lab.within("serving", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const what = "files of 10 KiB, by wrk, keep-alive";
  if (missing(["wrk"]).length > 0) {
    return without(what, ["wrk"]);
  }
  const origin = await lab.origin("pages");
  const { first } = origin.releases;
  await using stack = new AsyncDisposableStack();
  const volume = `${directory}/site.vol`;
  await pull(volume, origin.url);
  const volcast = stack.use(await Server.start([volume, "--www", "127.0.0.1:0"]));
  const failures: number[] = [];
  const contestants = [
    byLoad(lab, { name: "volcast", url: `${volcast.wwwUrl}/`, directory, tree: first, failures }),
  ];
  const leftOut: LeftOut[] = [];
  for (const { name, program, start } of PEERS) {
    if (missing([program]).length > 0) {
      leftOut.push({ what: `${what}, against ${name}`, why: whyMissing([program]) });
      continue;
    }
    const scratch = `${directory}/${program}`;
    await Deno.mkdir(scratch);
    const url = `http://127.0.0.1:${stack.use(await start(scratch, first)).port}/`;
    contestants.push(byLoad(lab, { name, url, directory, tree: first, failures: [] }));
  }
  const figures = await inTurns(lab.scale.turns, contestants);
  const lines = PEERS.filter(({ name }) => figures.has(name)).map(({ name, target }) =>
    lineOf(figures, { own: "volcast", against: name }, { what, unit: "requests/s", target })
  );
  const failed = failures.reduce((sum, count) => sum + count, 0);
  lines.push(lineOfFailures(`${what}: failures`, failed));
  return { lines, leftOut };
}

function byLoad(
  lab: Lab,
  { name, url, directory, tree, failures }: {
    name: string;
    url: string;
    directory: string;
    tree: string;
    failures: number[];
  },
): Contestant {
  const { pages, loadSeconds: seconds } = lab.scale;
  let report: LoadReport;
  return {
    name,
    prepare: () => assertPages(url, tree, pages),
    async run() {
      report = await load(url, { pages, seconds, scratch: directory });
      return report.requestsPerSecond;
    },
    check: () => void failures.push(report.failures),
  };
}
