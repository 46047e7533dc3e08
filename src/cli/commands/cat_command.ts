/**
 * `volcast cat`: the content of a file of a volume.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { chunksOf } from "../content.ts";
import { EXIT_CODES } from "../exit.ts";
import { REF } from "../schemas.ts";
import { openTarget } from "../target.ts";

/** See the module. */
export const catCommand = defineRemoteCommand({
  name: ["cat"],
  summary: "write the content of a file to standard output",
  usage: "VOLUME PATH",
  positionals: [2, 2],
  details:
    `Without --at, the file is the one that readers see: that of the snapshot the pointer master
names, or of the active file system where there is no master.`,
  examples: [
    "volcast cat site.vol /index.html",
    "volcast cat http://127.0.0.1:8080 /logo.png --at june3 > logo.png",
  ],
  options: { at: { value: "REF", help: "a snapshot, a pointer, or active" } },
  schema: z.object({ at: REF.optional() }),
  async run([volume, path], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const content = await target.read(path, options.at);
    for await (const chunk of chunksOf(content, `'${path}'`)) terminal.write(chunk);
    return EXIT_CODES.done;
  },
});
