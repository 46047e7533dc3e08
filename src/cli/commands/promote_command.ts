/**
 * `volcast promote`: takeover. A replica becomes the origin.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { statusText } from "../status_text.ts";
import { openTarget } from "../target.ts";

/** See the module. */
export const promoteCommand = defineRemoteCommand({
  name: ["promote"],
  summary: "takeover: make a replica the origin, in a new epoch",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `For when the source is lost, or is to be somewhere else. What the replica has becomes the origin's
content; its snapshots stay, so the sites below it, and any that stand on one of them, go on with
increments. A server goes on serving, and follows nobody from now on. An origin is refused with exit
code 3.

The old source knows nothing of this. Do not publish there any more; when it comes back, bring it onto
the new line with: volcast resync`,
  examples: [
    "volcast promote paris.vol",
    "volcast promote http://127.0.0.1:8081",
  ],
  options: { json: { help: "what the volume is now, as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const status = await target.promote();
    if (options.json) terminal.printJson(status);
    else {
      terminal.print(`Promoted ${volume}`);
      terminal.print(statusText(status));
    }
    return EXIT_CODES.done;
  },
});
