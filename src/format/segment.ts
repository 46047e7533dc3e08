/**
 * Segments: an image stream cut into parts, each for a medium of its own: a tape, a file, a server.
 *
 *     medium  := segment+
 *     segment := header payload gap trailer
 *
 * Source: WO 00/07104, "volume copying": tape, several media, distribution.
 *
 * Invariants:
 * 1. The payloads of segments 1 to n, one behind the other, are the stream. A header says which bytes
 *    of it follow, so media may be read in any order.
 * 2. A header holds a copy of the stream's own header: a segment alone says what it is of, and two
 *    segments are of one image exactly where these copies are equal.
 * 3. A segment is a whole number of records; the gap before the trailer is zeros and shorter than one.
 * 4. No field depends on a clock, a host or a node (I5).
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, equalBytes } from "./block.ts";
import { defineLayout } from "./layout.ts";
import {
  checkSeal,
  decodeStreamHeader,
  seal,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
} from "./stream.ts";

/** Version of the grammar. */
export const SEGMENT_FORMAT_VERSION = 1;
/** Bytes of the smallest record. */
export const MIN_RECORD_BYTES = 512;
/** Bytes of the largest record. */
export const MAX_RECORD_BYTES = 16 * 2 ** 20;

/** First bytes of a segment. */
export const SEGMENT_MAGIC: Uint8Array = new Uint8Array(
  [0x89, 0x56, 0x43, 0x54, 0x0d, 0x0a, 0x1a, 0x0a],
);
const TRAILER_MAGIC = new Uint8Array([0x89, 0x56, 0x43, 0x5a, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Table of a segment's header. */
export const SEGMENT_HEADER_LAYOUT = defineLayout("segment header", BLOCK_SIZE, [
  ["magic", "bytes", 8, "89 'VCT' 0d 0a 1a 0a"],
  ["version", "u32", 4, "version of the grammar"],
  ["flags", "u32", 4, "0"],
  ["number", "u32", 4, "number of the segment, from 1"],
  ["count", "u32", 4, "segments in all"],
  ["offset", "u64", 8, "first byte of the stream that is in the payload"],
  ["payloadBytes", "u64", 8, "bytes of the payload"],
  ["recordBytes", "u32", 4, "bytes of a record"],
  ["gapBytes", "u32", 4, "zeros between payload and trailer"],
  ["firstVbn", "u32", 4, "VBN of the first block that begins in the payload"],
  ["lastVbn", "u32", 4, "VBN of the last block that begins in the payload"],
  ["blockCount", "u64", 8, "blocks that begin in the payload"],
  ["stream", "bytes", STREAM_HEADER_LAYOUT.size, "the stream's header"],
  ["_reserved", "zero", 3004, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** Table of a segment's trailer. */
export const SEGMENT_TRAILER_LAYOUT = defineLayout("segment trailer", 64, [
  ["magic", "bytes", 8, "89 'VCZ' 0d 0a 1a 0a"],
  ["number", "u32", 4, "number of the segment, as in its header"],
  ["_reserved", "zero", 4, "reserved"],
  ["payloadBytes", "u64", 8, "bytes of the payload, as in its header"],
  ["digest", "bytes", 32, "SHA-256 of header and payload"],
  ["_reserved2", "zero", 4, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** Bytes of a segment that are neither payload nor gap. */
export const SEGMENT_OVERHEAD: number = SEGMENT_HEADER_LAYOUT.size + SEGMENT_TRAILER_LAYOUT.size;

/** What a segment's header says. */
export interface Segment {
  /** From 1. */
  readonly number: number;
  /** Segments in all. */
  readonly count: number;
  /** First byte of the stream that is in the payload. */
  readonly offset: number;
  readonly payloadBytes: number;
  readonly recordBytes: number;
  /** VBNs of the blocks that begin in the payload; absent where there is none. */
  readonly vbns?: { readonly first: number; readonly last: number };
  /** Blocks that begin in the payload. */
  readonly blockCount: number;
  /** The stream's header as it stands in the stream: the identity of the image. */
  readonly streamBytes: Uint8Array;
}

/** A header that was read and checked. */
export interface DecodedSegment extends Segment {
  readonly stream: StreamHeader;
}

/** Zeros between payload and trailer, which make whole records. */
export function gapOf({ payloadBytes, recordBytes }: Segment): number {
  const over = (payloadBytes + SEGMENT_OVERHEAD) % recordBytes;
  return over === 0 ? 0 : recordBytes - over;
}

/** Bytes of a whole segment on its medium. */
export function segmentLength(segment: Segment): number {
  return segment.payloadBytes + SEGMENT_OVERHEAD + gapOf(segment);
}

/** Encodes a header. */
export function encodeSegmentHeader(segment: Segment): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SEGMENT_HEADER_LAYOUT.size);
  SEGMENT_HEADER_LAYOUT.write({
    magic: SEGMENT_MAGIC,
    version: SEGMENT_FORMAT_VERSION,
    flags: 0,
    number: segment.number,
    count: segment.count,
    offset: segment.offset,
    payloadBytes: segment.payloadBytes,
    recordBytes: segment.recordBytes,
    gapBytes: gapOf(segment),
    firstVbn: segment.vbns?.first ?? 0,
    lastVbn: segment.vbns?.last ?? 0,
    blockCount: segment.blockCount,
    stream: segment.streamBytes,
    crc: 0,
  }, bytes);
  seal(bytes);
  return bytes;
}

/** Whether bytes begin as a segment does. */
export function isSegment(bytes: Uint8Array): boolean {
  return equalBytes(bytes.subarray(0, SEGMENT_MAGIC.length), SEGMENT_MAGIC);
}

/**
 * Decodes a header.
 * @throws {VolcastError} `damaged` or `unsupported`, saying which field and value.
 */
export function decodeSegmentHeader(bytes: Uint8Array): DecodedSegment {
  if (!isSegment(bytes)) {
    throw damaged(
      "Cannot read the segment: it does not begin as a segment does",
      "Check that it was written by 'volcast tape write' or 'volcast image --split-size'",
    );
  }
  if (bytes.length < SEGMENT_HEADER_LAYOUT.size) {
    throw damaged(
      `Cannot read the segment: it ends within its header, ${bytes.length} of ` +
        `${SEGMENT_HEADER_LAYOUT.size} bytes are there`,
    );
  }
  checkSeal("the segment's header", bytes.subarray(0, SEGMENT_HEADER_LAYOUT.size));
  const record = SEGMENT_HEADER_LAYOUT.read(bytes);
  if (record.version !== SEGMENT_FORMAT_VERSION || record.flags !== 0) {
    throw new VolcastError(
      "unsupported",
      `Cannot read the segment: format version ${record.version} and flags ${record.flags} are ` +
        `not all known here (version ${SEGMENT_FORMAT_VERSION})`,
      "Use a newer volcast release",
    );
  }
  const segment: DecodedSegment = {
    number: record.number,
    count: record.count,
    offset: record.offset,
    payloadBytes: record.payloadBytes,
    recordBytes: record.recordBytes,
    ...(record.blockCount === 0 ? {} : { vbns: { first: record.firstVbn, last: record.lastVbn } }),
    blockCount: record.blockCount,
    streamBytes: record.stream,
    stream: decodeStreamHeader(record.stream),
  };
  checkSegment(segment, record.gapBytes);
  return segment;
}

/** Numbers a stranger wrote are believed only where they fit each other: others compute with them. */
function checkSegment(segment: DecodedSegment, gapBytes: number): void {
  const { number, count, offset, payloadBytes, recordBytes, vbns, blockCount, stream } = segment;
  const end = offset + payloadBytes;
  const fits = isRecordSize(recordBytes) && gapBytes === gapOf(segment) && payloadBytes > 0 &&
    end <= stream.byteCount && number >= 1 && number <= count &&
    (number === 1) === (offset === 0) && (number === count) === (end === stream.byteCount) &&
    // A block's first byte is in one segment only, but a payload may begin within a block.
    blockCount <= stream.blockCount && (blockCount - 1) * BLOCK_SIZE < payloadBytes &&
    (vbns === undefined || vbns.first >= stream.dataStart && vbns.last < stream.capacity &&
        vbns.last - vbns.first >= blockCount - 1);
  if (fits) return;
  throw damaged(
    `Cannot read the segment: its numbers do not fit each other (segment ${number} of ${count}, ` +
      `bytes ${offset} to ${end} of ${stream.byteCount}, records of ${recordBytes} bytes, a gap of ` +
      `${gapBytes}, ${blockCount} blocks)`,
  );
}

/** Whether records may have this size: whole sectors, up to 16 MiB. */
export function isRecordSize(byteCount: number): boolean {
  return byteCount >= MIN_RECORD_BYTES && byteCount <= MAX_RECORD_BYTES &&
    byteCount % MIN_RECORD_BYTES === 0;
}

/** Encodes a trailer. @param digest SHA-256 of header and payload. */
export function encodeSegmentTrailer(segment: Segment, digest: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_TRAILER_LAYOUT.size);
  SEGMENT_TRAILER_LAYOUT.write({
    magic: TRAILER_MAGIC,
    number: segment.number,
    payloadBytes: segment.payloadBytes,
    digest,
    crc: 0,
  }, bytes);
  seal(bytes);
  return bytes;
}

/**
 * Checks a trailer against its header and, where it is known, the digest of what was read.
 * @throws {VolcastError} `damaged`.
 */
export function checkSegmentTrailer(
  bytes: Uint8Array,
  segment: Segment,
  digest?: Uint8Array,
): void {
  const what = `segment ${segment.number} of ${segment.count}`;
  if (!equalBytes(bytes.subarray(0, TRAILER_MAGIC.length), TRAILER_MAGIC)) {
    throw damaged(`Cannot read ${what}: its trailer is missing`);
  }
  checkSeal(`the trailer of ${what}`, bytes);
  const record = SEGMENT_TRAILER_LAYOUT.read(bytes);
  if (record.number !== segment.number || record.payloadBytes !== segment.payloadBytes) {
    throw damaged(
      `Cannot read ${what}: its trailer is that of segment ${record.number} with ` +
        `${record.payloadBytes} bytes`,
    );
  }
  if (digest !== undefined && !equalBytes(record.digest, digest)) {
    throw damaged(`Cannot read ${what}: the digest of its bytes is not the one in its trailer`);
  }
}
