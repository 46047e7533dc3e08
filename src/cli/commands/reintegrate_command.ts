/**
 * `volcast reintegrate`: makes a whole volume of an incremental mirror and its base.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { peekMirrorFile } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { copySourceOf } from "../copy_source.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { openMirror } from "../open_volume.ts";
import { infoOf } from "../output.ts";
import { checkPaths, copiedText, copyVolume } from "./copy_command.ts";

/** See the module. */
export const reintegrateCommand = defineCommand({
  name: ["reintegrate"],
  summary: "make a whole volume of an incremental mirror and its base",
  usage: "BASE MIRROR",
  positionals: [2, 2],
  details:
    `BASE is the image that the mirror stands on, a file, or a directory with its segments, wherever
it is now; MIRROR is the file with what is newer. The volume gets its name when all blocks are there and
every checksum up to the root was compared. It is a replica: serve it, promote it, or let it follow on.
BASE and MIRROR stay as they are.`,
  examples: [
    "volcast reintegrate /archive/site.img site.mirror -o site.vol",
    "volcast reintegrate /archive/site/ site.mirror -o site.vol --packed",
  ],
  options: {
    output: { value: "VOLUME", alias: "o", help: "where to make the volume" },
    packed: { help: "take only the room of what is in the volume" },
    overwrite: { help: "put it in the place of what VOLUME is now" },
    json: { help: "say what was done as JSON" },
  },
  schema: z.object({
    output: z.string().min(1),
    packed: z.boolean().optional(),
    overwrite: z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([base, mirror], options, terminal): Promise<number> {
    const { output: to, packed = false, overwrite = false } = options;
    if (infoOf(mirror) === undefined || peekMirrorFile(mirror) === undefined) {
      throw new VolcastError(
        "usage",
        `Cannot reintegrate ${mirror}: ${
          infoOf(mirror) === undefined ? "there is no such file" : "it is no incremental mirror"
        }`,
        "The base comes first, then the mirror: volcast reintegrate BASE MIRROR -o VOLUME",
      );
    }
    checkPaths(mirror, to, { packed, base });
    const progress = terminal.progress("Copying");
    const result = await interruptible(async (signal) => {
      const readOnlyBecause = "it is only read here";
      const source = await copySourceOf(
        await openMirror({ mirror, base, isNamed: true }, { readOnlyBecause }),
        mirror,
      );
      try {
        return await copyVolume(source, to, {
          packed,
          overwrite,
          signal,
          progress: (done, total) => progress.update(done, total),
        });
      } finally {
        progress.end();
        await source.close();
      }
    });
    if (options.json) terminal.printJson({ base, mirror, target: to, ...result });
    else terminal.print(copiedText(to, result));
    return result.kind === "current" ? EXIT_CODES.nothing : EXIT_CODES.done;
  },
});
