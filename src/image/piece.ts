/**
 * One piece of an image: a plain image file (also cut off), an answer of a server, or a segment.
 *
 * @module
 */

import { damaged, messageOf, VolcastError } from "../core/mod.ts";
import {
  type DecodedSegment,
  decodeSegmentHeader,
  decodeStreamHeader,
  isSegment,
  SEGMENT_HEADER_LAYOUT,
  segmentLength,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
} from "../format/mod.ts";

/** Bytes on some medium, read from any place on. Who makes it opens and closes the medium. */
export interface PieceBytes {
  /** As the user knows it. */
  readonly name: string;
  /** Bytes there are; `Infinity` where that is not known. */
  readonly byteCount: number;
  /** The bytes from `from` up to `to` (excluded), or up to their end. */
  stream(from: number, to: number): ReadableStream<Uint8Array>;
  /** Fills `target` at once. Absent where one has to wait for the medium. @throws Where it cannot. */
  read?(offset: number, target: Uint8Array): void;
}

/** A part of an image's stream, and where its bytes are. */
export interface Piece {
  readonly name: string;
  /** Header of the stream, as it stands there. */
  readonly streamBytes: Uint8Array;
  readonly header: StreamHeader;
  /** First byte of the stream that is there. */
  readonly start: number;
  /** Byte of the stream behind the last that is there. */
  readonly end: number;
  /** Present where the piece is a segment. */
  readonly segment?: DecodedSegment;
  readonly bytes: PieceBytes;
  /** Byte of the medium at which byte `start` of the stream lies. */
  readonly at: number;
}

/**
 * Finds out what some bytes are: an image from its beginning on, or segments one behind the other.
 * A part that is cut off is taken as far as it is there.
 *
 * @param note Told what is not as it should be, and does not keep the rest from being read.
 * @throws {VolcastError} `damaged`, `unsupported`, naming the bytes, where none of it can be read.
 */
export async function piecesOf(
  bytes: PieceBytes,
  note: (text: string) => void,
): Promise<Piece[]> {
  const head = await firstBytes(bytes, 0);
  if (!isSegment(head)) return [naming(bytes, () => plainPiece(bytes, head, note))];
  const pieces = [naming(bytes, () => segmentPiece(bytes, 0, head))];
  for (;;) {
    const last = pieces[pieces.length - 1];
    const at = last.at - SEGMENT_HEADER_LAYOUT.size + segmentLength(last.segment!);
    if (at > bytes.byteCount) note(cutText(bytes, last));
    if (at >= bytes.byteCount || bytes.byteCount === Infinity) return pieces;
    try {
      const next = await firstBytes(bytes, at);
      // Some devices fill up the last record.
      if (next.every((byte) => byte === 0)) return pieces;
      pieces.push(segmentPiece(bytes, at, next));
    } catch (error) {
      note(`${bytes.name}, byte ${at}: ${messageOf(error)}; what follows there is left out`);
      return pieces;
    }
  }
}

function plainPiece(bytes: PieceBytes, head: Uint8Array, note: (text: string) => void): Piece {
  if (head.length < STREAM_HEADER_LAYOUT.size) {
    throw damaged(
      `Cannot read the image: it ends before its header does, which has ${STREAM_HEADER_LAYOUT.size} bytes`,
      "Check that the file is the whole output of 'volcast image' or of GET /replicate",
    );
  }
  const streamBytes = head.slice(0, STREAM_HEADER_LAYOUT.size);
  const header = decodeStreamHeader(streamBytes);
  const end = Math.min(bytes.byteCount, header.byteCount);
  const piece = { name: bytes.name, streamBytes, header, start: 0, end, bytes, at: 0 };
  if (end < header.byteCount) note(cutText(bytes, piece));
  return piece;
}

function segmentPiece(bytes: PieceBytes, at: number, head: Uint8Array): Piece {
  const segment = decodeSegmentHeader(head);
  const payload = at + SEGMENT_HEADER_LAYOUT.size;
  return {
    name: bytes.name,
    streamBytes: segment.streamBytes,
    header: segment.stream,
    start: segment.offset,
    end: segment.offset + Math.max(0, Math.min(segment.payloadBytes, bytes.byteCount - payload)),
    segment,
    bytes,
    at: payload,
  };
}

function cutText(
  bytes: PieceBytes,
  { header, segment }: Pick<Piece, "header" | "segment">,
): string {
  return segment === undefined
    ? `${bytes.name} is cut off: it has ${bytes.byteCount} of the image's ${header.byteCount} bytes`
    : `${bytes.name} is cut off within segment ${segment.number} of ${segment.count}`;
}

async function firstBytes(bytes: PieceBytes, at: number): Promise<Uint8Array> {
  const reader = bytes.stream(at, at + SEGMENT_HEADER_LAYOUT.size).getReader();
  const head = new Uint8Array(SEGMENT_HEADER_LAYOUT.size);
  let used = 0;
  try {
    while (used < head.length) {
      const { value, done } = await reader.read();
      if (done) break;
      const part = value.subarray(0, head.length - used);
      head.set(part, used);
      used += part.length;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
  return head.subarray(0, used);
}

/** Says in errors which of many files is meant. */
function naming<T>(bytes: PieceBytes, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof VolcastError)) throw error;
    throw new VolcastError(error.kind, `${bytes.name}: ${error.message}`, error.hint, {
      cause: error,
    });
  }
}
