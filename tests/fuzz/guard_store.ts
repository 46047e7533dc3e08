/**
 * A block store that watches what is done to it.
 *
 * @module
 */

import type { BlockStore, MemoryStore } from "../../src/store/mod.ts";
import type { Watch } from "./watch.ts";

const BLOCK_SIZE = 4096;

/** Nothing lies outside of the volume, and nothing that is in use is written over (I2). */
export class GuardStore implements BlockStore {
  readonly capacity: number;
  readonly under: MemoryStore;
  readonly #watch: Watch;
  /** Blocks that may not be written now, and why. */
  inUse: (vbn: number) => string | undefined = () => undefined;

  /** @param capacity Blocks of the volume; the store below has more, so that a mistake has a place to go to. */
  constructor(under: MemoryStore, watch: Watch, capacity = under.capacity) {
    this.under = under;
    this.#watch = watch;
    this.capacity = capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#check("read", vbn, target.length);
    this.under.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#check("write", vbn, source.length);
    for (let i = 0; i < source.length / BLOCK_SIZE; i++) {
      const use = this.inUse(vbn + i);
      if (use === undefined) continue;
      this.#watch.problem(`VBN ${vbn + i} is written: ${use}\n${new Error().stack}`);
      throw new Error(`VBN ${vbn + i} is in use`);
    }
    this.under.write(vbn, source);
  }

  sync(): Promise<void> {
    return this.under.sync();
  }

  discard(vbn: number, count: number): void {
    this.#check("discard", vbn, count * BLOCK_SIZE);
    this.under.discard(vbn, count);
  }

  close(): void {}

  #check(call: string, vbn: number, byteCount: number): void {
    const count = byteCount / BLOCK_SIZE;
    // A call costs something, and so does a block.
    if (call !== "discard") this.#watch.spend(1 + count, `a ${call} of VBN ${vbn}`);
    const isInside = Number.isInteger(vbn) && Number.isInteger(count) && vbn >= 0 &&
      vbn + count <= this.capacity;
    if (isInside) return;
    const what = `A ${call} of ${count} blocks from VBN ${vbn} on, the volume has ${this.capacity}`;
    this.#watch.problem(`${what}\n${new Error().stack}`);
    throw new Error(what);
  }
}
