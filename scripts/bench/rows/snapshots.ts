/**
 * Taking a snapshot of a volume of 1 TiB, against one of 1 GiB; and what an origin of 1 TiB with 64
 * snapshots takes of memory.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import { ContentMaker } from "../content.ts";
import { inTurns } from "../measure.ts";
import { must, peakMemory } from "../process.ts";
import { cost, lineOf, lineOfLimit, type Outcome, type Row } from "../row.ts";
import { assertPulled, json, pull, volcast } from "../volcast.ts";

const LARGE = "a snapshot at 1 TiB";
const SMALL = "a snapshot at 1 GiB";
const SNAPSHOTS = 64;
const FILES = 100;
/** Half of them before, so that each turn takes one of a volume that has some. */
const TURNS = 32;
/** Times that count as the same: what a shared machine makes of one. */
const NOISE = 1.25;
const MEMORY_LIMIT = 512 * 2 ** 20;

/** See the module. */
export const snapshots: Row = {
  id: "snapshots",
  title: "snapshots at 1 TiB and 1 GiB; memory of an origin",
  measure: (lab) => lab.within("snapshots", measure),
};

async function measure(directory: string): Promise<Outcome> {
  const tree = `${directory}/tree`;
  await Deno.mkdir(tree);
  const maker = new ContentMaker(3);
  for (let i = 0; i < FILES; i++) Deno.writeFileSync(`${tree}/${i}`, maker.content(20_000));
  await using stack = new AsyncDisposableStack();
  const contestants = [];
  for (const [name, size] of [[LARGE, "1TiB"], [SMALL, "1GiB"]]) {
    const volume = `${directory}/${size}.vol`;
    await must(volcast("init", volume, "--size", size));
    await must(volcast("publish", volume, tree, "--as", "begin"));
    const server = stack.use(await Server.start([volume]));
    contestants.push({ name, server });
  }
  const figures = await inTurns(
    TURNS,
    contestants.map(({ name, server }) => bySnapshot(name, server)),
  );
  const [large] = contestants;
  const bytes = await memoryOf(large.server, { tree, maker, copy: `${directory}/site.vol` });
  const line = lineOf(figures, { own: LARGE, against: SMALL }, {
    what: LARGE,
    unit: "ms",
    target: cost(NOISE),
  });
  const memory = lineOfLimit(`memory of an origin of 1 TiB with ${SNAPSHOTS} snapshots`, {
    unit: "B",
    figure: bytes,
    limit: MEMORY_LIMIT,
    note: "the volume is sparse; most that was resident while it published and was pulled from",
  });
  return { lines: [line, memory] };
}

function bySnapshot(name: string, server: Server) {
  let number = 0;
  let status = 0;
  return {
    name,
    async run() {
      const begin = performance.now();
      const body = JSON.stringify({ name: `s${++number}` });
      const response = await fetch(`${server.url}/snapshots`, { method: "POST", body });
      await response.text();
      status = response.status;
      return performance.now() - begin;
    },
    check() {
      if (status !== 201) throw new Error(`the answer was ${status}`);
    },
  };
}

/** Publishes until there are 64 snapshots, has the newest pulled, reads, and looks at what that took. */
async function memoryOf(
  server: Server,
  { tree, maker, copy }: { tree: string; maker: ContentMaker; copy: string },
): Promise<number> {
  const count = async () =>
    (await json<{ snapshots: unknown[] }>("snapshot", "list", server.url, "--json")).snapshots
      .length;
  for (let i = await count(); i < SNAPSHOTS; i++) {
    Deno.writeFileSync(`${tree}/${i}`, maker.content(20_000));
    await must(volcast("publish", server.url, tree, "--as", `release${i}`));
  }
  if (await count() !== SNAPSHOTS) throw new Error(`there are ${await count()} snapshots`);
  assertPulled(await pull(copy, server.url), { kind: "full", name: `release${SNAPSHOTS - 1}` });
  for (let i = 0; i < FILES; i++) await (await fetch(`${server.url}/files/${i}`)).arrayBuffer();
  return peakMemory(server.process.pid);
}
