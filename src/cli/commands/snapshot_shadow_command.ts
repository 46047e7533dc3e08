/**
 * `volcast snapshot shadow`.
 *
 * @module
 */

import { z } from "zod";
import { BLOCK_SIZE } from "../../format/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { parseRef } from "../schemas.ts";
import { openTarget } from "../target.ts";
import { counted } from "../text.ts";
import { showBytes } from "../units.ts";

/** See the module. */
export const snapshotShadowCommand = defineRemoteCommand({
  name: ["snapshot", "shadow"],
  summary: "give a snapshot's blocks back and keep its plane as a base",
  usage: "VOLUME REF",
  positionals: [2, 2],
  details:
    `REF is the name or the id of a snapshot. Nothing can be read from it afterwards, and there is
no way back. Sites that stand on it do not forbid it; a pointer that names it does (exit code 5). A
shadow is deleted with snapshot delete. Beyond six shadows, the oldest ones share a plane.`,
  examples: [
    "volcast snapshot shadow site.vol june3",
    "volcast snapshot shadow http://127.0.0.1:8080 june3",
  ],
  options: { json: { help: "say what was done as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume, ref], options, terminal): Promise<number> {
    parseRef(ref);
    await using target = await openTarget(volume, options);
    const shadow = await target.shadowSnapshot(ref);
    if (options.json) terminal.printJson(shadow);
    else {
      terminal.print(
        `Made '${shadow.name}' (${shadow.id}) a shadow: ${
          counted(shadow.releasedBlocks, "block")
        } (${showBytes(shadow.releasedBlocks * BLOCK_SIZE)}) may be used again`,
      );
    }
    return EXIT_CODES.done;
  },
});
