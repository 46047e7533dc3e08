/**
 * Writing an image in segments to one or several places.
 *
 * @module
 */

import { type Run, VolcastError } from "../core/mod.ts";
import { type Segment, segmentLength } from "../format/mod.ts";
import {
  planSegments,
  type RangedImage,
  segmentRecords,
  type SegmentSizes,
  type StreamMap,
} from "../image/mod.ts";
import { checkOutput, infoOf, type OutputOptions, writeOutput } from "./output.ts";
import type { Terminal } from "./terminal.ts";
import { showExactBytes } from "./units.ts";
import { volumePathOf } from "./volume_path.ts";

/** How segments are written. */
export interface SegmentOptions extends OutputOptions {
  readonly sizes: SegmentSizes;
  /** Numbers of the segments to write; all by default. */
  readonly only?: readonly Run[] | undefined;
  /** One place for each segment, under the name as given. */
  readonly isOneEach?: boolean;
  readonly signal: AbortSignal;
  readonly terminal: Terminal;
  readonly progress: (done: number, total: number) => void;
}

/** A segment and where it went. */
export interface WrittenSegment {
  readonly segment: Segment;
  /** Bytes on the medium. */
  readonly byteCount: number;
  readonly name: string;
}

/**
 * Cuts an image and deals its segments out to places in turn: directories, names that are followed by
 * the number of the segment where the image is cut, files in volumes, devices, `-`.
 *
 * @throws {VolcastError} `usage` for sizes and numbers that cannot be; see {@linkcode writeOutput}.
 */
export async function writeSegments(
  image: RangedImage,
  outputs: readonly string[],
  options: SegmentOptions,
): Promise<WrittenSegment[]> {
  const { segments, map } = await planSegments(image, options.sizes);
  if (options.isOneEach && segments.length !== outputs.length) {
    throw new VolcastError(
      "usage",
      `Cannot write ${segments.length} parts to ${outputs.length} places: one -o for each part, or ` +
        `one directory for all`,
    );
  }
  const chosen = chosenOf(segments, options.only);
  const total = chosen.reduce((sum, segment) => sum + segmentLength(segment), 0);
  const written = chosen.map((segment): WrittenSegment => {
    const output = outputs[(segment.number - 1) % outputs.length];
    const { segmentBytes, splitVbns } = options.sizes;
    const isCut = segmentBytes !== undefined || splitVbns !== undefined;
    const isNumbered = isCut && !options.isOneEach;
    const name = nameOf(output, segment, { map, isNumbered });
    return { segment, byteCount: segmentLength(segment), name };
  });
  for (const { name } of written) await checkOutput(name, options);
  let done = 0;
  for (const together of groupsOf(written)) {
    const chunks = counted(recordsOf(image, together), (bytes) => {
      done += bytes;
      options.progress(done, total);
    });
    const byteCount = together.reduce((sum, one) => sum + one.byteCount, 0);
    const [{ name, segment: { recordBytes } }] = together;
    await writeOutput(name, { chunks, byteCount, recordBytes }, options);
  }
  return written;
}

/** Segments for one device or pipe go there at one go: a drive may rewind when it is closed. */
function groupsOf(written: readonly WrittenSegment[]): WrittenSegment[][] {
  const groups = new Map<string, WrittenSegment[]>();
  for (const one of written) groups.set(one.name, [...groups.get(one.name) ?? [], one]);
  return [...groups.values()];
}

async function* recordsOf(
  image: RangedImage,
  written: readonly WrittenSegment[],
): AsyncGenerator<Uint8Array> {
  for (const { segment } of written) yield* segmentRecords(image, segment);
}

function chosenOf(
  segments: readonly Segment[],
  only: readonly Run[] | undefined,
): readonly Segment[] {
  if (only === undefined) return segments;
  for (const { start, count } of only) {
    if (start >= 1 && start + count - 1 <= segments.length) continue;
    throw new VolcastError(
      "usage",
      `Cannot write segment ${start < 1 ? start : start + count - 1}: with these sizes the image ` +
        `has ${segments.length}`,
    );
  }
  return segments.filter(({ number }) =>
    only.some(({ start, count }) => number >= start && number < start + count)
  );
}

function nameOf(
  output: string,
  segment: Segment,
  { map, isNumbered }: { map: StreamMap; isNumbered: boolean },
): string {
  if (output === "-") return output;
  const { top, base } = map.header;
  const digits = Math.max(3, String(segment.count).length);
  const number = `.${String(segment.number).padStart(digits, "0")}`;
  const info = volumePathOf(output) === undefined ? infoOf(output) : undefined;
  if (info?.isDirectory || output.endsWith("/")) {
    const image = base === undefined ? top.name : `${top.name}-since-${base.name}`;
    return `${output.replace(/\/+$/, "")}/${image}${number}`;
  }
  // All segments go to one device, one behind the other.
  const isSpecial = info !== undefined && !info.isFile;
  return isNumbered && !isSpecial ? output + number : output;
}

/** What was written, a line for each segment. */
export function writtenText(written: readonly WrittenSegment[]): string {
  return written.map(({ segment: { number, count }, byteCount, name }) =>
    `Wrote ${name}: segment ${number} of ${count}, ${showExactBytes(byteCount)}`
  ).join("\n");
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  each: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    each(chunk.length);
    yield chunk;
  }
}
