/**
 * `volcast snapshot delete`.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { parseRef } from "../schemas.ts";
import { openTarget } from "../target.ts";

/** See the module. */
export const snapshotDeleteCommand = defineRemoteCommand({
  name: ["snapshot", "delete"],
  summary: "delete a snapshot or a shadow",
  usage: "VOLUME REF",
  positionals: [2, 2],
  details:
    `REF is the name or the id of a snapshot. One that a pointer names or that a site stands on
is not deleted: the message says which, and the exit code is 5. To get the blocks of one back that a
site stands on: volcast snapshot shadow.`,
  examples: ["volcast snapshot delete site.vol june3"],
  options: {},
  schema: z.object({}),
  async run([volume, ref], options, terminal): Promise<number> {
    parseRef(ref);
    await using target = await openTarget(volume, options);
    await target.deleteSnapshot(ref);
    terminal.print(`Deleted '${ref}'`);
    return EXIT_CODES.done;
  },
});
