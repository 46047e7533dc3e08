/**
 * Trees of blocks without a volume around them.
 *
 * @module
 */

import { assert } from "@std/assert";
import { MemoryStore } from "../../src/store/mod.ts";
import { type Allocator, BlockCache, BlockIo, BlockTree } from "../../src/volume/mod.ts";

/** Gives out blocks in order and knows which are in use. */
export class CountingAllocator implements Allocator {
  readonly used = new Set<number>();
  dirty = 0;
  #next = 100;

  allocate(): number {
    this.used.add(this.#next);
    return this.#next++;
  }

  free(vbn: number): void {
    assert(this.used.delete(vbn), `VBN ${vbn} is freed and not in use`);
  }

  dirtied(count: number): void {
    this.dirty += count;
  }
}

/** A tree in memory with its allocator. */
export class TestTree {
  readonly io = new BlockIo(new MemoryStore(2 ** 32), new BlockCache(2 ** 20));
  readonly allocator = new CountingAllocator();
  tree: BlockTree;

  constructor(slotCount = 16) {
    this.tree = new BlockTree(this.io, 0, new Uint8Array(slotCount * 8), this.allocator);
  }

  /** Writes everything, as a consistency point does, and opens the tree anew from its slots. */
  commit(): void {
    while (this.tree.assign());
    this.tree.write();
    assert(!this.tree.isDirty, "nothing is dirty after write");
    assert(this.allocator.dirty === 0, `${this.allocator.dirty} blocks are counted as dirty`);
    this.tree = new BlockTree(this.io, this.tree.height, this.tree.slots.slice(), this.allocator);
  }

  /** VBNs that the slots reach. */
  reached(): Set<number> {
    const reached = new Set<number>();
    this.tree.forEachPointer(({ vbn }) => {
      assert(!reached.has(vbn), `VBN ${vbn} is reached twice`);
      reached.add(vbn);
      return true;
    });
    return reached;
  }
}
