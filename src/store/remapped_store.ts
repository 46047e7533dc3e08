/**
 * A view of a block store in which some blocks lie elsewhere for a time: what is read and written at
 * `from[i]` is at `to[i]` in the store below. All other blocks are where they are.
 *
 * Invariants:
 * 1. `from` and `to` ascend and have no block in common, so a mapped block is never mapped again.
 * 2. Nobody writes through the view to a block of `to`: there lies another one.
 *
 * @module
 */

import { assert } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import type { BlockStore, ReadPart } from "./block_store.ts";

/** Which blocks lie elsewhere, and where. */
export interface Remap {
  /** Their VBNs, ascending. */
  readonly from: Uint32Array;
  /** Where they lie, ascending, as many. */
  readonly to: Uint32Array;
}

/** See the module. Closing it closes nothing: the store below belongs to somebody else. */
export class RemappedStore implements BlockStore {
  readonly #under: BlockStore;
  #remap: Remap;

  constructor(under: BlockStore, remap: Remap) {
    assert(remap.from.length === remap.to.length, "a remapped block lies in one place");
    this.#under = under;
    this.#remap = remap;
  }

  get capacity(): number {
    return this.#under.capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#eachPart(vbn, target, (place, part) => this.#under.read(place, part));
  }

  write(vbn: number, source: Uint8Array): void {
    this.#eachPart(vbn, source, (place, part) => this.#under.write(place, part));
  }

  /** Not while blocks lie elsewhere: what is free in the view may be in use below. */
  get discard(): BlockStore["discard"] {
    const under = this.#under;
    if (under.discard === undefined || this.#remap.from.length > 0) return undefined;
    return (vbn: number, count: number) => under.discard!(vbn, count);
  }

  /** As below, once all blocks are in their places. */
  get readParallel(): BlockStore["readParallel"] {
    const under = this.#under;
    if (under.readParallel === undefined || this.#remap.from.length > 0) return undefined;
    return (parts: readonly ReadPart[]) => under.readParallel!(parts);
  }

  sync(): Promise<void> {
    return this.#under.sync();
  }

  close(): void {}

  /** All blocks are in their places: from now on nothing lies elsewhere. */
  settle(): void {
    this.#remap = { from: new Uint32Array(0), to: new Uint32Array(0) };
  }

  /** Cuts consecutive blocks into parts that lie one behind the other below. */
  #eachPart(vbn: number, bytes: Uint8Array, work: (place: number, part: Uint8Array) => void): void {
    const { from, to } = this.#remap;
    const end = vbn + bytes.length / BLOCK_SIZE;
    let at = lowerBound(from, vbn);
    let start = vbn;
    while (start < end) {
      const isMapped = at < from.length && from[at] === start;
      const place = isMapped ? to[at] : start;
      let count = 1;
      if (isMapped) {
        at++;
        while (start + count < end && from[at] === start + count && to[at] === place + count) {
          count++;
          at++;
        }
      } else count = Math.min(end, at < from.length ? from[at] : end) - start;
      const offset = (start - vbn) * BLOCK_SIZE;
      work(place, bytes.subarray(offset, offset + count * BLOCK_SIZE));
      start += count;
    }
  }
}

/** Index of the first of ascending `values` that is not below `wanted`; their number when all are. */
function lowerBound(values: Uint32Array, wanted: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
