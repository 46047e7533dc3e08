/**
 * `volcast snapshot list`.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { openTarget } from "../target.ts";
import { table } from "../text.ts";
import { showBytes } from "../units.ts";

const COLUMNS = [
  { head: "NAME" },
  { head: "ID" },
  { head: "KIND" },
  { head: "TIME" },
  { head: "BLOCKS", align: "right" },
  { head: "SIZE", align: "right" },
  { head: "POINTERS" },
] as const;

/** See the module. */
export const snapshotListCommand = defineRemoteCommand({
  name: ["snapshot", "list"],
  summary: "list the snapshots, oldest first",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `Snapshots share the blocks that are equal in them, so their sizes do not add up. Of a shadow
only the plane is left: it takes none of the blocks that are shown.`,
  examples: [
    "volcast snapshot list site.vol",
    "volcast snapshot list http://127.0.0.1:8080 --json",
  ],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const snapshots = await target.snapshots();
    if (options.json) terminal.printJson({ snapshots });
    else if (snapshots.length === 0) terminal.note("There is no snapshot yet");
    else {
      const rows = snapshots.map(({ name, id, kind, time, blocks, bytes, pointers }) => [
        name,
        id,
        kind,
        time,
        String(blocks),
        showBytes(bytes),
        pointers.join(", "),
      ]);
      terminal.print(table(COLUMNS, rows));
    }
    return EXIT_CODES.done;
  },
});
