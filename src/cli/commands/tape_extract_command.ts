/**
 * `volcast tape extract`: a file, a directory or single blocks from images on seekable media, without
 * reading the rest.
 *
 * @module
 */

import { z } from "zod";
import { tarFromEntries, treeEntries } from "../../archive/mod.ts";
import { type Run, VolcastError } from "../../core/mod.ts";
import { BLOCK_SIZE, decodeRoot } from "../../format/mod.ts";
import { ImageStore, type Piece, Pieces } from "../../image/mod.ts";
import { BlockCache, BlockIo, FileSystem } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { writeHostTree } from "../host_write.ts";
import { openPieces } from "../image_source.ts";
import { interruptible } from "../interrupt.ts";
import { Media } from "../media.ts";
import { checkOutput, infoOf, writeOutput } from "../output.ts";
import { NUMBERS } from "../schemas.ts";
import type { Terminal } from "../terminal.ts";
import { counted } from "../text.ts";
import { showExactBytes } from "../units.ts";
import { volumePathOf } from "../volume_path.ts";

const CACHE_BYTES = 16 * 2 ** 20;
const CHUNK_BYTES = 2 ** 20;
/** Blocks that may be asked for by number at once. */
const MAX_VBNS = 2 ** 20;

const OPTIONS = z.object({
  path: z.string().optional(),
  vbn: NUMBERS.optional(),
  output: z.string(),
  force: z.boolean().optional(),
  parents: z.boolean().optional(),
});

/** See the module. */
export const tapeExtractCommand = defineCommand({
  name: ["tape", "extract"],
  summary: "fetch one file, one directory or single blocks from an image",
  usage: "SEGMENT...",
  positionals: [1, Infinity],
  details:
    `SEGMENT is a file with segments or a plain image, also one in a volume, of one image; or of a
full image and the increments that lead on from it: the newest has its say. Only what is needed is read:
the index, the way to the file, its blocks.

A file's content goes to OUT; into a directory that is there, a file goes under its name with its
attributes. A directory's content goes into the directory OUT, or with - to standard output as tar.`,
  examples: [
    "volcast tape extract /backup/june5.* --path /docs/plan.txt -o plan.txt",
    "volcast tape extract june3.img 'june5-since-june3.seg' --path /docs -o ./docs",
    "volcast tape extract /backup/june5.* --vbn 70,72-75 -o blocks.bin",
  ],
  options: {
    path: { value: "PATH", help: "file or directory, from the root of the image's top" },
    vbn: { value: "LIST", help: "numbers of blocks: 70,72-75" },
    output: { value: "OUT", alias: "o", help: "file or directory to write; - is standard output" },
    force: { alias: "f", help: "write over files that are there" },
    parents: { alias: "p", help: "make directories that are missing" },
  },
  schema: OPTIONS,
  async run(names, options, terminal): Promise<number> {
    const { path, vbn } = options;
    if ((path === undefined) === (vbn === undefined)) {
      throw new VolcastError(
        "usage",
        "Cannot extract: one of --path and --vbn says what",
        "See: volcast tape extract --help",
      );
    }
    return await interruptible(async (signal) => {
      await using media = new Media(signal);
      const note = (text: string) => terminal.note(text);
      const pieces = await openPieces(media, names, note);
      const store = await ImageStore.open(
        imagesOf(pieces).map((image) => new Pieces(image, note)),
      );
      const target = { ...options, signal, terminal };
      if (vbn !== undefined) await extractBlocks(store, vbn, target);
      else await extractPath(store, path!, target);
      return EXIT_CODES.done;
    });
  },
});

type Target = z.output<typeof OPTIONS> & {
  readonly signal: AbortSignal;
  readonly terminal: Terminal;
};

/** The pieces of each image. */
function imagesOf(pieces: readonly Piece[]): Piece[][] {
  const images = new Map<string, Piece[]>();
  for (const piece of pieces) {
    const key = piece.streamBytes.toBase64();
    images.set(key, [...images.get(key) ?? [], piece]);
  }
  return [...images.values()];
}

async function extractBlocks(
  store: ImageStore,
  runs: readonly Run[],
  target: Target,
): Promise<void> {
  const count = runs.reduce((sum, run) => sum + run.count, 0);
  if (count > MAX_VBNS) {
    throw new VolcastError(
      "usage",
      `Cannot extract ${count} blocks at once: the limit is ${MAX_VBNS}`,
    );
  }
  async function* blocks(): AsyncGenerator<Uint8Array> {
    for (const run of runs) {
      for (let i = 0; i < run.count; i++) yield store.block(run.start + i);
    }
  }
  await write({ chunks: blocks(), byteCount: count * BLOCK_SIZE }, target, counted(count, "block"));
}

async function extractPath(store: ImageStore, path: string, target: Target): Promise<void> {
  const io = new BlockIo(store, new BlockCache(CACHE_BYTES));
  const fs = new FileSystem(io, decodeRoot(io.read(store.root)));
  const ino = fs.resolve(path);
  const { type, size } = fs.stat(ino);
  if (type === "directory" && target.output === "-") {
    for await (const chunk of tarFromEntries(treeEntries(fs, path))) target.terminal.write(chunk);
    return;
  }
  const isDirectory = infoOf(target.output)?.isDirectory ?? target.output.endsWith("/");
  if (type === "directory" || isDirectory) {
    if (volumePathOf(target.output) !== undefined) {
      throw new VolcastError(
        "usage",
        `Cannot extract to ${target.output}: into a volume goes one file`,
        "Extract to a directory or as tar (-o -), and give that to: volcast import",
      );
    }
    const report = await writeHostTree(treeEntries(fs, path), target.output, {
      overwrite: target.force || type !== "directory",
    });
    target.terminal.note(
      `Wrote ${path} to ${target.output}: ${counted(report.files, "file")}, ${
        showExactBytes(report.bytesWritten)
      }`,
    );
    return;
  }
  if (type !== "file") {
    throw new VolcastError(
      "usage",
      `Cannot extract '${path}' to a file: it is a ${type}`,
      "Name a directory that is there: -o DIRECTORY",
    );
  }
  async function* content(): AsyncGenerator<Uint8Array> {
    for (let offset = 0; offset < size;) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const count = fs.read(ino, offset, chunk);
      offset += count;
      yield chunk.subarray(0, count);
    }
  }
  await write({ chunks: content(), byteCount: size }, target, path);
}

async function write(
  content: { chunks: AsyncIterable<Uint8Array>; byteCount: number },
  { output, force = false, parents = false, signal, terminal }: Target,
  what: string,
): Promise<void> {
  await checkOutput(output, { force, parents });
  await writeOutput(output, content, { force, parents, signal, terminal });
  if (output !== "-") {
    terminal.note(`Wrote ${what} to ${output}: ${showExactBytes(content.byteCount)}`);
  }
}
