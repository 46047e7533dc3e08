/**
 * `volcast pointer list`.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { openTarget } from "../target.ts";
import { table } from "../text.ts";

const COLUMNS = [{ head: "NAME" }, { head: "SNAPSHOT" }, { head: "ID" }];

/** See the module. */
export const pointerListCommand = defineRemoteCommand({
  name: ["pointer", "list"],
  summary: "list the pointers and what they mean",
  usage: "VOLUME",
  positionals: [1, 1],
  examples: ["volcast pointer list site.vol", "volcast pointer list http://127.0.0.1:8080 --json"],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const pointers = await target.pointers();
    if (options.json) terminal.printJson({ pointers });
    else if (pointers.length === 0) terminal.note("There is no pointer yet");
    else {
      const rows = pointers.map(({ name, snapshot, snapshotName }) => [
        name,
        snapshotName,
        snapshot,
      ]);
      terminal.print(table(COLUMNS, rows));
    }
    return EXIT_CODES.done;
  },
});
