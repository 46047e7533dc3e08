/**
 * A block store in memory, for tests and for measuring what the disk costs.
 *
 * @module
 */

import { assert } from "../core/mod.ts";
import { BLOCK_SIZE, type BlockStore } from "./block_store.ts";

/** Keeps written blocks in a map, so that capacity costs nothing. */
export class MemoryStore implements BlockStore {
  readonly capacity: number;
  /** Blocks by VBN. */
  readonly blocks = new Map<number, Uint8Array>();

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#checkBounds(vbn, target.length);
    for (let at = 0; at < target.length; at += BLOCK_SIZE) {
      const block = this.blocks.get(vbn + at / BLOCK_SIZE);
      if (block === undefined) target.fill(0, at, at + BLOCK_SIZE);
      else target.set(block, at);
    }
  }

  write(vbn: number, source: Uint8Array): void {
    this.#checkBounds(vbn, source.length);
    for (let at = 0; at < source.length; at += BLOCK_SIZE) {
      this.blocks.set(vbn + at / BLOCK_SIZE, source.slice(at, at + BLOCK_SIZE));
    }
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {}

  #checkBounds(vbn: number, byteCount: number): void {
    assert(byteCount % BLOCK_SIZE === 0, `${byteCount} bytes are not whole blocks`);
    assert(vbn >= 0 && vbn + byteCount / BLOCK_SIZE <= this.capacity, `VBN ${vbn} out of bounds`);
  }
}
