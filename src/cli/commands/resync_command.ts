/**
 * `volcast resync`: back to the newest snapshot in common with a parent, and forward from there.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { HttpPeer } from "../../http/mod.ts";
import {
  describe,
  Node,
  planResync,
  type PullResult,
  type ResyncPlan,
} from "../../replication/mod.ts";
import { openVolumeFile, type Snapshot, type Volume } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { COMPRESS_OPTION } from "../limits.ts";
import { requirePath } from "../local_volume.ts";
import { NODE_NAME, PARENT_URL } from "../schemas.ts";
import { changeLine, counted, showTime } from "../text.ts";
import { pullShown } from "./pull_command.ts";

const SCHEMA = z.object({
  parent: PARENT_URL,
  site: NODE_NAME.optional(),
  "discard-local": z.boolean().optional(),
  compress: z.boolean().optional(),
  json: z.boolean().optional(),
});
type Options = z.output<typeof SCHEMA>;

/** See the module. */
export const resyncCommand = defineRemoteCommand({
  name: ["resync"],
  summary: "go back to the newest snapshot in common with a parent, and pull from there",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `For a volume that has left its parent's line: an old source after a takeover, or a site that
followed it. First everything is listed that would be lost: snapshots that the parent does not have, and
paths made, changed and removed since the newest snapshot in common. If there is anything, nothing is
done and the exit code is 1, unless --discard-local is given. Then the volume goes back to the common
snapshot in one step, becomes a replica if it was an origin, and pulls what is new: only the blocks that
differ. Interrupted, the same command goes on.`,
  examples: [
    "volcast resync site.vol --parent http://paris:8080 --site lyon",
    "volcast resync site.vol --parent http://paris:8080 --site lyon --discard-local",
  ],
  options: {
    parent: { value: "URL", help: "the server to follow; needed" },
    site: { value: "NAME", help: "this node's name; the name of its file by default" },
    "discard-local": { help: "go on although something is lost" },
    compress: COMPRESS_OPTION,
    json: { help: "what would be lost, and what was done, as JSON" },
  },
  schema: SCHEMA,
  async run([path], options: Options & WithCredentials, terminal): Promise<number> {
    requirePath(path, {
      action: "resync",
      reason: "it takes the volume back under its readers",
      hint: "Stop the server and run resync on its host, with the volume's path",
    });
    const { credentials } = options;
    credentials.nameServers([options.parent]);
    const peer = new HttpPeer(options.parent, { credentials, compress: options.compress });
    const site = options.site ?? siteOf(path);
    const volume = openVolumeFile(path);
    const node = new Node({ name: site, path, volume });
    try {
      const plan = await planWith(volume, peer);
      await checkParent(peer, { site, volume, plan });
      const isLoss = plan.snapshots.length > 0 || plan.changes.length > 0;
      const goesOn = !isLoss || options["discard-local"] === true;
      if (!options.json) terminal.print(textOf(plan, goesOn));
      if (!goesOn) {
        if (options.json) terminal.printJson({ ...planJson(plan), done: false });
        terminal.note("Nothing was changed. To lose this and go on: --discard-local");
        return EXIT_CODES.failed;
      }
      if (plan.goesBack) await volume.goBack(plan.common!);
      const pulled: PullResult = await pullShown(node, [peer], terminal);
      if (options.json) terminal.printJson({ ...planJson(plan), done: true, pulled });
      else terminal.print(describe(pulled));
      return EXIT_CODES.done;
    } finally {
      await node.volumeIfAny?.close();
    }
  },
});

async function planWith(volume: Volume, peer: HttpPeer): Promise<ResyncPlan> {
  const { volumeId, ids } = await peer.snapshots();
  if (volumeId !== volume.volumeId) {
    throw new VolcastError(
      "diverged",
      `Cannot resync with ${peer.name}: it has volume ${volumeId}, this is ${volume.volumeId}`,
      "Check the parent's URL",
    );
  }
  return planResync(volume, ids);
}

/** Looks whether the way forward is there, before anything is changed. */
async function checkParent(
  peer: HttpPeer,
  { site, volume, plan: { common } }: { site: string; volume: Volume; plan: ResyncPlan },
): Promise<void> {
  if (common === undefined) {
    const newest = volume.snapshots().at(-1);
    throw new VolcastError(
      "diverged",
      `Cannot resync with ${peer.name}: it has none of the snapshots here${
        newest === undefined ? "" : `, the newest of which is '${newest.name}' (${newest.id})`
      }`,
      `Take its full image into a new path: volcast pull NEW --site ${site} --parent ${peer.name}`,
    );
  }
  const { chain } = await peer.plan({ since: common.id, site });
  if (!chain.includes(site)) return;
  throw new VolcastError(
    "diverged",
    `Cannot resync with ${peer.name}: its chain of parents (${
      chain.join(" <- ")
    }) contains this node, '${site}'`,
    "Give this node a name of its own with --site, or choose a parent that is not below it",
  );
}

/** The name of a file without its folder and its ending. */
function siteOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1).replace(/\.[^.]*$/, "");
  const parsed = NODE_NAME.safeParse(name);
  if (parsed.success) return parsed.data;
  throw new VolcastError(
    "usage",
    `Cannot name this node '${name}' after its file`,
    "Give it a name: --site NAME",
  );
}

function textOf(plan: ResyncPlan, goesOn: boolean): string {
  const { snapshots, changes } = plan;
  const lines = [`Newest common snapshot: ${nameOf(plan.common!)}`];
  if (snapshots.length + changes.length === 0) lines.push("Nothing is lost");
  else {
    lines.push(
      `${goesOn ? "Lost" : "Would be lost"}: ${counted(snapshots.length, "snapshot")}, ${
        counted(changes.length, "path")
      }`,
    );
  }
  for (const snapshot of snapshots) {
    lines.push(`  snapshot  ${nameOf(snapshot)}, ${showTime(snapshot.time)}`);
  }
  for (const change of changes) lines.push(`  ${changeLine(change)}`);
  return lines.join("\n");
}

function nameOf({ name, id }: Snapshot): string {
  return `'${name}' (${id})`;
}

function planJson({ common, snapshots, changes }: ResyncPlan): Record<string, unknown> {
  const short = ({ id, name }: Snapshot) => ({ id, name });
  return { common: short(common!), lost: { snapshots: snapshots.map(short), paths: changes } };
}
