/**
 * Reads an image stream by the numbers in the table of its format, with no code in common with what
 * it tests, and makes streams that are well-formed and lie.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

const BLOCK_SIZE = 4096;
const PAGE_BITS = 32768;
const FRAME_BLOCKS = 256;
const HEADER_SIZE = 1024;
const TERM_SIZE = 288;

/** A parsed stream. */
export interface ParsedImage {
  readonly header: Uint8Array;
  readonly topCp: number;
  readonly baseCp: number;
  /** The table of terms, as it stands in the stream. */
  readonly terms: Uint8Array<ArrayBuffer>;
  /** Blocks by VBN, ascending. */
  readonly blocks: Map<number, Uint8Array>;
  /** VBNs that the base has and the top has not. */
  readonly deallocated: number[];
  /** Byte at which each frame begins, and where the end record begins. */
  readonly frameOffsets: number[];
  /** Bytes of the whole stream. */
  readonly length: number;
}

/** Parses a whole stream; anything out of order fails. */
export function parseImage(bytes: Uint8Array): ParsedImage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const header = bytes.slice(0, HEADER_SIZE);
  assertEquals([...bytes.subarray(0, 8)], [0x89, 0x56, 0x43, 0x49, 0x0d, 0x0a, 0x1a, 0x0a]);
  assertEquals(view.getUint32(1020, true), crc32(header.subarray(0, 1020)));
  const [blockCount, runCount, deallocatedCount, frameCount, byteCount] = [618, 626, 634, 642, 650]
    .map(u64);
  assertEquals(byteCount, bytes.length);
  const terms = bytes.slice(HEADER_SIZE, HEADER_SIZE + view.getUint32(658, true) * TERM_SIZE);
  assertEquals(view.getUint32(662, true), terms.length === 0 ? 0 : crc32(terms));
  let at = HEADER_SIZE + terms.length;
  const run = (): number[] => {
    const start = view.getUint32(at, true);
    const count = view.getUint32(at + 4, true);
    at += 8;
    return Array.from({ length: count }, (_, i) => start + i);
  };
  const vbns = Array.from({ length: runCount }, run).flat();
  const deallocated = Array.from({ length: deallocatedCount }, run).flat();
  assertEquals(vbns.length, blockCount);
  assertEquals(new TextDecoder().decode(bytes.subarray(at, at + 4)), "IEND");
  const indexEnd = bytes.subarray(at, at + 8);
  at += 8;

  const digest = createHash("sha256").update(header).update(indexEnd);
  const blocks = new Map<number, Uint8Array>();
  const frameOffsets: number[] = [];
  for (let i = 0; i < frameCount; i++) {
    frameOffsets.push(at);
    assertEquals(new TextDecoder().decode(bytes.subarray(at, at + 4)), "FRAM");
    const vbn = view.getUint32(at + 4, true);
    const count = view.getUint32(at + 8, true);
    assert(count >= 1 && vbn % FRAME_BLOCKS + count <= FRAME_BLOCKS, "a frame keeps its bounds");
    const data = bytes.subarray(at + 16, at + 16 + count * BLOCK_SIZE);
    assertEquals(view.getUint32(at + 12, true), frameChecksum(vbn, count, data));
    digest.update(bytes.subarray(at + 12, at + 16));
    for (let j = 0; j < count; j++) {
      blocks.set(vbn + j, data.slice(j * BLOCK_SIZE, (j + 1) * BLOCK_SIZE));
    }
    at += 16 + data.length;
  }
  frameOffsets.push(at);
  assertEquals([...blocks.keys()], vbns);
  assertEquals(u64(at + 8), frameCount);
  assertEquals([...bytes.subarray(at + 16, at + 48)], [...digest.digest()]);
  assertEquals(view.getUint32(at + 60, true), crc32(bytes.subarray(at, at + 60)));
  assertEquals(at + 64, bytes.length);
  return {
    header,
    topCp: u64(56),
    baseCp: u64(337),
    terms,
    blocks,
    deallocated,
    frameOffsets,
    length: bytes.length,
  };
}

/**
 * A stream of these blocks with a header like that of another one: every checksum, count and digest
 * in it is right.
 *
 * @param options.change Changes the header before it is sealed.
 * @param options.terms The table of terms.
 * @param options.arrange Changes the runs of the index.
 */
export function forgeImage(
  header: Uint8Array,
  blocks: ReadonlyMap<number, Uint8Array>,
  deallocated: readonly number[],
  options: {
    change?: (view: DataView) => void;
    terms?: Uint8Array;
    arrange?: (runs: [start: number, count: number][]) => [start: number, count: number][];
  } = {},
): Uint8Array<ArrayBuffer> {
  const vbns = [...blocks.keys()].sort((a, b) => a - b);
  const runs = (options.arrange ?? ((list) => list))(runsOf(vbns, PAGE_BITS));
  const gone = runsOf([...deallocated].sort((a, b) => a - b), PAGE_BITS);
  const frames = runsOf(vbns, FRAME_BLOCKS);
  const terms = options.terms ?? new Uint8Array(0);
  const length = HEADER_SIZE + terms.length + (runs.length + gone.length) * 8 + 8 +
    frames.length * 16 +
    vbns.length * BLOCK_SIZE + 64;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  bytes.set(header);
  const counts = [vbns.length, runs.length, gone.length, frames.length, length];
  counts.forEach((count, i) => view.setBigUint64(618 + i * 8, BigInt(count), true));
  view.setUint32(658, terms.length / TERM_SIZE, true);
  view.setUint32(662, terms.length === 0 ? 0 : crc32(terms), true);
  bytes.set(terms, HEADER_SIZE);
  options.change?.(view);
  view.setUint32(1020, crc32(bytes.subarray(0, 1020)), true);

  let at = HEADER_SIZE + terms.length;
  const parts: number[] = [];
  for (const list of [runs, gone]) {
    for (const page of new Set(list.map(([start]) => Math.floor(start / PAGE_BITS)))) {
      const first = at;
      for (const [start, count] of list) {
        if (Math.floor(start / PAGE_BITS) !== page) continue;
        view.setUint32(at, start, true);
        view.setUint32(at + 4, count, true);
        at += 8;
      }
      parts.push(crc32(bytes.subarray(first, at)));
    }
  }
  bytes.set(new TextEncoder().encode("IEND"), at);
  view.setUint32(at + 4, crc32(new Uint8Array(new Uint32Array(parts).buffer)), true);
  const digest = createHash("sha256").update(bytes.subarray(0, HEADER_SIZE))
    .update(bytes.subarray(at, at + 8));
  at += 8;
  for (const [start, count] of frames) {
    bytes.set(new TextEncoder().encode("FRAM"), at);
    view.setUint32(at + 4, start, true);
    view.setUint32(at + 8, count, true);
    for (let i = 0; i < count; i++) bytes.set(blocks.get(start + i)!, at + 16 + i * BLOCK_SIZE);
    const data = bytes.subarray(at + 16, at + 16 + count * BLOCK_SIZE);
    view.setUint32(at + 12, frameChecksum(start, count, data), true);
    digest.update(bytes.subarray(at + 12, at + 16));
    at += 16 + data.length;
  }
  bytes.set([0x89, 0x56, 0x43, 0x45, 0x0d, 0x0a, 0x1a, 0x0a], at);
  view.setBigUint64(at + 8, BigInt(frames.length), true);
  bytes.set(digest.digest(), at + 16);
  view.setUint32(at + 60, crc32(bytes.subarray(at, at + 60)), true);
  return bytes;
}

function frameChecksum(vbn: number, count: number, data: Uint8Array): number {
  return crc32(new Uint8Array(new Uint32Array([vbn, count, crc32(data)]).buffer));
}

/** Runs of consecutive numbers that do not cross a multiple of `limit`. */
function runsOf(numbers: readonly number[], limit: number): [start: number, count: number][] {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === number && number % limit !== 0) last[1]++;
    else runs.push([number, 1]);
  }
  return runs;
}
