/**
 * Where blocks lie in an image stream: the index is the table of locations, read by rank.
 *
 * Kept are the index as a plane and a few numbers a page of it; the frames of a page are worked out
 * when one of them is asked for. A look-up is two binary searches.
 *
 * @module
 */

import { damaged, PAGE_BITS, type Plane } from "../core/mod.ts";
import { BLOCK_SIZE, END_LAYOUT, FRAME_LAYOUT, type StreamHeader } from "../format/mod.ts";
import { framesOffset } from "./image.ts";
import { countPages, framesOfPage } from "./frames.ts";

/** Pages whose frames are kept. */
const KEPT_PAGES = 64;

/** A frame and its place. */
export interface FramePlace {
  /** Byte of the stream at which its header begins. */
  readonly offset: number;
  /** VBN of its first block. */
  readonly start: number;
  /** Blocks. */
  readonly count: number;
  /** Blocks of the image before it. */
  readonly blocksBefore: number;
}

/** The frames of a page, and the place of each. */
interface PageFrames {
  readonly starts: Uint32Array;
  readonly counts: Uint32Array;
  readonly offsets: Float64Array;
  readonly blocks: Float64Array;
}

/** See the module. */
export class StreamMap {
  readonly header: StreamHeader;
  readonly plane: Plane;
  /** Byte at which the frames begin, and that behind the last of them. */
  readonly frames: { readonly start: number; readonly end: number };
  /** Numbers of the pages that have blocks. */
  readonly #pages: Uint32Array;
  /** Byte at which the frames of each begin; and blocks before it. */
  readonly #offsets: Float64Array;
  readonly #blocks: Float64Array;
  readonly #kept = new Map<number, PageFrames>();

  /** @throws {VolcastError} `damaged` where the index has not what the header says. */
  constructor({ header, plane }: { header: StreamHeader; plane: Plane }) {
    this.header = header;
    this.plane = plane;
    const { pages, totals } = countPages(plane);
    if (totals.blocks !== header.blockCount || totals.frames !== header.frameCount) {
      throw damaged(
        `Cannot read the image: its index makes ${totals.blocks} blocks in ${totals.frames} frames, ` +
          `its header says ${header.blockCount} and ${header.frameCount}`,
      );
    }
    this.frames = { start: framesOffset(header), end: header.byteCount - END_LAYOUT.size };
    this.#pages = new Uint32Array(pages.length);
    this.#offsets = new Float64Array(pages.length);
    this.#blocks = new Float64Array(pages.length);
    let offset = this.frames.start;
    let before = 0;
    for (const [i, { index, blocks, frames }] of pages.entries()) {
      this.#pages[i] = index;
      this.#offsets[i] = offset;
      this.#blocks[i] = before;
      offset += frames * FRAME_LAYOUT.size + blocks * BLOCK_SIZE;
      before += blocks;
    }
  }

  /** The frame that has a block; `undefined` where the image has it not. */
  frameOf(vbn: number): FramePlace | undefined {
    const frame = this.frameFrom(vbn);
    return frame !== undefined && frame.start <= vbn ? frame : undefined;
  }

  /** The first frame that has a block at or behind `vbn`. */
  frameFrom(vbn: number): FramePlace | undefined {
    const index = Math.floor(vbn / PAGE_BITS);
    let at = lastNotAbove(this.#pages, index);
    if (at >= 0 && this.#pages[at] === index) {
      const frames = this.#framesOf(at);
      let i = Math.max(0, lastNotAbove(frames.starts, vbn));
      if (frames.starts[i] + frames.counts[i] <= vbn) i++;
      if (i < frames.starts.length) return placeOf(frames, i);
    }
    at++;
    return at < this.#pages.length ? placeOf(this.#framesOf(at), 0) : undefined;
  }

  /** The frame in which a byte of the stream lies; `undefined` before the first and behind the last. */
  frameAt(offset: number): FramePlace | undefined {
    if (offset < this.frames.start || offset >= this.frames.end) return undefined;
    const frames = this.#framesOf(lastNotAbove(this.#offsets, offset));
    return placeOf(frames, lastNotAbove(frames.offsets, offset));
  }

  /** Blocks that begin before a byte of the stream: their number, and the VBN of the last. */
  blocksBefore(offset: number): { count: number; last: number } {
    const frame = this.frameAt(Math.min(offset, this.frames.end) - 1);
    if (frame === undefined) return { count: 0, last: -1 };
    // The last byte before it may be in the frame's header: then the last block is in the frame before.
    const within = offset - frame.offset - FRAME_LAYOUT.size;
    const begun = Math.max(0, Math.min(frame.count, Math.ceil(within / BLOCK_SIZE)));
    if (begun === 0) return this.blocksBefore(frame.offset);
    return { count: frame.blocksBefore + begun, last: frame.start + begun - 1 };
  }

  /** The first block that begins at or behind a byte of the stream. */
  blockFrom(offset: number): number | undefined {
    const { count, last } = this.blocksBefore(offset);
    if (count === this.header.blockCount) return undefined;
    const frame = this.frameFrom(last + 1);
    return frame === undefined ? undefined : Math.max(frame.start, last + 1);
  }

  #framesOf(at: number): PageFrames {
    let frames = this.#kept.get(at);
    if (frames !== undefined) return frames;
    const runs = framesOfPage(this.plane, this.#pages[at]);
    frames = {
      starts: Uint32Array.from(runs, ({ start }) => start),
      counts: Uint32Array.from(runs, ({ count }) => count),
      offsets: new Float64Array(runs.length),
      blocks: new Float64Array(runs.length),
    };
    let offset = this.#offsets[at];
    let blocks = this.#blocks[at];
    for (const [i, { count }] of runs.entries()) {
      frames.offsets[i] = offset;
      frames.blocks[i] = blocks;
      offset += FRAME_LAYOUT.size + count * BLOCK_SIZE;
      blocks += count;
    }
    if (this.#kept.size >= KEPT_PAGES) this.#kept.delete(this.#kept.keys().next().value!);
    this.#kept.set(at, frames);
    return frames;
  }
}

/** Byte of the stream at which a block of a frame begins. */
export function placeOfBlock(frame: FramePlace, vbn: number): number {
  return frame.offset + FRAME_LAYOUT.size + (vbn - frame.start) * BLOCK_SIZE;
}

function placeOf(frames: PageFrames, i: number): FramePlace {
  return {
    offset: frames.offsets[i],
    start: frames.starts[i],
    count: frames.counts[i],
    blocksBefore: frames.blocks[i],
  };
}

/** The index of the last item that is not above `value`; -1 where all are. */
function lastNotAbove(items: Uint32Array | Float64Array, value: number): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (items[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
