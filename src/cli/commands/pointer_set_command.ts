/**
 * `volcast pointer set`: moves or makes a pointer.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { parseRef } from "../schemas.ts";
import { openTarget } from "../target.ts";

/** See the module. */
export const pointerSetCommand = defineRemoteCommand({
  name: ["pointer", "set"],
  summary: "let a pointer mean a snapshot",
  usage: "VOLUME NAME REF",
  positionals: [3, 3],
  details: `The pointer is made where there is none of this name. REF is a snapshot's name or id, or
another pointer. Moving master to an older snapshot takes all sites back to it.`,
  examples: [
    "volcast pointer set site.vol master june5",
    "volcast pointer set http://127.0.0.1:8080 stable june3",
  ],
  options: { json: { help: "say where it is now as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume, name, ref], options, terminal): Promise<number> {
    parseRef(ref);
    await using target = await openTarget(volume, options);
    const pointer = await target.setPointer(name, ref);
    if (options.json) terminal.printJson(pointer);
    else terminal.print(`${pointer.name} -> ${pointer.snapshotName} (${pointer.snapshot})`);
    return EXIT_CODES.done;
  },
});
