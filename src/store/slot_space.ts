/**
 * Which blocks of a packed file are free, and giving them out.
 *
 * @module
 */

import {
  BitPlane,
  nextClearBit,
  PAGE_BITS,
  pageCountOf,
  type Run,
  VolcastError,
} from "../core/mod.ts";

/** See the module. */
export class SlotSpace {
  /** Blocks that the file may have. */
  readonly limit: number;
  readonly #used: BitPlane;
  /** Blocks in use. */
  #count = 0;
  #end: number;
  #cursor = 0;

  /** @param end Blocks that the file has been given already, in use or not. */
  constructor(limit: number, end: number) {
    this.limit = limit;
    this.#end = end;
    this.#used = new BitPlane(pageCountOf(limit));
  }

  /** All blocks from here on are free. */
  get end(): number {
    return this.#end;
  }

  /** Blocks in use. */
  get usedCount(): number {
    return this.#count;
  }

  /** Takes blocks that are known to be in use. @returns Whether none of them was taken already. */
  take({ start, count }: Run): boolean {
    let fresh = true;
    for (let i = start; fresh && i < start + count; i++) fresh = !this.#used.has(i);
    if (fresh) this.#mark({ start, count });
    return fresh;
  }

  /**
   * Gives out 1 to `most` consecutive blocks: those within the file first, then it grows.
   * @throws {VolcastError} `full`.
   */
  allocate(most: number): Run {
    if (this.#count >= this.limit) throw noRoom(this.limit);
    const run = this.#count < this.#end ? this.#within(most) : {
      start: this.#end,
      count: Math.min(most, this.limit - this.#end),
    };
    this.#mark(run);
    return run;
  }

  /** Gives blocks back. */
  release({ start, count }: Run): void {
    for (let i = start; i < start + count; i++) this.#used.clear(i);
    this.#count -= count;
  }

  /** Free blocks within the file, from the cursor on; there is at least one. */
  #within(most: number): Run {
    for (;;) {
      if (this.#cursor >= this.#end) this.#cursor = 0;
      const index = Math.floor(this.#cursor / PAGE_BITS);
      const page = this.#used.page(index);
      const limit = Math.min(PAGE_BITS, this.#end - index * PAGE_BITS);
      const first = nextClearBit(page, this.#cursor % PAGE_BITS, limit);
      if (first === limit) {
        this.#cursor = (index + 1) * PAGE_BITS;
        continue;
      }
      const start = index * PAGE_BITS + first;
      let count = 1;
      while (count < most && first + count < limit && !this.#used.has(start + count)) count++;
      this.#cursor = start + count;
      return { start, count };
    }
  }

  #mark(run: Run): void {
    this.#used.setRun(run.start, run.count);
    this.#count += run.count;
    this.#end = Math.max(this.#end, run.start + run.count);
  }
}

/** All blocks that the file may have are in use. */
export function noRoom(limit: number): VolcastError {
  return new VolcastError(
    "full",
    `Cannot write: all ${limit} blocks that the packed file may have are in use`,
    "Copy the volume to a larger device, or to a file",
  );
}
