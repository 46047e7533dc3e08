/**
 * Planes of shadow snapshots: what they still say of a snapshot whose blocks may be used again.
 *
 * They lie in one metafile, slot k in the blocks from k x pages of a plane on; the file is there only
 * while there is a shadow.
 *
 * Invariants:
 * 1. A block that a root uses and whose bit is set in a shadow's plane as of that root holds what the
 *    snapshot had there: whatever is given out loses its bit in every slot, in the consistency point
 *    that first uses it.
 * 2. No bit is ever set again. To clear more than needed is always right: blocks travel that need not.
 * 3. A consistency point never fails for want of room for this file: where room is short a page becomes
 *    a hole, which takes none.
 * 4. Blocks of the file outside of slots in use are holes.
 *
 * @module
 */

import { PAGE_WORDS, type Plane, ZERO_PAGE } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  emptyInode,
  FILE_TYPE,
  HOLE,
  type Inode,
  SHADOW_SLOTS,
  type SnapshotRecord,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import { type Allocator, BlockTree } from "./block_tree.ts";
import { heightFor, wordsOf } from "./plane_file.ts";

/** Pages that are kept in memory before they are written, while a plane is copied. */
const SETTLE_PAGES = 1024;

/** Height of the tree of the file in a volume with planes of `pageCount` pages. */
export function shadowHeight(pageCount: number): number {
  return heightFor(SHADOW_SLOTS * pageCount);
}

/** The inode of the file, before anything is in it. */
export function newShadowInode(pageCount: number): Inode {
  return {
    ...emptyInode(),
    mode: FILE_TYPE.file,
    nlink: 1,
    size: SHADOW_SLOTS * pageCount * BLOCK_SIZE,
    height: shadowHeight(pageCount),
  };
}

/** The file of an active file system, for writing. */
export class ShadowFile {
  readonly tree: BlockTree;
  readonly #pageCount: number;
  readonly #isShort: () => boolean;

  /** @param at.isShort Whether one more changed page would take room that consistency points need. */
  constructor(
    inode: Inode,
    at: { io: BlockIo; allocator: Allocator; pageCount: number; isShort: () => boolean },
  ) {
    this.tree = new BlockTree(at.io, inode.height, inode.slots, at.allocator);
    this.#pageCount = at.pageCount;
    this.#isShort = at.isShort;
  }

  /** Page `index` of all slots together, a copy; `undefined` where no bit is set. */
  union(index: number): Uint32Array | undefined {
    let union: Uint32Array | undefined;
    for (let slot = 0; slot < SHADOW_SLOTS; slot++) {
      const page = this.#page(slot, index);
      if (page === ZERO_PAGE) continue;
      if (union === undefined) union = page.slice();
      else for (let i = 0; i < PAGE_WORDS; i++) union[i] |= page[i];
    }
    return union;
  }

  /** Blocks `first` to `first + count - 1` of page `index` are given out: no shadow has them any more. */
  clear(index: number, first: number, count: number): void {
    for (let slot = 0; slot < SHADOW_SLOTS; slot++) {
      const block = slot * this.#pageCount + index;
      if (!hasAny(this.#page(slot, index), first, count)) continue;
      if (!this.tree.isChanged(block) && this.#isShort()) {
        this.#makeHole(block);
        continue;
      }
      const words = wordsOf(this.tree.writableBlock(block));
      for (let bit = first; bit < first + count; bit++) words[bit >>> 5] &= ~(1 << (bit & 31));
    }
  }

  /** Puts a plane into a slot, as much of it as there is room for. */
  put(slot: number, plane: Plane): void {
    this.drop(slot);
    try {
      let changed = 0;
      for (const index of [...plane.pages()]) {
        const page = plane.page(index);
        if (page === ZERO_PAGE || this.#isShort()) continue;
        wordsOf(this.tree.writableBlock(slot * this.#pageCount + index)).set(page);
        if (++changed % SETTLE_PAGES === 0) this.#settle();
      }
    } catch (error) {
      // A page that cannot be read: no record will name the slot, so nothing may be in it.
      this.drop(slot);
      throw error;
    }
  }

  /** What is in both slots goes into the first; the second is empty then. */
  merge(target: number, source: number): void {
    this.#settle();
    for (let index = 0; index < this.#pageCount; index++) {
      const [into, from] = [target, source].map((slot) => slot * this.#pageCount + index);
      const [mine, other] = [this.#page(target, index), this.#page(source, index)];
      const isKept = mine.every((word, i) => (word & ~other[i]) === 0);
      const isEmpty = mine.every((word, i) => (word & other[i]) === 0);
      if (isEmpty || (!isKept && this.#isShort())) this.#makeHole(into);
      else if (!isKept) {
        const words = wordsOf(this.tree.writableBlock(into));
        for (let i = 0; i < PAGE_WORDS; i++) words[i] &= other[i];
      }
      this.#makeHole(from);
    }
  }

  /** Empties a slot. */
  drop(slot: number): void {
    this.#settle();
    for (let index = 0; index < this.#pageCount; index++) {
      this.#makeHole(slot * this.#pageCount + index);
    }
  }

  /** Gives every block of the file back. */
  remove(): void {
    this.tree.truncate(0);
  }

  /** A block that is on disk, or nowhere. */
  #makeHole(block: number): void {
    if (this.tree.pointer(block).vbn !== 0) this.tree.setPointer(block, HOLE);
  }

  /** Writes what was changed: only blocks on disk can become holes. */
  #settle(): void {
    if (!this.tree.isDirty) return;
    while (this.tree.assign());
    this.tree.write();
  }

  #page(slot: number, index: number): Uint32Array {
    return wordsOf(this.tree.block(slot * this.#pageCount + index));
  }
}

/**
 * A slot for one more shadow. If all are taken, the shadows of the two slots with the oldest ones share
 * one from now on: what both have is right for each of them.
 *
 * @returns The slot, and the table with the slots as they are now.
 */
export function slotForShadow(
  table: readonly SnapshotRecord[],
  file: ShadowFile,
): { slot: number; table: readonly SnapshotRecord[] } {
  // The table is in order of age, so slots come in order of the oldest shadow in each.
  const used = [...new Set(table.flatMap(({ slot }) => slot ?? []))];
  for (let slot = 0; slot < SHADOW_SLOTS; slot++) {
    if (!used.includes(slot)) return { slot, table };
  }
  const [target, source] = used;
  file.merge(target, source);
  return {
    slot: source,
    table: table.map((record) => record.slot === source ? { ...record, slot: target } : record),
  };
}

function hasAny(words: Uint32Array, first: number, count: number): boolean {
  if (words === ZERO_PAGE) return false;
  for (let bit = first; bit < first + count; bit++) {
    if ((words[bit >>> 5] >>> (bit & 31) & 1) === 1) return true;
  }
  return false;
}
