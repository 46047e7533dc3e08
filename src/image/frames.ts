/**
 * Cutting planes into the runs and frames of a stream, and counting them.
 *
 * @module
 */

import { forEachRunOfPage, PAGE_BITS, type Plane, type Run } from "../core/mod.ts";
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

/** Counts blocks, runs and frames of a plane, page by page. Pages without a block are left out. */
export function countPages(plane: Plane): { pages: PageCounts[]; totals: Totals } {
  const pages: PageCounts[] = [];
  const totals: Totals = { blocks: 0, runs: 0, frames: 0, longRuns: 0, end: -1 };
  for (const index of plane.pages()) {
    let blocks = 0;
    let runs = 0;
    let frames = 0;
    forEachRunOfPage(plane.page(index), (start, count) => {
      blocks += count;
      runs++;
      frames += framesOfRun(start, count);
      const vbn = index * PAGE_BITS + start;
      if (vbn !== totals.end) totals.longRuns++;
      totals.end = vbn + count;
    });
    if (blocks === 0) continue;
    pages.push({ index, blocks, runs, frames });
    totals.blocks += blocks;
    totals.runs += runs;
    totals.frames += frames;
  }
  return { pages, totals };
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
