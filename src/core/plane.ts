/**
 * Planes: one bit a VBN, read in pages.
 *
 * A page is 4096 bytes of a plane, the unit in which a plane is stored, cached and combined; it
 * covers 32768 blocks (128 MiB of volume). Bit `v % 32` of word `v / 32` (little-endian words) is
 * block `v`.
 *
 * Invariants:
 * 1. A page handed out by a {@linkcode Plane} is read-only for its receiver.
 * 2. `pages()` names, ascending and once each, every page that may hold a set bit.
 * 3. Nothing here does I/O or knows where a plane is stored.
 *
 * @module
 */

import { assert, divCeil } from "./assert.ts";

/** 32-bit words in a page. */
export const PAGE_WORDS = 1024;
/** Blocks (bits) a page covers. */
export const PAGE_BITS = PAGE_WORDS * 32;
/** The page that has no bit set, shared by everybody: compare by identity to skip work. */
export const ZERO_PAGE: Uint32Array = new Uint32Array(PAGE_WORDS);

/** A run of consecutive VBNs. */
export interface Run {
  /** First VBN. */
  readonly start: number;
  /** Number of blocks, at least 1. */
  readonly count: number;
}

/** Something that has one bit a VBN. */
export interface Plane {
  /** Number of pages, so of blocks / 32768. */
  readonly pageCount: number;
  /** The words of page `index`; {@linkcode ZERO_PAGE} where nothing is set and that is known. */
  page(index: number): Uint32Array;
  /** Ascending numbers of the pages that may have a bit set. */
  pages(): Iterable<number>;
  /**
   * Ascending numbers of the pages in which this plane may differ from `other`, where the make of
   * both allows to know it without reading them; absent or `undefined` where it does not.
   */
  differing?(other: Plane): Iterable<number> | undefined;
}

/** Pages needed for `blockCount` blocks. */
export function pageCountOf(blockCount: number): number {
  return divCeil(blockCount, PAGE_BITS);
}

/** Number of set bits of a 32-bit word. */
export function popcountWord(word: number): number {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Number of set bits of a page. */
export function popcountPage(page: Uint32Array): number {
  if (page === ZERO_PAGE) return 0;
  let total = 0;
  for (let i = 0; i < PAGE_WORDS; i++) {
    const word = page[i];
    if (word !== 0) total += popcountWord(word);
  }
  return total;
}

/** Number of set bits of a plane. */
export function popcount(plane: Plane): number {
  let total = 0;
  for (const index of plane.pages()) total += popcountPage(plane.page(index));
  return total;
}

/** Whether bit `vbn` is set. */
export function hasBit(plane: Plane, vbn: number): boolean {
  const page = plane.page(Math.floor(vbn / PAGE_BITS));
  return (page[(vbn % PAGE_BITS) >>> 5] >>> (vbn & 31) & 1) === 1;
}

/**
 * Calls `visit(start, count)` for each run of set bits of a page, `start` counted from the page's
 * first block. A free function on primitives: this loop decides how fast an image is planned.
 */
export function forEachRunOfPage(
  page: Uint32Array,
  visit: (start: number, count: number) => void,
): void {
  if (page === ZERO_PAGE) return;
  let start = -1;
  for (let i = 0; i < PAGE_WORDS; i++) {
    const word = page[i];
    if (word === 0) {
      if (start >= 0) {
        visit(start, i * 32 - start);
        start = -1;
      }
      continue;
    }
    if (word === 0xffffffff) {
      if (start < 0) start = i * 32;
      continue;
    }
    let bit = 0;
    while (bit < 32) {
      // Bits at and above `bit`, inverted while inside a run, so that the next edge is the lowest one.
      const rest = (start < 0 ? word : ~word) >>> bit;
      if (rest === 0) break;
      bit += 31 - Math.clz32(rest & -rest);
      if (start < 0) {
        start = i * 32 + bit;
      } else {
        visit(start, i * 32 + bit - start);
        start = -1;
      }
    }
  }
  if (start >= 0) visit(start, PAGE_BITS - start);
}

/**
 * Writes to `found`, which has room for all words of a page, the numbers of those in which two pages
 * differ, ascending. This loop decides how fast an increment is chosen: most words are equal, and it is
 * as fast as memory when four are compared at a turn.
 *
 * @returns How many there are.
 */
export function differingWords(a: Uint32Array, b: Uint32Array, found: Uint16Array): number {
  let count = 0;
  if (a === b) return count;
  for (let i = 0; i < PAGE_WORDS; i += 4) {
    if (a[i] !== b[i]) found[count++] = i;
    if (a[i + 1] !== b[i + 1]) found[count++] = i + 1;
    if (a[i + 2] !== b[i + 2]) found[count++] = i + 2;
    if (a[i + 3] !== b[i + 3]) found[count++] = i + 3;
  }
  return count;
}

/** Runs of a plane in ascending order. A run never crosses a page: it ends there and goes on as a new one. */
export function* runsOf(plane: Plane): Generator<Run> {
  for (const index of plane.pages()) {
    const runs: Run[] = [];
    const first = index * PAGE_BITS;
    forEachRunOfPage(plane.page(index), (start, count) => {
      runs.push({ start: first + start, count });
    });
    yield* runs;
  }
}

/** A plane in memory that can be written. Pages without a set bit cost nothing. */
export class BitPlane implements Plane {
  readonly pageCount: number;
  readonly #pages = new Map<number, Uint32Array>();

  constructor(pageCount: number) {
    this.pageCount = pageCount;
  }

  /** A plane with the bits of `runs`. */
  static ofRuns(pageCount: number, runs: Iterable<Run>): BitPlane {
    const plane = new BitPlane(pageCount);
    for (const run of runs) plane.setRun(run.start, run.count);
    return plane;
  }

  /** A copy of any plane. */
  static copyOf(source: Plane): BitPlane {
    const plane = new BitPlane(source.pageCount);
    for (const index of source.pages()) {
      const page = source.page(index);
      if (page !== ZERO_PAGE) plane.#pages.set(index, page.slice());
    }
    return plane;
  }

  page(index: number): Uint32Array {
    return this.#pages.get(index) ?? ZERO_PAGE;
  }

  pages(): Iterable<number> {
    return [...this.#pages.keys()].sort((a, b) => a - b);
  }

  /** Page `index` for writing. */
  writablePage(index: number): Uint32Array {
    assert(index >= 0 && index < this.pageCount, `page ${index} of ${this.pageCount}`);
    let page = this.#pages.get(index);
    if (page === undefined) this.#pages.set(index, page = new Uint32Array(PAGE_WORDS));
    return page;
  }

  /** Whether bit `vbn` is set. */
  has(vbn: number): boolean {
    const page = this.#pages.get(Math.floor(vbn / PAGE_BITS));
    return page !== undefined && (page[(vbn % PAGE_BITS) >>> 5] >>> (vbn & 31) & 1) === 1;
  }

  /** Sets bit `vbn`. */
  set(vbn: number): void {
    this.writablePage(Math.floor(vbn / PAGE_BITS))[(vbn % PAGE_BITS) >>> 5] |= 1 << (vbn & 31);
  }

  /** Clears bit `vbn`. */
  clear(vbn: number): void {
    const page = this.#pages.get(Math.floor(vbn / PAGE_BITS));
    if (page !== undefined) page[(vbn % PAGE_BITS) >>> 5] &= ~(1 << (vbn & 31));
  }

  /** Sets `count` bits from `start`, across pages where needed. */
  setRun(start: number, count: number): void {
    while (count > 0) {
      const index = Math.floor(start / PAGE_BITS);
      const first = start % PAGE_BITS;
      const length = Math.min(count, PAGE_BITS - first);
      setBits(this.writablePage(index), first, length);
      start += length;
      count -= length;
    }
  }

  /** Takes every bit of `other` too. */
  add(other: Plane): void {
    for (const index of other.pages()) {
      const source = other.page(index);
      if (source === ZERO_PAGE) continue;
      const page = this.writablePage(index);
      for (let i = 0; i < PAGE_WORDS; i++) page[i] |= source[i];
    }
  }

  /** Forgets every bit. */
  reset(): void {
    this.#pages.clear();
  }
}

/** Sets `count` bits of `page` from bit `first` on; both lie inside the page. */
export function setBits(page: Uint32Array, first: number, count: number): void {
  const end = first + count;
  assert(first >= 0 && end <= PAGE_BITS, `bits ${first}+${count} of a page`);
  let bit = first;
  while (bit < end) {
    const word = bit >>> 5;
    const from = bit & 31;
    const width = Math.min(32 - from, end - bit);
    page[word] |= width === 32 ? 0xffffffff : ((1 << width) - 1) << from;
    bit += width;
  }
}

/** First clear bit of `page` at or behind `from`, `limit` when there is none before it. */
export function nextClearBit(page: Uint32Array, from: number, limit: number): number {
  let word = from >>> 5;
  let clear = ~page[word] & (0xffffffff << (from & 31));
  while (clear === 0) {
    if (++word * 32 >= limit) return limit;
    clear = ~page[word];
  }
  return Math.min(limit, word * 32 + 31 - Math.clz32(clear & -clear));
}

/** Sum: blocks in any of `planes`. */
export function sum(...planes: Plane[]): Plane {
  if (planes.length === 1) return planes[0];
  return {
    ...combine(planes, (out, page) => {
      for (let i = 0; i < PAGE_WORDS; i++) out[i] |= page[i];
    }, () => mergedPages(planes)),
    differing(other: Plane): Iterable<number> | undefined {
      // Where none of them differs from the other, their sum does not either.
      const found = new Set<number>();
      for (const plane of planes) {
        const pages = plane.differing?.(other);
        if (pages === undefined) return undefined;
        for (const index of pages) found.add(index);
      }
      return [...found].sort((a, b) => a - b);
    },
  };
}

/** Difference: blocks in `top` and not in `base`. */
export function difference(top: Plane, base: Plane): Plane {
  return combine([top, base], (out, page) => {
    for (let i = 0; i < PAGE_WORDS; i++) out[i] &= ~page[i];
  }, () => top.differing?.(base) ?? top.pages());
}

/** Ascending numbers of the pages in which two planes may differ. */
export function differingPages(a: Plane, b: Plane): Iterable<number> {
  return a.differing?.(b) ?? b.differing?.(a) ?? mergedPages([a, b]);
}

/** Intersection: blocks in both. */
export function intersection(a: Plane, b: Plane): Plane {
  return combine([a, b], (out, page) => {
    for (let i = 0; i < PAGE_WORDS; i++) out[i] &= page[i];
  }, () => a.pages());
}

/** Whether two planes have a common block. Stops at the first. */
export function intersects(a: Plane, b: Plane): boolean {
  for (const index of a.pages()) {
    const left = a.page(index);
    if (left === ZERO_PAGE) continue;
    const right = b.page(index);
    if (right === ZERO_PAGE) continue;
    for (let i = 0; i < PAGE_WORDS; i++) if ((left[i] & right[i]) !== 0) return true;
  }
  return false;
}

/** Whether every block of `part` is in `whole` too. Stops at the first that is not. */
export function isWithin(part: Plane, whole: Plane): boolean {
  return isEmpty(difference(part, whole));
}

/** Whether a plane has no block. Stops at the first. */
export function isEmpty(plane: Plane): boolean {
  for (const index of plane.pages()) {
    const page = plane.page(index);
    if (page !== ZERO_PAGE && page.some((word) => word !== 0)) return false;
  }
  return true;
}

/** Whether two planes have the same blocks. */
export function equalPlanes(a: Plane, b: Plane): boolean {
  for (const index of mergedPages([a, b])) {
    const left = a.page(index);
    const right = b.page(index);
    if (left === right) continue;
    for (let i = 0; i < PAGE_WORDS; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}

/**
 * What is in any of `planes` and in none of `others`, page by page and without empty pages. Where the
 * make of the planes allows it, only pages are read in which `planes` differ from the first two of
 * `others`: name those first that are most alike.
 */
export function* pagesOnlyIn(
  planes: readonly Plane[],
  others: readonly Plane[],
): Generator<{ index: number; words: Uint32Array }> {
  const candidates = new Set<number>();
  for (const plane of planes) {
    const [first, second] = others.slice(0, 2).map((other) => plane.differing?.(other));
    const narrow = second === undefined ? undefined : new Set(second);
    for (const index of first ?? narrow ?? plane.pages()) {
      if (narrow?.has(index) ?? true) candidates.add(index);
    }
  }
  for (const index of [...candidates].sort((a, b) => a - b)) {
    const words = new Uint32Array(PAGE_WORDS);
    for (const plane of planes) {
      const page = plane.page(index);
      for (let i = 0; i < PAGE_WORDS; i++) words[i] |= page[i];
    }
    for (const other of others) {
      const page = other.page(index);
      let rest = 0;
      for (let i = 0; i < PAGE_WORDS; i++) rest |= words[i] &= ~page[i];
      if (rest === 0) break;
    }
    if (words.some((word) => word !== 0)) yield { index, words };
  }
}

/** The number of set bits below `vbn`. */
export function rank(plane: Plane, vbn: number): number {
  const last = Math.floor(vbn / PAGE_BITS);
  let total = 0;
  for (const index of plane.pages()) {
    if (index > last) break;
    const page = plane.page(index);
    if (index < last) {
      total += popcountPage(page);
      continue;
    }
    const within = vbn % PAGE_BITS;
    for (let i = 0; i < within >>> 5; i++) total += popcountWord(page[i]);
    if (within & 31) total += popcountWord(page[within >>> 5] & ((1 << (within & 31)) - 1));
  }
  return total;
}

/** The VBN of the set bit number `ordinal` (from 0), or -1 when the plane has fewer. */
export function select(plane: Plane, ordinal: number): number {
  let rest = ordinal;
  for (const index of plane.pages()) {
    const page = plane.page(index);
    const inPage = popcountPage(page);
    if (rest >= inPage) {
      rest -= inPage;
      continue;
    }
    for (let i = 0; i < PAGE_WORDS; i++) {
      let word = page[i];
      const inWord = popcountWord(word);
      if (rest >= inWord) {
        rest -= inWord;
        continue;
      }
      for (; rest > 0; rest--) word &= word - 1;
      return index * PAGE_BITS + i * 32 + (31 - Math.clz32(word & -word));
    }
  }
  return -1;
}

function combine(
  planes: Plane[],
  fold: (out: Uint32Array, page: Uint32Array) => void,
  pages: () => Iterable<number>,
): Plane {
  assert(planes.length > 0, "a combination needs a plane");
  const pageCount = planes[0].pageCount;
  for (const plane of planes) {
    assert(plane.pageCount === pageCount, `planes of ${plane.pageCount} and ${pageCount} pages`);
  }
  return {
    pageCount,
    pages,
    page(index: number): Uint32Array {
      const out = planes[0].page(index).slice();
      for (let i = 1; i < planes.length; i++) fold(out, planes[i].page(index));
      return out;
    },
  };
}

function mergedPages(planes: Plane[]): number[] {
  return planes.map((plane) => [...plane.pages()]).reduce(merged);
}

/** Two ascending lists as one, without what is in both twice. */
function merged(a: number[], b: number[]): number[] {
  const all: number[] = [];
  for (let i = 0, k = 0; i < a.length || k < b.length;) {
    const next = k === b.length || a[i] <= b[k] ? a[i] : b[k];
    if (a[i] === next) i++;
    if (b[k] === next) k++;
    all.push(next);
  }
  return all;
}
