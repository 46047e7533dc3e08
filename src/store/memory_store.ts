/**
 * A block store in memory, for tests and for measuring what the disk costs.
 *
 * @module
 */

import { BLOCK_SIZE } from "../format/mod.ts";
import { checkRun, type SparseStore } from "./block_store.ts";

/** Keeps written blocks in a map, so that capacity costs nothing. */
export class MemoryStore implements SparseStore {
  readonly capacity: number;
  /** Blocks by VBN. */
  readonly blocks = new Map<number, Uint8Array>();

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    checkRun(this.capacity, vbn, target.length);
    for (let at = 0; at < target.length; at += BLOCK_SIZE) {
      const block = this.blocks.get(vbn + at / BLOCK_SIZE);
      if (block === undefined) target.fill(0, at, at + BLOCK_SIZE);
      else target.set(block, at);
    }
  }

  write(vbn: number, source: Uint8Array): void {
    checkRun(this.capacity, vbn, source.length);
    for (let at = 0; at < source.length; at += BLOCK_SIZE) {
      this.blocks.set(vbn + at / BLOCK_SIZE, source.slice(at, at + BLOCK_SIZE));
    }
  }

  has(vbn: number): boolean {
    return this.blocks.has(vbn);
  }

  discard(vbn: number, count: number): void {
    if (count > this.blocks.size) {
      for (const key of this.blocks.keys()) {
        if (key >= vbn && key < vbn + count) this.blocks.delete(key);
      }
    } else for (let i = 0; i < count; i++) this.blocks.delete(vbn + i);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {}
}
