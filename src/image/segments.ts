/**
 * Cutting an image's stream into segments, and putting segments that come one behind the other back
 * together.
 *
 * Invariants:
 * 1. Where the stream is cut is a function of its index and of the sizes asked for: a segment that was
 *    lost can be made again, alone, at any node.
 * 2. A segment with header, gap and trailer is never longer than asked for.
 * 3. A frame lies whole in one segment wherever a segment has room for it: then one medium is enough
 *    to fetch its blocks and to check them.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { damaged, inChunks, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checkSegmentTrailer,
  type DecodedSegment,
  decodeSegmentHeader,
  decodeStreamHeader,
  encodeSegmentHeader,
  encodeSegmentTrailer,
  equalBytes,
  gapOf,
  isRecordSize,
  MAX_RECORD_BYTES,
  MIN_RECORD_BYTES,
  type Segment,
  SEGMENT_HEADER_LAYOUT,
  SEGMENT_OVERHEAD,
  SEGMENT_TRAILER_LAYOUT,
  STREAM_HEADER_LAYOUT,
} from "../format/mod.ts";
import { ByteReader, CutError } from "./byte_reader.ts";
import { framesOffset } from "./image.ts";
import { readIndex } from "./stream_index.ts";
import { StreamMap } from "./stream_map.ts";

/** Bytes of a record, where nothing else is asked for. */
export const RECORD_BYTES = 64 * 1024;
/** Most segments of an image. */
export const MAX_SEGMENTS = 100_000;
/** About the size of the chunks a segment is given out in. */
const CHUNK_BYTES = 1024 * 1024;

/** An image whose bytes can be had from any place on. */
export interface RangedImage {
  readonly byteCount: number;
  /** The bytes of the stream from `from` up to `to` (excluded). */
  stream(
    from: number,
    to: number,
  ): ReadableStream<Uint8Array> | Promise<ReadableStream<Uint8Array>>;
}

/** How a stream is cut. Without either size: not at all, it is one segment. */
export interface SegmentSizes {
  /** Most bytes of a segment, all of it counted. */
  readonly segmentBytes?: number;
  /** VBNs before which it is cut, ascending; a frame stays whole. */
  readonly splitVbns?: readonly number[];
  /** Bytes of a record; 64 KiB by default. */
  readonly recordBytes?: number;
}

/** An image cut into segments. */
export interface SegmentPlan {
  readonly segments: readonly Segment[];
  readonly map: StreamMap;
}

/**
 * Plans the segments of an image. Reads header and index only.
 *
 * @throws {VolcastError} `usage` for sizes that cannot be.
 */
export async function planSegments(
  image: RangedImage,
  sizes: SegmentSizes = {},
): Promise<SegmentPlan> {
  const recordBytes = sizes.recordBytes ?? RECORD_BYTES;
  if (!isRecordSize(recordBytes)) {
    throw new VolcastError(
      "usage",
      `Cannot write records of ${recordBytes} bytes: a record has ${MIN_RECORD_BYTES} to ` +
        `${MAX_RECORD_BYTES} bytes, a multiple of ${MIN_RECORD_BYTES}`,
    );
  }
  const { streamBytes, map } = await readFront(image);
  const cuts = sizes.splitVbns === undefined
    ? cutBySize(map, sizes.segmentBytes ?? Infinity, recordBytes)
    : cutByVbn(map, sizes.splitVbns);
  const segments = cuts.slice(1).map((end, i): Segment => {
    const offset = cuts[i];
    const blockCount = map.blocksBefore(end).count - map.blocksBefore(offset).count;
    return {
      number: i + 1,
      count: cuts.length - 1,
      offset,
      payloadBytes: end - offset,
      recordBytes,
      ...(blockCount === 0
        ? {}
        : { vbns: { first: map.blockFrom(offset)!, last: map.blocksBefore(end).last } }),
      blockCount,
      streamBytes,
    };
  });
  return { segments, map };
}

async function readFront(
  image: RangedImage,
): Promise<{ streamBytes: Uint8Array; map: StreamMap }> {
  const head = new ByteReader(await image.stream(0, STREAM_HEADER_LAYOUT.size));
  const streamBytes = await head.take(STREAM_HEADER_LAYOUT.size);
  await head.cancel();
  const front = framesOffset(decodeStreamHeader(streamBytes));
  const reader = new ByteReader(await image.stream(0, front));
  try {
    return { streamBytes, map: new StreamMap(await readIndex(reader, () => {})) };
  } finally {
    await reader.cancel();
  }
}

function cutBySize(map: StreamMap, segmentBytes: number, recordBytes: number): number[] {
  const { byteCount } = map.header;
  const room = Math.floor(segmentBytes / recordBytes) * recordBytes - SEGMENT_OVERHEAD;
  // Below a block a segment would be mostly header.
  if (room < BLOCK_SIZE) {
    const least = Math.ceil((SEGMENT_OVERHEAD + BLOCK_SIZE) / recordBytes) * recordBytes;
    throw new VolcastError(
      "usage",
      `Cannot make segments of ${segmentBytes} bytes: with records of ${recordBytes} bytes the ` +
        `least is ${least}`,
    );
  }
  if (byteCount / room > MAX_SEGMENTS / 2) {
    throw new VolcastError(
      "usage",
      `Cannot make segments of ${segmentBytes} bytes: an image of ${byteCount} bytes would need ` +
        `about ${Math.ceil(byteCount / room)}, the limit is ${MAX_SEGMENTS}`,
    );
  }
  const cuts = [0];
  while (cuts.at(-1)! < byteCount) {
    const start = cuts.at(-1)!;
    const end = Math.min(start + room, byteCount);
    const frame = map.frameAt(end);
    cuts.push(frame !== undefined && frame.offset > start ? frame.offset : end);
  }
  return cuts;
}

function cutByVbn(map: StreamMap, vbns: readonly number[]): number[] {
  const { header, frames } = map;
  const cuts = [0];
  for (const vbn of vbns) {
    const cut = map.frameFrom(vbn)?.offset ?? frames.end;
    if (cut <= cuts.at(-1)!) {
      throw new VolcastError(
        "usage",
        `Cannot split the image at VBN ${vbn}: nothing of it lies between that and the split before`,
        `Name VBNs in ascending order, below ${header.capacity}; frames of up to 256 blocks stay whole`,
      );
    }
    cuts.push(cut);
  }
  return [...cuts, header.byteCount];
}

/**
 * The bytes of a segment, in chunks of whole records.
 * @throws {VolcastError} `io` when the image gives fewer bytes than it has.
 */
export function segmentRecords(
  image: RangedImage,
  segment: Segment,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { recordBytes } = segment;
  const records = Math.max(1, Math.floor(CHUNK_BYTES / recordBytes));
  return inChunks(segmentParts(image, segment), records * recordBytes);
}

async function* segmentParts(image: RangedImage, segment: Segment): AsyncGenerator<Uint8Array> {
  const { offset, payloadBytes } = segment;
  const header = encodeSegmentHeader(segment);
  const digest = createHash("sha256").update(header);
  yield header;
  let done = 0;
  for await (const part of await image.stream(offset, offset + payloadBytes)) {
    digest.update(part);
    done += part.length;
    yield part;
  }
  if (done !== payloadBytes) {
    throw new VolcastError(
      "io",
      `Cannot write segment ${segment.number}: ${done} of ${payloadBytes} bytes have come`,
    );
  }
  yield new Uint8Array(gapOf(segment));
  yield encodeSegmentTrailer(segment, digest.digest());
}

/**
 * The image stream in segments that come one behind the other, from the first to the last; each is
 * checked when it has passed, so what is given out counts only if no error follows.
 *
 * @throws {VolcastError} `damaged`, naming the segment.
 */
export async function* joinSegments(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(stream);
  try {
    let last: DecodedSegment | undefined;
    do {
      const bytes = await whole(reader, SEGMENT_HEADER_LAYOUT.size, "the header", last);
      const segment = decodeSegmentHeader(bytes);
      checkFollows(segment, last);
      yield* payloadOf(reader, segment, bytes);
      last = segment;
    } while (last.number < last.count);
    if (!(await onlyZeros(reader))) {
      throw damaged(`Cannot read the segments: bytes follow the last, segment ${last.number}`);
    }
  } finally {
    await reader.cancel();
  }
}

async function* payloadOf(
  reader: ByteReader,
  segment: DecodedSegment,
  header: Uint8Array,
): AsyncGenerator<Uint8Array> {
  const digest = createHash("sha256").update(header);
  for (let left = segment.payloadBytes; left > 0;) {
    const count = Math.min(left, CHUNK_BYTES);
    const chunk = await whole(reader, count, `byte ${segment.payloadBytes - left}`, segment);
    digest.update(chunk);
    left -= count;
    yield chunk;
  }
  const gap = await whole(reader, gapOf(segment), "the gap", segment);
  const trailer = await whole(reader, SEGMENT_TRAILER_LAYOUT.size, "the trailer", segment);
  checkSegmentTrailer(trailer, segment, digest.digest());
  checkGap(gap, segment);
}

/** The gap is not in the digest, and says that a record was read as it was written. */
export function checkGap(gap: Uint8Array, { number, count }: Segment): void {
  if (gap.every((byte) => byte === 0)) return;
  throw damaged(`Cannot read segment ${number} of ${count}: its gap is not zeros`);
}

function checkFollows(segment: DecodedSegment, last: DecodedSegment | undefined): void {
  const { number, count } = segment;
  if (last !== undefined && !equalBytes(segment.streamBytes, last.streamBytes)) {
    throw damaged(
      `Cannot read the segments: behind segment ${last.number} of ${last.count} of ` +
        `${describeImage(last.stream)} comes one of ${describeImage(segment.stream)}`,
      "Give the segments of one image",
    );
  }
  const end = last === undefined ? 0 : last.offset + last.payloadBytes;
  if (
    number === (last?.number ?? 0) + 1 && count === (last?.count ?? count) && end === segment.offset
  ) {
    return;
  }
  throw damaged(
    `Cannot read the segments: segment ${number} of ${count} comes where ` +
      `${(last?.number ?? 0) + 1} was to come`,
    "From a pipe they are read in order; as files they may be given in any",
  );
}

/** Takes exactly `count` bytes, or says where they end. */
async function whole(
  reader: ByteReader,
  count: number,
  what: string,
  segment: Segment | undefined,
): Promise<Uint8Array> {
  try {
    return await reader.take(count);
  } catch (error) {
    if (!(error instanceof CutError)) throw error;
    if (error.cause instanceof VolcastError) throw error.cause;
    const where = segment === undefined
      ? "in the header of the first"
      : what === "the header"
      ? `behind segment ${segment.number} of ${segment.count}`
      : `in segment ${segment.number} of ${segment.count}, at ${what}`;
    throw new VolcastError(
      "damaged",
      `Cannot read the segments: they end ${where}`,
      "Give all segments, in order",
      { cause: error },
    );
  }
}

async function onlyZeros(reader: ByteReader): Promise<boolean> {
  // Some devices fill up the last record, and a disk has more behind it.
  for (let part = await reader.some(); part !== undefined; part = await reader.some()) {
    if (!part.every((byte) => byte === 0)) return false;
  }
  return true;
}

/** An image in a message: `'june5' since 'june3'`. */
export function describeImage({ top, base }: DecodedSegment["stream"]): string {
  return base === undefined ? `'${top.name}'` : `'${top.name}' since '${base.name}'`;
}
