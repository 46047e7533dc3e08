/**
 * Two planes of 1 TiB in memory, and the choice of an increment from them.
 *
 * @module
 */

import { BitPlane } from "../../src/core/mod.ts";
import { countChange } from "../../src/image/mod.ts";

/** Pages of a plane of 1 TiB. */
const PAGES = 8192;

/** A full plane with a hole in every word, and one that has other blocks in some of its words. */
export interface Pair {
  readonly base: BitPlane;
  readonly top: BitPlane;
  /** Blocks that the top has and the base has not. */
  readonly blocks: number;
}

/** Makes two planes. @param options.every One word of so many differs. */
export function planesOfTebibyte(options: { every: number }): Pair {
  const base = new BitPlane(PAGES);
  for (let page = 0; page < PAGES; page++) base.writablePage(page).fill(0xf0f0ffff);
  const top = BitPlane.copyOf(base);
  let blocks = 0;
  let next = 0;
  for (let page = 0; page < PAGES; page++) {
    const length = base.page(page).length;
    if (next >= length) {
      next -= length;
      continue;
    }
    const words = top.writablePage(page);
    for (; next < length; next += options.every) {
      words[next] = 0x0f0f0000;
      blocks += 8;
    }
    next -= length;
  }
  return { base, top, blocks };
}

/** Reads every word of both planes once: what no choice that looks at all of them can be faster than. */
export function passOver({ base, top }: Pair): number {
  let total = 0;
  for (let page = 0; page < PAGES; page++) {
    const a = base.page(page);
    const b = top.page(page);
    for (let i = 0; i < a.length; i++) total ^= a[i] ^ b[i];
  }
  return total;
}

/** Counts the blocks of an increment and those deallocated, their runs and frames. @returns Its blocks. */
export function choose({ base, top }: Pair): number {
  return countChange(top, base).allocated.totals.blocks;
}
