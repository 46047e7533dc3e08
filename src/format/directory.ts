/**
 * Pages of a directory: each is one block, a node of a B+ tree ordered by the bytes of names.
 *
 * A page has a header, an array of slots (u16 offsets, in order of names) growing up behind it, and
 * a heap of entries growing down from the end. An entry of a leaf is `u32 inode, u8 type, u8 name
 * length, name`; one of a branch is `u32 child page, u8 0, u8 name length, name`, where the name is
 * the least one in the child (empty in the first entry). Page 0 is the root of the tree.
 *
 * Invariants:
 * 1. Slots are in strictly ascending order of names.
 * 2. Slots and heap do not overlap; every entry lies in the heap.
 * 3. `garbage` is the number of heap bytes that no slot reaches.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { BLOCK_SIZE } from "./block.ts";
import { defineLayout } from "./layout.ts";

/** Table of a directory page's header. */
export const DIRECTORY_PAGE_LAYOUT = defineLayout("directory page", 16, [
  ["kind", "u8", 1, "1 leaf, 2 branch, 3 free"],
  ["_reserved", "zero", 1, "reserved"],
  ["count", "u16", 2, "entries"],
  ["heapStart", "u16", 2, "offset of the heap; 4096 when empty"],
  ["garbage", "u16", 2, "bytes of the heap not reached by a slot"],
  ["entries", "u32", 4, "in page 0: entries of the whole directory"],
  ["free", "u32", 4, "in page 0 and free pages: next free page, 0: none"],
]);

/** Kinds of pages. */
export const PAGE_KIND = { leaf: 1, branch: 2, free: 3 } as const;

const HEADER = DIRECTORY_PAGE_LAYOUT.size;
const ENTRY_HEADER = 6;

/** Type codes of entries, so that a listing need not read inodes. */
export const ENTRY_TYPES = [
  "file",
  "directory",
  "symlink",
  "charDevice",
  "blockDevice",
  "fifo",
  "socket",
] as const;

/**
 * A directory page over the bytes of its block. All access is by offset: a lookup in a directory of
 * a million names must not decode a page of them.
 */
export class DirectoryPage {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Makes the block an empty page of a kind; what page 0 says of the whole directory stays. */
  format(kind: number): void {
    this.bytes.fill(0, 0, 8);
    this.bytes.fill(0, HEADER);
    this.bytes[0] = kind;
    putU16(this.bytes, 4, BLOCK_SIZE);
  }

  /** One of {@linkcode PAGE_KIND}. */
  get kind(): number {
    return this.bytes[0];
  }
  /** Entries in this page. */
  get count(): number {
    return getU16(this.bytes, 2);
  }
  /** Offset of the heap. */
  get heapStart(): number {
    return getU16(this.bytes, 4);
  }
  /** Bytes of the heap that no slot reaches. */
  get garbage(): number {
    return getU16(this.bytes, 6);
  }
  /** In page 0: entries of the whole directory. */
  get entries(): number {
    return getU32(this.bytes, 8);
  }
  set entries(value: number) {
    putU32(this.bytes, 8, value);
  }
  /** In page 0 and in free pages: the next free page, 0: none. */
  get free(): number {
    return getU32(this.bytes, 12);
  }
  set free(value: number) {
    putU32(this.bytes, 12, value);
  }

  /** Bytes an entry with this name takes, its slot included. */
  static costOf(name: Uint8Array): number {
    return ENTRY_HEADER + name.length + 2;
  }

  /** Bytes in use by slots and entries. */
  get used(): number {
    return this.count * 2 + BLOCK_SIZE - this.heapStart - this.garbage;
  }

  /** Whether an entry with this name fits, after compaction at the latest. */
  fits(name: Uint8Array): boolean {
    return HEADER + this.used + DirectoryPage.costOf(name) <= BLOCK_SIZE;
  }

  /** Where an entry lies. @throws {VolcastError} `damaged` when it does not lie within the page. */
  #offset(index: number): number {
    const slot = HEADER + index * 2;
    const at = slot + 2 <= BLOCK_SIZE ? getU16(this.bytes, slot) : BLOCK_SIZE;
    if (
      at < HEADER || at + ENTRY_HEADER > BLOCK_SIZE ||
      at + ENTRY_HEADER + this.bytes[at + 5] > BLOCK_SIZE
    ) {
      throw damaged(
        `Cannot read a directory page: entry ${index} of ${this.count} lies at ${at}, ` +
          `not within ${BLOCK_SIZE} bytes`,
      );
    }
    return at;
  }

  /** The inode (leaf) or child page (branch) of entry `index`. */
  value(index: number): number {
    return getU32(this.bytes, this.#offset(index));
  }
  /** Code of the entry's type, an index into {@linkcode ENTRY_TYPES}. */
  type(index: number): number {
    return this.bytes[this.#offset(index) + 4];
  }
  /** The entry's name; a view of the page, valid until it changes. */
  name(index: number): Uint8Array {
    const at = this.#offset(index);
    return this.bytes.subarray(at + ENTRY_HEADER, at + ENTRY_HEADER + this.bytes[at + 5]);
  }
  /** Gives entry `index` another inode or child. */
  setValue(index: number, value: number, type: number): void {
    const at = this.#offset(index);
    putU32(this.bytes, at, value);
    this.bytes[at + 4] = type;
  }

  /** First index whose name is not less than `name`. */
  lowerBound(name: Uint8Array): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(middle, name) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Index of `name`, or -1. */
  find(name: Uint8Array): number {
    const index = this.lowerBound(name);
    return index < this.count && this.#compare(index, name) === 0 ? index : -1;
  }

  #compare(index: number, name: Uint8Array): number {
    const at = this.#offset(index) + ENTRY_HEADER;
    const length = this.bytes[at - 1];
    const common = Math.min(length, name.length);
    for (let i = 0; i < common; i++) {
      const order = this.bytes[at + i] - name[i];
      if (order !== 0) return order;
    }
    return length - name.length;
  }

  /** Puts an entry at `index`; the caller has checked that it fits and that order is kept. */
  insert(index: number, name: Uint8Array, value: number, type: number): void {
    const size = ENTRY_HEADER + name.length;
    if (HEADER + this.count * 2 + 2 + size > this.heapStart) this.#compact();
    const at = this.heapStart - size;
    putU32(this.bytes, at, value);
    this.bytes[at + 4] = type;
    this.bytes[at + 5] = name.length;
    this.bytes.set(name, at + ENTRY_HEADER);
    const slot = HEADER + index * 2;
    this.bytes.copyWithin(slot + 2, slot, HEADER + this.count * 2);
    putU16(this.bytes, slot, at);
    putU16(this.bytes, 2, this.count + 1);
    putU16(this.bytes, 4, at);
  }

  /** Takes the entry at `index` out. */
  remove(index: number): void {
    const garbage = this.garbage + ENTRY_HEADER + this.name(index).length;
    const slot = HEADER + index * 2;
    this.bytes.copyWithin(slot, slot + 2, HEADER + this.count * 2);
    putU16(this.bytes, 2, this.count - 1);
    putU16(this.bytes, 6, garbage);
    if (this.count === 0) {
      putU16(this.bytes, 4, BLOCK_SIZE);
      putU16(this.bytes, 6, 0);
    }
  }

  /** Moves the entries from `from` on to the end of `target`. */
  moveTail(from: number, target: DirectoryPage): void {
    for (let i = from; i < this.count; i++) {
      target.insert(target.count, this.name(i), this.value(i), this.type(i));
    }
    while (this.count > from) this.remove(this.count - 1);
  }

  #compact(): void {
    const copy = new DirectoryPage(this.bytes.slice());
    this.format(copy.kind);
    for (let i = 0; i < copy.count; i++) this.insert(i, copy.name(i), copy.value(i), copy.type(i));
  }

  /**
   * Checks invariants 1 to 3.
   * @throws {VolcastError} `damaged`, saying what is wrong.
   */
  verify(): void {
    const fail = (what: string): never => {
      throw damaged(`Cannot read a directory page: ${what}`);
    };
    if (this.kind !== PAGE_KIND.leaf && this.kind !== PAGE_KIND.branch) fail(`kind ${this.kind}`);
    const slotsEnd = HEADER + this.count * 2;
    if (slotsEnd > this.heapStart || this.heapStart > BLOCK_SIZE) {
      fail(`${this.count} slots run into the heap at ${this.heapStart}`);
    }
    let reached = 0;
    for (let i = 0; i < this.count; i++) {
      const at = getU16(this.bytes, HEADER + i * 2);
      if (at < this.heapStart || at + ENTRY_HEADER > BLOCK_SIZE) fail(`entry ${i} lies at ${at}`);
      const size = ENTRY_HEADER + this.bytes[at + 5];
      if (at + size > BLOCK_SIZE) fail(`entry ${i} ends behind the page`);
      reached += size;
      if (i > 0 && this.#compare(i - 1, this.name(i)) >= 0) fail(`entry ${i} is out of order`);
    }
    if (reached + this.garbage !== BLOCK_SIZE - this.heapStart) {
      fail(`${reached} bytes reached and ${this.garbage} of garbage in the heap`);
    }
  }
}

// A view made for each look at a page costs more than the look.

function getU16(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}

function getU32(bytes: Uint8Array, at: number): number {
  return (getU16(bytes, at) | getU16(bytes, at + 2) << 16) >>> 0;
}

function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  putU16(bytes, at, value);
  putU16(bytes, at + 2, value >>> 16);
}
