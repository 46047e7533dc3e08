/**
 * Nothing is new: what it takes to find that out.
 *
 * @module
 */

import { HttpPeer } from "../../../src/http/mod.ts";
import { Node, Puller } from "../../../src/replication/mod.ts";
import { openVolumeFile } from "../../../src/volume/mod.ts";
import { assertSame, digestOfDirectory } from "../digest.ts";
import type { Lab } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import { rsyncPull, startRsyncDaemon } from "../peers/rsync.ts";
import { missing } from "../programs.ts";
import { faster, type Line, lineOf, type Outcome, type Row, without } from "../row.ts";
import { assertPulled, pull, type Pulled } from "../volcast.ts";

const RSYNC = "rsync daemon";
const COMMAND = "volcast pull";
const RUNNING = "a site that runs";
/** One look of a site that runs is short: so many are taken together. */
const LOOKS = 20;

/** See the module. */
export const nothingNew: Row = {
  id: "nothing",
  title: "nothing new",
  measure: (lab) => lab.within("nothing", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const origin = await lab.origin("many");
  if (missing(["rsync"]).length > 0) {
    return without(nothingNew.title, ["rsync"]);
  }
  await using daemon = await startRsyncDaemon(directory, { first: origin.releases.first });
  const volume = `${directory}/site.vol`;
  await pull(volume, origin.url);
  const target = `${directory}/rsync`;
  await rsyncPull(daemon, "first", target);
  const figures = await inTurns(lab.scale.turns, [
    byCommand(volume, origin.url),
    byRunningSite(volume, origin.url),
    {
      name: RSYNC,
      run: () => rsyncPull(daemon, "first", target),
      check: () => assertSame(digestOfDirectory(target), origin.digest("first")),
    },
  ]);
  const line = (name: string, note: string): Line =>
    lineOf(figures, { own: name, against: RSYNC }, {
      what: `nothing new in 'many': ${name}`,
      unit: "s",
      target: faster(200),
      note,
    });
  return {
    lines: [
      line(COMMAND, "most of it is the start of a process, see the row 'start'"),
      line(RUNNING, "what a served site does by the clock, in this process"),
    ],
  };
}

function byCommand(volume: string, url: string): Contestant {
  let pulled: Pulled | undefined;
  return {
    name: COMMAND,
    run: async () => void (pulled = await pull(volume, url)),
    check: () => assertPulled(pulled, { kind: "current", name: "first" }),
  };
}

/** The site and its parent speak as they do every minute, by the parts that a server is made of. */
function byRunningSite(path: string, url: string): Contestant {
  const kinds: string[] = [];
  return {
    name: RUNNING,
    async run() {
      const node = new Node({ name: "site", path, volume: openVolumeFile(path) });
      const puller = new Puller(node, { parents: [new HttpPeer(url)] });
      kinds.length = 0;
      try {
        await puller.pull();
        const begin = performance.now();
        for (let i = 0; i < LOOKS; i++) kinds.push((await puller.pull()).kind);
        return (performance.now() - begin) / 1000 / LOOKS;
      } finally {
        await node.volume.close();
      }
    },
    check() {
      if (kinds.length !== LOOKS || kinds.some((kind) => kind !== "current")) {
        throw new Error(`the pulls were: ${kinds.join(", ")}`);
      }
    },
  };
}
