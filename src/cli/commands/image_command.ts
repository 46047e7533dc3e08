/**
 * `volcast image`: an image as a file, in parts at several places, or to standard output.
 *
 * @module
 */

import { z } from "zod";
import { parseExpression, type Run, VolcastError } from "../../core/mod.ts";
import { SEGMENT_HEADER_LAYOUT } from "../../format/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { chunksOf } from "../content.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { checkNoTerminal, checkOutput, writeOutput } from "../output.ts";
import { NUMBERS, SNAPSHOT_LIST } from "../schemas.ts";
import { writeSegments, writtenText } from "../segment_output.ts";
import { type ImageBytes, type ImageRequest, openTarget, type Target } from "../target.ts";
import type { Terminal } from "../terminal.ts";
import { BYTE_SIZE, showExactBytes } from "../units.ts";
import { checkOtherVolume } from "../volume_path.ts";

/** Records of parts on disks, which have no records: a part may be nearly as long as asked for. */
const PART_RECORD_BYTES = SEGMENT_HEADER_LAYOUT.size;

const OPTIONS = z.object({
  output: z.array(z.string()).optional(),
  snapshots: SNAPSHOT_LIST.optional(),
  "split-size": BYTE_SIZE.optional(),
  "split-vbn": NUMBERS.optional(),
  force: z.boolean().optional(),
  parents: z.boolean().optional(),
});

/** See the module. */
export const imageCommand = defineRemoteCommand({
  name: ["image"],
  summary: "write the image of a snapshot, of what changed between two, of any expression",
  usage: "VOLUME [EXPRESSION]",
  positionals: [1, 2],
  details: `EXPRESSION is a snapshot ('june5', a full image), a difference ('june5 - june3', an
increment), a sum that restores several snapshots ('june5 + june4 - june3'), or any other of +, - and &
with parentheses; volcast plan says what it restores, and on what. With --snapshots in its place: a
full image that has these snapshots too, readable at the target.

The same image has the same bytes wherever and whenever it is made. The file takes its name when it is
complete. Without -o the image goes to standard output. FILE may lie in another volume:
b.vol:/backups/june5.img. It is durable when the command ends.

With --split-size or --split-vbn the image is cut into parts, which are dealt out in turn to the
places that -o names, directories or files; by size the number of the part is added to the name.
Any mix of parts, in any order, is read by: volcast apply. What is in them: volcast tape list`,
  examples: [
    "volcast image site.vol june5 -o june5.img",
    "volcast image site.vol 'june5 - june3' -o june5.img",
    "volcast image site.vol 'june5 + june4 - june3' -o level1.img",
    "volcast image site.vol --snapshots all -o everything.img",
    "volcast image http://127.0.0.1:8080 june5 | ssh edge volcast apply copy.vol -",
    "volcast image site.vol june5 -o backup.vol:/2026/june5.img --parents",
    "volcast image site.vol june5 --split-size 100MiB -o /disk1/ -o /disk2/ -o /disk3/",
    "volcast image site.vol june5 --split-vbn 50000,100000 -o a.seg -o b.seg -o c.seg",
  ],
  options: {
    output: { value: "FILE", alias: "o", help: "where to write; - is standard output", list: true },
    snapshots: {
      value: "all|NAMES",
      help: "a copy that keeps history: these, with commas between",
    },
    "split-size": { value: "SIZE", help: "cut into parts of at most this size: 100MiB" },
    "split-vbn": { value: "N,M", help: "cut before these blocks" },
    force: { alias: "f", help: "write over a file that is there" },
    parents: { alias: "p", help: "make directories that are missing" },
  },
  schema: OPTIONS,
  async run([volume, select], options, terminal): Promise<number> {
    const wanted = wantedImage(select, options.snapshots);
    const outputs = options.output ?? ["-"];
    checkOtherVolume(volume, outputs);
    const sizes = splitOf(outputs, options);
    if (sizes === undefined) {
      await writeWhole({ volume, wanted, path: outputs[0] }, options, terminal);
    } else {
      await writeParts({ volume, wanted, outputs, sizes }, options, terminal);
    }
    return EXIT_CODES.done;
  },
});

type Options = z.output<typeof OPTIONS>;

function wantedImage(select: string | undefined, snapshots: string | undefined): ImageRequest {
  if (select !== undefined && snapshots === undefined) {
    parseExpression(select);
    return { select };
  }
  if (snapshots !== undefined && select === undefined) return { snapshots };
  throw new VolcastError(
    "usage",
    "Cannot make the image: give either an expression or --snapshots",
    "For example: volcast image site.vol june5 -o june5.img",
  );
}

/** How the image is cut, if it is. */
function splitOf(
  outputs: readonly string[],
  options: Options,
): { segmentBytes: number } | { splitVbns: number[] } | undefined {
  const { "split-size": size, "split-vbn": runs } = options;
  const misuse = (reason: string): never => {
    throw new VolcastError(
      "usage",
      `Cannot write the image: ${reason}`,
      "See: volcast image --help",
    );
  };
  if (size !== undefined && runs !== undefined) {
    misuse("--split-size and --split-vbn exclude each other");
  }
  if (size === undefined && runs === undefined) {
    if (outputs.length > 1) misuse("several -o need --split-size or --split-vbn");
    return undefined;
  }
  if (outputs.includes("-")) misuse("parts need names: -o PART or -o DIRECTORY");
  if (size !== undefined) return { segmentBytes: size };
  if (runs!.some(({ count }) => count > 1)) misuse("--split-vbn takes single numbers");
  return { splitVbns: runs!.map(({ start }: Run) => start) };
}

async function writeWhole(
  { volume, wanted, path }: { volume: string; wanted: ImageRequest; path: string },
  options: Options & WithCredentials,
  terminal: Terminal,
): Promise<void> {
  const { force = false, parents = false } = options;
  if (path === "-") checkNoTerminal(options.output !== undefined);
  await checkOutput(path, { force, parents });
  const progress = terminal.progress("Writing");
  await using target = await openTarget(volume, options);
  const image = await target.image(wanted);
  const { byteCount } = image;
  const chunks = counted(image, (done) => progress.update(done, byteCount));
  const write = (signal: AbortSignal) =>
    writeOutput(path, { chunks, byteCount }, { force, parents, signal, terminal });
  try {
    // To a pipe a signal just ends this: there is nothing to clean up, and a full pipe blocks.
    await (path === "-" ? write(new AbortController().signal) : interruptible(write));
  } finally {
    progress.end();
  }
  if (path !== "-") terminal.note(`Wrote ${path}: ${showExactBytes(byteCount)}`);
}

async function writeParts(
  image: {
    volume: string;
    wanted: ImageRequest;
    outputs: readonly string[];
    sizes: { segmentBytes: number } | { splitVbns: number[] };
  },
  options: Options & WithCredentials,
  terminal: Terminal,
): Promise<void> {
  const { force = false, parents = false } = options;
  const progress = terminal.progress("Writing");
  await using target: Target = await openTarget(image.volume, options);
  try {
    const written = await interruptible(async (signal) =>
      writeSegments(await target.rangedImage(image.wanted, signal), image.outputs, {
        sizes: { ...image.sizes, recordBytes: PART_RECORD_BYTES },
        isOneEach: "splitVbns" in image.sizes && image.outputs.length > 1,
        force,
        parents,
        signal,
        terminal,
        progress: (done, total) => progress.update(done, total),
      })
    );
    terminal.note(writtenText(written));
  } finally {
    progress.end();
  }
}

/** The image's chunks; fails when they are not all that was announced. */
async function* counted(
  image: ImageBytes,
  progress: (done: number) => void,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const chunk of chunksOf(image.stream, "the image")) {
    done += chunk.length;
    progress(done);
    yield chunk;
  }
  if (done === image.byteCount) return;
  throw new VolcastError(
    "io",
    `Cannot write the image: ${done} of ${image.byteCount} bytes have come`,
  );
}
