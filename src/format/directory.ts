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
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Makes the block an empty page of a kind; what page 0 says of the whole directory stays. */
  format(kind: number): void {
    this.bytes.fill(0, 0, 8);
    this.bytes.fill(0, HEADER);
    this.#view.setUint8(0, kind);
    this.#view.setUint16(4, BLOCK_SIZE, true);
  }

  /** One of {@linkcode PAGE_KIND}. */
  get kind(): number {
    return this.#view.getUint8(0);
  }
  /** Entries in this page. */
  get count(): number {
    return this.#view.getUint16(2, true);
  }
  /** Offset of the heap. */
  get heapStart(): number {
    return this.#view.getUint16(4, true);
  }
  /** Bytes of the heap that no slot reaches. */
  get garbage(): number {
    return this.#view.getUint16(6, true);
  }
  /** In page 0: entries of the whole directory. */
  get entries(): number {
    return this.#view.getUint32(8, true);
  }
  set entries(value: number) {
    this.#view.setUint32(8, value, true);
  }
  /** In page 0 and in free pages: the next free page, 0: none. */
  get free(): number {
    return this.#view.getUint32(12, true);
  }
  set free(value: number) {
    this.#view.setUint32(12, value, true);
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
    const at = slot + 2 <= BLOCK_SIZE ? this.#view.getUint16(slot, true) : BLOCK_SIZE;
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
    return this.#view.getUint32(this.#offset(index), true);
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
    this.#view.setUint32(at, value, true);
    this.#view.setUint8(at + 4, type);
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
    this.#view.setUint32(at, value, true);
    this.#view.setUint8(at + 4, type);
    this.#view.setUint8(at + 5, name.length);
    this.bytes.set(name, at + ENTRY_HEADER);
    const slot = HEADER + index * 2;
    this.bytes.copyWithin(slot + 2, slot, HEADER + this.count * 2);
    this.#view.setUint16(slot, at, true);
    this.#view.setUint16(2, this.count + 1, true);
    this.#view.setUint16(4, at, true);
  }

  /** Takes the entry at `index` out. */
  remove(index: number): void {
    const garbage = this.garbage + ENTRY_HEADER + this.name(index).length;
    const slot = HEADER + index * 2;
    this.bytes.copyWithin(slot, slot + 2, HEADER + this.count * 2);
    this.#view.setUint16(2, this.count - 1, true);
    this.#view.setUint16(6, garbage, true);
    if (this.count === 0) {
      this.#view.setUint16(4, BLOCK_SIZE, true);
      this.#view.setUint16(6, 0, true);
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
      const at = this.#view.getUint16(HEADER + i * 2, true);
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
