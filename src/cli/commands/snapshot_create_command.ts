/**
 * `volcast snapshot create`: takes a snapshot of the active file system.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { REF } from "../schemas.ts";
import { openTarget } from "../target.ts";
import { showBytes } from "../units.ts";

/** See the module. */
export const snapshotCreateCommand = defineRemoteCommand({
  name: ["snapshot", "create"],
  summary: "take a snapshot",
  usage: "VOLUME NAME",
  positionals: [2, 2],
  details:
    `With --pointer master the snapshot is what sites pull and readers see from then on. NAME is
of letters, digits and _ . : @ -`,
  examples: [
    "volcast snapshot create site.vol before-cleanup",
    "volcast snapshot create http://127.0.0.1:8080 june5 --pointer master",
  ],
  options: {
    pointer: { value: "NAME", list: true, help: "let this pointer mean it too; may be repeated" },
    json: { help: "say what was taken as JSON" },
  },
  schema: z.object({ pointer: z.array(REF).optional(), json: z.boolean().optional() }),
  async run([volume, name], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const pointers = options.pointer ?? [];
    const snapshot = await target.createSnapshot(name, { pointers });
    if (options.json) terminal.printJson(snapshot);
    else {
      const pointed = pointers.length === 0 ? "" : `, named by ${pointers.join(", ")}`;
      terminal.print(
        `Took '${snapshot.name}' (${snapshot.id}): ${snapshot.blocks} blocks (${
          showBytes(snapshot.bytes)
        })${pointed}`,
      );
    }
    return EXIT_CODES.done;
  },
});
