/**
 * Cutting planes into the runs and frames of a stream, and counting them.
 *
 * @module
 */

import {
  assert,
  differingPages,
  differingWords,
  forEachRunOfPage,
  PAGE_BITS,
  PAGE_WORDS,
  type Plane,
  popcountWord,
  type Run,
  ZERO_PAGE,
} from "../core/mod.ts";
import { FRAME_BLOCKS } from "../format/mod.ts";

/** What one page of planes adds to an image. */
export interface PageCounts {
  /** Number of the page. */
  readonly index: number;
  readonly blocks: number;
  readonly runs: number;
  readonly frames: number;
}

/** Totals over pages. */
export interface Totals {
  blocks: number;
  runs: number;
  frames: number;
  /** Runs counted across pages: a run that goes on in the next page is one. */
  longRuns: number;
  /** VBN behind the last block. */
  end: number;
}

/** Blocks, runs and frames of a plane, page by page. Pages without a block are left out. */
export interface Counts {
  readonly pages: PageCounts[];
  readonly totals: Totals;
}

/** Words of a page in which blocks of an image can be: the first `count` of `words`, ascending. */
interface Found {
  readonly index: number;
  readonly words: Uint16Array;
  readonly count: number;
}

/** Counts a plane. */
export function countPages(plane: Plane): Counts {
  const counts = newCounts();
  const words = new Uint16Array(PAGE_WORDS);
  for (const index of plane.pages()) {
    const page = plane.page(index);
    const count = differingWords(page, ZERO_PAGE, words);
    if (count > 0) takePage(counts, { index, words, count }, page, ZERO_PAGE);
  }
  return counts;
}

/**
 * Counts `top - base` and `base - top`, in one pass over both: neither difference is made, and words
 * that are equal cost no more than the look at them.
 */
export function countChange(top: Plane, base: Plane): { allocated: Counts; deallocated: Counts } {
  assert(top.pageCount === base.pageCount, `planes of ${top.pageCount}, ${base.pageCount} pages`);
  const allocated = newCounts();
  const deallocated = newCounts();
  const words = new Uint16Array(PAGE_WORDS);
  // A function that runs once a page is compiled well soon; a loop that runs once a choice is not.
  const takeBoth = (index: number) => {
    const now = top.page(index);
    const before = base.page(index);
    const count = differingWords(now, before, words);
    if (count === 0) return;
    const found = { index, words, count };
    takePage(allocated, found, now, before);
    takePage(deallocated, found, before, now);
  };
  for (const index of differingPages(top, base)) takeBoth(index);
  return { allocated, deallocated };
}

function newCounts(): Counts {
  return { pages: [], totals: { blocks: 0, runs: 0, frames: 0, longRuns: 0, end: -1 } };
}

/** Takes in the blocks that a page has in `top` and not in `base`; they lie in the words that were found. */
function takePage({ pages, totals }: Counts, page: Found, top: Uint32Array, base: Uint32Array) {
  const { index, words, count } = page;
  let blocks = 0;
  let runs = 0;
  let cuts = 0;
  let first = -1;
  let end = -1;
  for (let k = 0; k < count; k++) {
    const i = words[k];
    const word = top[i] & ~base[i];
    if (word === 0) continue;
    const start = i * 32;
    // Whether the block before this word is there: then a bit 0 begins no run, but maybe a frame.
    const before = end === start ? 1 : 0;
    if (start % FRAME_BLOCKS === 0) cuts += word & before;
    blocks += popcountWord(word);
    runs += popcountWord(word & ~(word << 1 | before));
    if (first < 0) first = start + 31 - Math.clz32(word & -word);
    end = start + 32 - Math.clz32(word);
  }
  if (blocks === 0) return;
  const frames = runs + cuts;
  pages.push({ index, blocks, runs, frames });
  totals.blocks += blocks;
  totals.runs += runs;
  totals.frames += frames;
  const goesOn = index * PAGE_BITS + first === totals.end;
  totals.longRuns += goesOn ? runs - 1 : runs;
  totals.end = index * PAGE_BITS + end;
}

/** Frames a run is cut into: at most 256 blocks, none crossing a multiple of 256. */
export function framesOfRun(start: number, count: number): number {
  return Math.floor((start + count - 1) / FRAME_BLOCKS) - Math.floor(start / FRAME_BLOCKS) + 1;
}

/** The frames of a page's runs in order, as runs of absolute VBNs. */
export function framesOfPage(plane: Plane, index: number): Run[] {
  const frames: Run[] = [];
  forEachRunOfPage(plane.page(index), (start, count) => {
    while (count > 0) {
      const length = Math.min(count, FRAME_BLOCKS - start % FRAME_BLOCKS);
      frames.push({ start: index * PAGE_BITS + start, count: length });
      start += length;
      count -= length;
    }
  });
  return frames;
}

/** The frames of a plane one after the other, a page of them in memory at a time. */
export class FrameCursor {
  readonly #plane: Plane;
  readonly #pages: Iterator<number>;
  #frames: Run[] = [];
  #at = 0;

  constructor(plane: Plane) {
    this.#plane = plane;
    this.#pages = plane.pages()[Symbol.iterator]();
    this.#fill();
  }

  /** The frame at hand, `undefined` behind the last one. */
  get current(): Run | undefined {
    return this.#frames[this.#at];
  }

  /** Goes on to the next frame. */
  advance(): void {
    this.#at++;
    this.#fill();
  }

  #fill(): void {
    while (this.#at >= this.#frames.length) {
      const next = this.#pages.next();
      if (next.done) return;
      this.#frames = framesOfPage(this.#plane, next.value);
      this.#at = 0;
    }
  }
}
