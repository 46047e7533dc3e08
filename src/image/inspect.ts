/**
 * Looking at media with segments or images without writing anything: what can be decoded is told,
 * also where parts of the medium are damaged or cut off.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { messageOf } from "../core/mod.ts";
import {
  checkSegmentTrailer,
  type DecodedSegment,
  decodeSegmentHeader,
  decodeStreamHeader,
  equalBytes,
  gapOf,
  isSegment,
  MIN_RECORD_BYTES,
  SEGMENT_HEADER_LAYOUT,
  SEGMENT_TRAILER_LAYOUT,
  segmentLength,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
} from "../format/mod.ts";
import type { Piece, PieceBytes } from "./piece.ts";
import { checkGap } from "./segments.ts";

/** Bytes looked at in one go. */
const STEP_BYTES = 1024 * 1024;
const HEADER_BYTES = SEGMENT_HEADER_LAYOUT.size;

/** A medium that may have no place to go back to, like a pipe. */
export interface Medium extends Pick<PieceBytes, "name" | "byteCount" | "stream"> {
  /** It can be read once only, from its beginning; `stream` is called once, with 0. */
  readonly isSequential?: boolean;
}

/** Something found on a medium. */
export interface Finding {
  /** Byte of the medium at which it begins. */
  readonly at: number;
  /** A segment whose header could be read. */
  readonly segment?: DecodedSegment;
  /** Header of the image, also where only the copy of it in a damaged header could be read. */
  readonly header?: StreamHeader;
  /** The same as it stands there. */
  readonly streamBytes?: Uint8Array;
  /** Bytes of the stream that are there, `end` excluded. */
  readonly span: Pick<Piece, "start" | "end">;
  /** What a damaged header says of itself, not to be trusted. */
  readonly says?: string;
  /** What is wrong. */
  readonly problem?: string;
  /** All its bytes were read and are those that were written. */
  readonly isChecked: boolean;
}

/**
 * Everything on a medium, in the order it lies there.
 *
 * @param options.check Reads all of it and compares checksums; what has to be read through to get
 *   further is compared anyway.
 */
export async function* inspectMedium(
  medium: Medium,
  options: { check?: boolean } = {},
): AsyncGenerator<Finding> {
  const cursor = new Cursor(medium);
  const check = (options.check ?? false) || (medium.isSequential ?? false);
  let found: { readonly streamBytes?: Uint8Array | undefined } | undefined;
  try {
    let head: Uint8Array | undefined = await cursor.take(HEADER_BYTES);
    while (head !== undefined && head.length > 0) {
      const at: number = cursor.at - head.length;
      const next: Finding = isSegment(head) || at > 0
        ? await segmentAt(cursor, at, head, check)
        : await imageAt(cursor, head);
      // Some devices fill up the last record.
      if (found !== undefined && isZero(head)) return;
      yield next;
      const isImage = next.segment === undefined && next.streamBytes !== undefined &&
        next.says === undefined;
      if (isImage) return;
      found = { ...next, streamBytes: next.streamBytes ?? found?.streamBytes };
      head = next.problem === undefined
        ? await cursor.takeFrom(at + segmentLength(next.segment!))
        : await cursor.findSegment(at, found.streamBytes);
    }
  } catch (error) {
    yield {
      at: cursor.at,
      span: { start: 0, end: 0 },
      problem: messageOf(error),
      isChecked: false,
    };
    return;
  } finally {
    await cursor.close();
  }
  if (found === undefined) {
    yield { at: 0, span: { start: 0, end: 0 }, problem: "It is empty", isChecked: false };
  }
}

async function segmentAt(
  cursor: Cursor,
  at: number,
  head: Uint8Array,
  check: boolean,
): Promise<Finding> {
  let segment: DecodedSegment;
  try {
    segment = decodeSegmentHeader(head);
  } catch (error) {
    return {
      at,
      ...copyIn(head),
      span: { start: 0, end: 0 },
      problem: messageOf(error),
      isChecked: false,
    };
  }
  const present = check
    ? undefined
    : Math.max(0, Math.min(segment.payloadBytes, cursor.byteCount - at - HEADER_BYTES));
  const result = await checkedSegment(cursor, segment, head, present);
  return {
    at,
    segment,
    header: segment.stream,
    streamBytes: segment.streamBytes,
    span: { start: segment.offset, end: segment.offset + result.present },
    ...(result.problem === undefined ? {} : { problem: result.problem }),
    isChecked: check && result.problem === undefined,
  };
}

/** Reads what follows a header: all of it, or, where `present` is known, the trailer only. */
async function checkedSegment(
  cursor: Cursor,
  segment: DecodedSegment,
  head: Uint8Array,
  present: number | undefined,
): Promise<{ present: number; problem?: string }> {
  const begin = cursor.at;
  const digest = createHash("sha256").update(head);
  try {
    present ??= await cursor.skip(segment.payloadBytes, (chunk) => digest.update(chunk));
    const isRead = cursor.at > begin;
    if (!isRead) cursor.jump(begin + segment.payloadBytes);
    const gap = await cursor.take(gapOf(segment));
    const trailer = await cursor.take(SEGMENT_TRAILER_LAYOUT.size);
    if (trailer.length < SEGMENT_TRAILER_LAYOUT.size) {
      return { present, problem: `cut off: ${present} of ${segment.payloadBytes} bytes are there` };
    }
    checkSegmentTrailer(trailer, segment, isRead ? digest.digest() : undefined);
    checkGap(gap, segment);
    return { present };
  } catch (error) {
    return { present: present ?? cursor.at - begin, problem: messageOf(error) };
  }
}

async function imageAt(cursor: Cursor, head: Uint8Array): Promise<Finding> {
  const streamBytes = head.slice(0, STREAM_HEADER_LAYOUT.size);
  try {
    const header = decodeStreamHeader(streamBytes);
    const there = cursor.byteCount === Infinity
      ? head.length + await cursor.skip(header.byteCount - head.length, () => {})
      : cursor.byteCount;
    const end = Math.min(there, header.byteCount);
    return {
      at: 0,
      header,
      streamBytes,
      span: { start: 0, end },
      ...(end < header.byteCount
        ? { problem: `cut off: ${end} of ${header.byteCount} bytes are there` }
        : {}),
      isChecked: false,
    };
  } catch (error) {
    return { at: 0, span: { start: 0, end: 0 }, problem: messageOf(error), isChecked: false };
  }
}

/** What can still be read of a damaged header; the copy of the stream's has a checksum of its own. */
function copyIn(head: Uint8Array): Pick<Finding, "header" | "streamBytes" | "says"> {
  if (!isSegment(head) || head.length < HEADER_BYTES) return {};
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const number = (field: "number" | "count") =>
    view.getUint32(SEGMENT_HEADER_LAYOUT.offsetOf(field), true);
  const says = `segment ${number("number")} of ${number("count")}`;
  const at = SEGMENT_HEADER_LAYOUT.offsetOf("stream");
  const streamBytes = head.slice(at, at + STREAM_HEADER_LAYOUT.size);
  try {
    return { header: decodeStreamHeader(streamBytes), streamBytes, says };
  } catch {
    return { says };
  }
}

/** A place on a medium. */
class Cursor {
  /** Byte that is read next. */
  at = 0;
  readonly byteCount: number;
  readonly #medium: Medium;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(medium: Medium) {
    this.#medium = medium;
    this.byteCount = medium.byteCount;
  }

  /** The next `count` bytes, fewer at the end. */
  async take(count: number): Promise<Uint8Array> {
    const parts = new Uint8Array(count);
    let used = 0;
    await this.skip(count, (chunk) => {
      parts.set(chunk, used);
      used += chunk.length;
    });
    return parts.subarray(0, used);
  }

  /** A header's worth of bytes at another place, further on; `undefined` at the end. */
  async takeFrom(at: number): Promise<Uint8Array | undefined> {
    if (at > this.at) {
      this.#medium.isSequential ? await this.skip(at - this.at, () => {}) : this.jump(at);
    }
    const head = await this.take(HEADER_BYTES);
    return head.length === 0 ? undefined : head;
  }

  /** Reads on. @returns Bytes read, fewer than `count` at the end. */
  async skip(count: number, each: (chunk: Uint8Array) => void): Promise<number> {
    let done = 0;
    while (done < count) {
      if (this.#chunk.length === 0) {
        this.#reader ??= this.#medium.stream(this.at, Infinity).getReader();
        const { value, done: ended } = await this.#reader.read();
        if (ended) break;
        this.#chunk = value;
      }
      const part = this.#chunk.subarray(0, count - done);
      this.#chunk = this.#chunk.subarray(part.length);
      this.at += part.length;
      done += part.length;
      each(part);
    }
    return done;
  }

  /** Goes on at another byte. */
  jump(at: number): void {
    if (at === this.at) return;
    this.#reader?.cancel().catch(() => {});
    this.#reader = undefined;
    this.#chunk = new Uint8Array(0);
    this.at = at;
  }

  /**
   * The next header behind what is damaged and begins at `at`. Segments begin at whole records, so at
   * whole sectors.
   *
   * @param streamBytes Of which image; a volume may have segments of others in its files.
   */
  async findSegment(at: number, streamBytes?: Uint8Array): Promise<Uint8Array | undefined> {
    // What was passed may have been of the next segment already.
    if (!this.#medium.isSequential) this.jump(at + MIN_RECORD_BYTES);
    else await this.take((MIN_RECORD_BYTES - this.at % MIN_RECORD_BYTES) % MIN_RECORD_BYTES);
    let window: Uint8Array = new Uint8Array(0);
    for (;;) {
      const more = await this.take(STEP_BYTES);
      if (more.length === 0) return undefined;
      window = Buffer.concat([window, more]);
      let i = 0;
      for (; i + HEADER_BYTES <= window.length; i += MIN_RECORD_BYTES) {
        const head = window.subarray(i, i + HEADER_BYTES);
        if (!isHeaderOf(head, streamBytes)) continue;
        const rest = window.subarray(i + HEADER_BYTES);
        this.#chunk = Buffer.concat([rest, this.#chunk]);
        this.at -= rest.length;
        return head;
      }
      window = window.subarray(i);
    }
  }

  async close(): Promise<void> {
    await this.#reader?.cancel().catch(() => {});
  }
}

function isHeaderOf(head: Uint8Array, streamBytes: Uint8Array | undefined): boolean {
  if (!isSegment(head)) return false;
  try {
    const segment = decodeSegmentHeader(head);
    return streamBytes === undefined || equalBytes(segment.streamBytes, streamBytes);
  } catch {
    return false;
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
