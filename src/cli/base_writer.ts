/**
 * Writing the base of an incremental mirror: one file, or segments in a directory.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { type Image, RECORD_BYTES } from "../image/mod.ts";
import { isDirectory, partsOf } from "./base_image.ts";
import { infoOf, type OutputOptions, writeOutput } from "./output.ts";
import { removeAbandoned } from "./partial_file.ts";
import { writeSegments } from "./segment_output.ts";
import type { Terminal } from "./terminal.ts";

/** How a base is written. */
export interface BaseOptions {
  /** Most bytes of a segment, where the base is in segments. */
  readonly segmentBytes: number | undefined;
  readonly signal: AbortSignal;
  readonly terminal: Terminal;
  readonly progress: (done: number, total: number) => void;
}

/**
 * Writes a full image as a base; durable when this returns. Segments that are there of the same image
 * are written again. When it fails none of them stays.
 *
 * @throws {VolcastError} `exists` when there are segments of another image; see `writeOutput`.
 */
export async function writeBase(image: Image, path: string, options: BaseOptions): Promise<void> {
  const { signal, terminal, progress } = options;
  const { byteCount } = image;
  if (!isDirectory(path)) {
    // On the host the directory is there; within a volume it is made.
    const output = { force: false, parents: true, signal, terminal };
    const chunks = counted(image, progress, () => checkIsNew(path));
    return await writeOutput(path, { chunks, byteCount }, output);
  }
  await checkParts(image, path);
  // Segments of an attempt that was killed may have had other names.
  removeAbandoned(path);
  const isNew = infoOf(path) === undefined;
  try {
    await writeInSegments(image, path, options);
  } catch (error) {
    // The next one is of a newer snapshot: what stayed of this one would be in its way.
    for (const part of segmentsIn(path, image.top.name)) Deno.removeSync(part);
    if (isNew) removeIfEmpty(path);
    throw error;
  }
}

async function writeInSegments(
  image: Image,
  path: string,
  { segmentBytes, signal, terminal, progress }: BaseOptions,
): Promise<void> {
  const { byteCount } = image;
  const ranged = {
    byteCount,
    stream: (from: number, to: number) => image.stream({ from, to }),
  };
  const output: OutputOptions = { force: true, parents: true };
  await writeSegments(ranged, [path], {
    ...output,
    signal,
    terminal,
    sizes: { recordBytes: RECORD_BYTES, ...(segmentBytes === undefined ? {} : { segmentBytes }) },
    progress: (done, total) => progress(Math.min(done, byteCount), total),
  });
}

/** Writing takes long: somebody else may have made a base there, and a mirror stand on it. */
function checkIsNew(path: string): void {
  if (infoOf(path) === undefined) return;
  throw new VolcastError(
    "exists",
    `Cannot make a base at ${path}: something came there meanwhile`,
    "Look what it is; begin anew with another path for the base",
  );
}

async function checkParts(image: Image, path: string): Promise<void> {
  const parts = await partsOf(path);
  if (parts === undefined || parts.top === image.top.id) return;
  throw new VolcastError(
    "exists",
    `Cannot make a base in ${path}: there are segments of '${parts.name}' (${parts.top}), not all of it`,
    "Remove them if they are of no use, or give another directory",
  );
}

function segmentsIn(path: string, image: string): string[] {
  if (infoOf(path) === undefined) return [];
  return [...Deno.readDirSync(path)].map(({ name }) => name)
    .filter((name) => name.startsWith(image) && /^(\.\d+)?$/.test(name.slice(image.length)))
    .map((name) => `${path.replace(/\/+$/, "")}/${name}`);
}

function removeIfEmpty(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // It has something else.
  }
}

async function* counted(
  image: Image,
  progress: BaseOptions["progress"],
  checkAtEnd: () => void,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const chunk of image.stream()) {
    yield chunk;
    progress(done += chunk.length, image.byteCount);
  }
  checkAtEnd();
}
