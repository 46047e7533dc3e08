/**
 * The blocks of one file: a tree of pointers, 16 (or 1) in the inode, 512 in each block below.
 *
 * Level 0 are the file's blocks, level n are blocks of pointers to level n - 1; a tree of height h
 * has its slots pointing at level h - 1. Changed blocks are kept in memory ("dirty") until the
 * consistency point, in two steps: `assign` gives each a new VBN and frees the old one, `write`
 * writes them from the bottom up, each checksum going into the block above.
 *
 * Invariants:
 * 1. A dirty block's ancestors are dirty.
 * 2. A block read from disk is never changed in place: what is changed is a copy (I2).
 * 3. After `write` nothing is dirty, and the slots reach every block.
 *
 * @module
 */

import { assert, damaged } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checksum,
  HOLE,
  type Pointer,
  POINTERS_PER_BLOCK,
  ZERO_BLOCK,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import type { BlockWindow } from "./block_window.ts";

/** Where a tree that is written gets its VBNs from. */
export interface Allocator {
  /** One free block. */
  allocate(): number;
  /** Gives a block back; it is used again only after the next consistency point. */
  free(vbn: number): void;
  /** Counts blocks kept in memory. */
  dirtied(count: number): void;
}

interface DirtyBlock {
  readonly bytes: Uint8Array;
  readonly oldVbn: number;
  newVbn: number;
}

/**
 * Gets a pointer, its level (0: a block of the file), its number there and the VBN of the block of
 * pointers that has it, 0 where that is the inode. @returns Whether to go below.
 */
export type VisitPointer = (
  pointer: Pointer,
  level: number,
  index: number,
  parent: number,
) => boolean;

/** See the module. */
export class BlockTree {
  /** 0 when there are no blocks. */
  height: number;
  /** The pointers of the inode, 8 bytes each. */
  readonly slots: Uint8Array;
  readonly #io: BlockIo;
  readonly #allocator: Allocator | undefined;
  readonly #slotView: DataView;
  readonly #slotCount: number;
  /** Dirty blocks by level and index. */
  readonly #dirty: Map<number, DirtyBlock>[] = [];
  /** The last pointer block used, since files are mostly read and written in order. */
  #leaf: { index: number; view: DataView } | undefined;

  /** @param allocator Absent for a tree that is only read. */
  constructor(io: BlockIo, height: number, slots: Uint8Array, allocator?: Allocator) {
    this.height = height;
    this.slots = slots;
    this.#io = io;
    this.#allocator = allocator;
    this.#slotView = viewOf(slots);
    this.#slotCount = slots.length / 8;
  }

  /** Whether anything waits for `assign` and `write`. */
  get isDirty(): boolean {
    return this.#dirty.some((level) => level.size > 0);
  }

  /** Whether block `index` is in memory and waits for `assign` and `write`. */
  isChanged(index: number): boolean {
    return this.#dirty[0]?.has(index) ?? false;
  }

  /** Pointer to block `index` of the file; a hole where there is none, or none on disk yet. */
  pointer(index: number): Pointer {
    return this.#pointer(0, index);
  }

  /** Pointer at any level of the tree as it is on disk; a hole where there is none. */
  pointerAt(level: number, index: number): Pointer {
    const top = this.height - 1;
    const slot = Math.floor(index / POINTERS_PER_BLOCK ** Math.max(0, top - level));
    return level > top || slot >= this.#slotCount ? HOLE : this.#pointer(level, index);
  }

  /** Block `index`, read-only for the caller; zeros in a hole. */
  block(index: number): Uint8Array {
    if (this.height === 0) return ZERO_BLOCK;
    return this.#block(0, index) ?? ZERO_BLOCK;
  }

  /** The same of blocks that are looked at once and in order; valid until the next look. */
  look(index: number, window: BlockWindow | undefined): Uint8Array {
    if (window === undefined || this.isChanged(index)) return this.block(index);
    const pointer = this.#pointer(0, index);
    return pointer.vbn === 0 ? ZERO_BLOCK : window.read(pointer);
  }

  /** Block `index` for writing, kept in memory until the consistency point. */
  writableBlock(index: number): Uint8Array {
    this.#grow(index);
    return this.#writable(0, index).bytes;
  }

  /** Points block `index` at a block written already (or at nothing); frees the one before. */
  setPointer(index: number, pointer: Pointer): void {
    if (pointer.vbn === 0 && !this.#covers(index)) return;
    this.#grow(index);
    assert(!this.#dirty[0]?.has(index), "a block is either kept in memory or written at once");
    const old = this.#pointer(0, index).vbn;
    if (old !== 0) this.#writer.free(old);
    if (this.height === 1) putPointer(this.#slotView, index, pointer);
    else {
      const parent = this.#writable(1, index >>> 9);
      putPointer(viewOf(parent.bytes), index & (POINTERS_PER_BLOCK - 1), pointer);
    }
  }

  /** Frees every block from `blockCount` on. */
  truncate(blockCount: number): void {
    if (this.height === 0) return;
    const top = this.height - 1;
    for (let i = 0; i < this.#slotCount; i++) {
      if (this.#cut(top, i, blockCount)) putPointer(this.#slotView, i, HOLE);
    }
    if (blockCount === 0) this.height = 0;
    this.#leaf = undefined;
  }

  /**
   * Gives every dirty block a new VBN.
   * @returns Whether there was any left to do.
   */
  assign(): boolean {
    let any = false;
    for (let level = 0; level < this.height; level++) {
      // A map of this very tree may grow while this loop allocates; new entries are visited too.
      for (const dirty of this.#dirty[level]?.values() ?? []) {
        if (dirty.newVbn !== 0) continue;
        any = true;
        dirty.newVbn = this.#writer.allocate();
        if (dirty.oldVbn !== 0) this.#writer.free(dirty.oldVbn);
      }
    }
    return any;
  }

  /** Writes every dirty block; all have their VBNs. */
  write(): void {
    this.#leaf = undefined;
    let count = 0;
    for (let level = 0; level < this.height; level++) {
      const blocks = this.#dirty[level];
      if (blocks === undefined) continue;
      for (const [index, { bytes, newVbn }] of blocks) {
        assert(newVbn !== 0, "a block is written before it has a place");
        const pointer = { vbn: newVbn, crc: checksum(bytes) };
        this.#io.write(newVbn, pointer.crc, bytes);
        if (level + 1 === this.height) putPointer(this.#slotView, index, pointer);
        else {
          const parent = this.#dirty[level + 1]?.get(index >>> 9);
          assert(parent !== undefined, "the block above a dirty one is dirty");
          putPointer(viewOf(parent.bytes), index & (POINTERS_PER_BLOCK - 1), pointer);
        }
        count++;
      }
      blocks.clear();
    }
    this.#writer.dirtied(-count);
  }

  /**
   * Calls `visit` for each pointer on disk, top down and in order; it says whether to go below.
   * Holes are not visited. Only for trees without dirty blocks.
   */
  forEachPointer(visit: VisitPointer): void {
    for (const _ of this.blocks(visit));
  }

  /** Like {@linkcode forEachPointer}, step by step: yields the blocks of the file that `visit` takes. */
  *blocks(visit: VisitPointer): Generator<{ pointer: Pointer; index: number }> {
    assert(!this.isDirty, "a tree is walked when it is on disk");
    if (this.height === 0) return;
    yield* this.#walk(visit, this.#slotView, {
      count: this.#slotCount,
      level: this.height - 1,
      first: 0,
      parent: 0,
      left: this.#mostPointers(),
    });
  }

  /** A count of pointers that a walk may follow: no block is in a tree twice, so there are no more. */
  #mostPointers(): { count: number } {
    return { count: this.#io.store.capacity };
  }

  *#walk(
    visit: VisitPointer,
    view: DataView,
    at: { count: number; level: number; first: number; parent: number; left: { count: number } },
  ): Generator<{ pointer: Pointer; index: number }> {
    const { level, left } = at;
    for (let i = 0; i < at.count; i++) {
      const pointer = getPointer(view, i);
      const index = at.first + i;
      if (pointer.vbn === 0) continue;
      if (left.count-- === 0) throw inCircles();
      if (!visit(pointer, level, index, at.parent)) continue;
      if (level === 0) yield { pointer, index };
      else {
        yield* this.#walk(visit, viewOf(this.#io.read(pointer)), {
          count: POINTERS_PER_BLOCK,
          level: level - 1,
          first: index * POINTERS_PER_BLOCK,
          parent: pointer.vbn,
          left,
        });
      }
    }
  }

  /**
   * Ascending indexes of the blocks in which two trees of equal height differ, found without
   * reading what they share: equal pointers are equal blocks.
   */
  *differing(other: BlockTree): Generator<number> {
    assert(this.height === other.height, `trees of heights ${this.height} and ${other.height}`);
    if (this.height === 0) return;
    yield* this.#differing(
      this.#slotView,
      other.#slotView,
      {
        count: this.#slotCount,
        level: this.height - 1,
        first: 0,
        // Of each of the two trees.
        left: { count: this.#mostPointers().count * 2 },
      },
    );
  }

  *#differing(
    mine: DataView | undefined,
    theirs: DataView | undefined,
    at: { count: number; level: number; first: number; left: { count: number } },
  ): Generator<number> {
    for (let i = 0; i < at.count; i++) {
      const a = mine === undefined ? HOLE : getPointer(mine, i);
      const b = theirs === undefined ? HOLE : getPointer(theirs, i);
      if (a.vbn === b.vbn && a.crc === b.crc) continue;
      if (at.left.count-- === 0) throw inCircles();
      if (at.level === 0) {
        yield at.first + i;
        continue;
      }
      yield* this.#differing(
        a.vbn === 0 ? undefined : viewOf(this.#io.read(a)),
        b.vbn === 0 ? undefined : viewOf(this.#io.read(b)),
        {
          count: POINTERS_PER_BLOCK,
          level: at.level - 1,
          first: (at.first + i) * POINTERS_PER_BLOCK,
          left: at.left,
        },
      );
    }
  }

  get #writer(): Allocator {
    assert(this.#allocator !== undefined, "a tree that is only read is written");
    return this.#allocator;
  }

  #covers(index: number): boolean {
    return this.height > 0 && index < this.#slotCount * POINTERS_PER_BLOCK ** (this.height - 1);
  }

  #pointer(level: number, index: number): Pointer {
    if (this.height === 0 || (level === 0 && !this.#covers(index))) return HOLE;
    if (level === this.height - 1) return getPointer(this.#slotView, index);
    const above = index >>> 9;
    const entry = index & (POINTERS_PER_BLOCK - 1);
    if (level === 0 && this.#leaf?.index === above) return getPointer(this.#leaf.view, entry);
    const parent = this.#block(level + 1, above);
    if (parent === undefined) return HOLE;
    const view = viewOf(parent);
    if (level === 0) this.#leaf = { index: above, view };
    return getPointer(view, entry);
  }

  #block(level: number, index: number): Uint8Array | undefined {
    const dirty = this.#dirty[level]?.get(index);
    if (dirty !== undefined) return dirty.bytes;
    const pointer = this.#pointer(level, index);
    return pointer.vbn === 0 ? undefined : this.#io.read(pointer);
  }

  #writable(level: number, index: number): DirtyBlock {
    const blocks = this.#dirty[level] ??= new Map();
    let dirty = blocks.get(index);
    if (dirty === undefined) {
      const old = this.#pointer(level, index);
      const bytes = old.vbn === 0 ? new Uint8Array(BLOCK_SIZE) : this.#io.read(old).slice();
      dirty = { bytes, oldVbn: old.vbn, newVbn: 0 };
      blocks.set(index, dirty);
      this.#writer.dirtied(1);
      if (level === 1) this.#leaf = undefined;
      if (level + 1 < this.height) this.#writable(level + 1, index >>> 9);
    }
    return dirty;
  }

  #grow(index: number): void {
    if (this.height === 0) {
      this.height = 1;
      this.slots.fill(0);
    }
    while (!this.#covers(index)) {
      // The slots move into a new block that the first slot will point at.
      if (this.slots.some((byte) => byte !== 0) || this.isDirty) {
        const blocks = this.#dirty[this.height] ??= new Map();
        const bytes = new Uint8Array(BLOCK_SIZE);
        bytes.set(this.slots);
        blocks.set(0, { bytes, oldVbn: 0, newVbn: 0 });
        this.#writer.dirtied(1);
        this.slots.fill(0);
      }
      this.height++;
      this.#leaf = undefined;
    }
  }

  /** Frees what lies at or behind block `from` below (level, index); true when all of it went. */
  #cut(level: number, index: number, from: number): boolean {
    const span = POINTERS_PER_BLOCK ** level;
    const start = index * span;
    if (start + span <= from) return false;
    const dirty = this.#dirty[level]?.get(index);
    const pointer = dirty === undefined ? this.#pointer(level, index) : undefined;
    if (pointer?.vbn === 0) return start >= from;
    if (level > 0) {
      const view = viewOf(dirty?.bytes ?? this.#io.read(pointer!));
      for (let i = 0; i < POINTERS_PER_BLOCK; i++) {
        const below = index * POINTERS_PER_BLOCK + i;
        const present = getPointer(view, i).vbn !== 0 || this.#dirty[level - 1]?.has(below);
        if (!present || !this.#cut(level - 1, below, from) || start >= from) continue;
        putPointer(viewOf(this.#writable(level, index).bytes), i, HOLE);
      }
    }
    if (start < from) return false;
    if (dirty !== undefined) {
      this.#dirty[level].delete(index);
      this.#writer.dirtied(-1);
      const vbn = dirty.newVbn !== 0 ? dirty.newVbn : dirty.oldVbn;
      if (vbn !== 0) this.#writer.free(vbn);
    } else this.#writer.free(pointer!.vbn);
    return true;
  }
}

function inCircles(): Error {
  return damaged(
    "Cannot read a tree of pointers: it has more than the volume has blocks",
    "Run: volcast fsck",
  );
}

/** A view of bytes for reading and writing pointers. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Entry `index` of an array of pointers. */
export function getPointer(view: DataView, index: number): Pointer {
  return { vbn: view.getUint32(index * 8, true), crc: view.getUint32(index * 8 + 4, true) };
}

function putPointer(view: DataView, index: number, pointer: Pointer): void {
  view.setUint32(index * 8, pointer.vbn, true);
  view.setUint32(index * 8 + 4, pointer.crc, true);
}
