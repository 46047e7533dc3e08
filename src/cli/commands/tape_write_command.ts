/**
 * `volcast tape write`: an image in segments, for tapes and whatever else takes bytes in sequence.
 *
 * @module
 */

import { z } from "zod";
import { parseExpression, VolcastError } from "../../core/mod.ts";
import { RECORD_BYTES } from "../../image/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { checkNoTerminal } from "../output.ts";
import { NUMBERS } from "../schemas.ts";
import { writeSegments, type WrittenSegment, writtenText } from "../segment_output.ts";
import { openTarget } from "../target.ts";
import { BYTE_SIZE } from "../units.ts";
import { checkOtherVolume } from "../volume_path.ts";

/** See the module. */
export const tapeWriteCommand = defineRemoteCommand({
  name: ["tape", "write"],
  summary: "write an image in segments, each for a medium of its own",
  usage: "VOLUME EXPRESSION",
  positionals: [2, 2],
  details: `EXPRESSION is as for image. Each segment has a header that says of which image it is and
which part, whole records, and a trailer with a digest; it is never longer than --segment-size. Segments
are the same bytes whenever they are made with the same sizes: with --only, those whose medium was
lost are made again.

With --segment-size FILE becomes FILE.001, FILE.002 ...; in a directory they are named after the
snapshot. To a device or a pipe (-) they go one behind the other, a record with each write.`,
  examples: [
    "volcast tape write site.vol june5 --segment-size 1GiB -o /backup/",
    "volcast tape write site.vol 'june5 - june3' -o june5.seg",
    "volcast tape write site.vol june5 -o - | ssh host 'cat > /dev/nst0'",
    "volcast tape write http://127.0.0.1:8080 june5 --segment-size 1GiB --only 3 -o /backup/",
  ],
  options: {
    output: { value: "FILE", alias: "o", help: "file, directory, device, or - (standard output)" },
    "segment-size": { value: "SIZE", help: "most bytes of a segment; all in one by default" },
    "record-size": { value: "SIZE", help: "bytes of a record: 512 to 16MiB; 64KiB by default" },
    only: { value: "N,M", help: "write only these segments" },
    force: { alias: "f", help: "write over files that are there" },
    parents: { alias: "p", help: "make directories that are missing" },
    json: { help: "say what was written as JSON (not with -)" },
  },
  schema: z.object({
    output: z.string().optional(),
    "segment-size": BYTE_SIZE.optional(),
    "record-size": BYTE_SIZE.default(RECORD_BYTES),
    only: NUMBERS.optional(),
    force: z.boolean().optional(),
    parents: z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([volume, select], options, terminal): Promise<number> {
    parseExpression(select);
    const output = options.output ?? "-";
    if (output === "-") checkNoTerminal(options.output !== undefined);
    if (output === "-" && options.json) {
      throw new VolcastError(
        "usage",
        "Cannot write JSON: standard output takes the segments",
        "Name a file: -o june5.seg",
      );
    }
    checkOtherVolume(volume, [output]);
    const progress = terminal.progress("Writing");
    await using target = await openTarget(volume, options);
    const segmentBytes = options["segment-size"];
    const write = async (signal: AbortSignal): Promise<WrittenSegment[]> =>
      await writeSegments(await target.rangedImage({ select }, signal), [output], {
        sizes: {
          recordBytes: options["record-size"],
          ...(segmentBytes === undefined ? {} : { segmentBytes }),
        },
        only: options.only,
        force: options.force ?? false,
        parents: options.parents ?? false,
        signal,
        terminal,
        progress: (done, total) => progress.update(done, total),
      });
    let written: WrittenSegment[];
    try {
      // To a pipe a signal just ends this: there is nothing to clean up, and a full pipe blocks.
      written = await (output === "-" ? write(new AbortController().signal) : interruptible(write));
    } finally {
      progress.end();
    }
    if (options.json) {
      terminal.printJson(written.map(({ name, byteCount, segment: { number, count } }) => ({
        name,
        number,
        count,
        bytes: byteCount,
      })));
    } else if (output !== "-") terminal.note(writtenText(written));
    return EXIT_CODES.done;
  },
});
