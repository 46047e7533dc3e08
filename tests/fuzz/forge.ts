/**
 * A volume whose metadata is changed and whose checksums are right all the same: after a change, every
 * pointer to a changed block gets the new checksum, then every pointer to the block that has it, up to
 * the superblock. What a stranger can make, checksums do not tell.
 *
 * @module
 */

import {
  checksum,
  decodeRoot,
  decodeSuperblock,
  INO,
  INODE_LAYOUT,
  INODE_SIZE,
  INODES_PER_BLOCK,
  POINTER_LAYOUT,
  POINTERS_PER_BLOCK,
  POINTERS_PER_INODE,
  ROOT_LAYOUT,
  SNAPSHOT_LAYOUT,
  SUPERBLOCK_LAYOUT,
} from "../../src/format/mod.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import { sameChecksum } from "../helpers/forge_checksum.ts";
import { copyOf } from "../helpers/stores.ts";
import { fromHex } from "./mutate.ts";
import type { Input, Step } from "./target.ts";

const BLOCK_SIZE = 4096;

/** What a block is for. */
export type Use = "super" | "root" | "inodes" | "pointers" | "content";

/** A block by what it is, so that it is found again when blocks lie elsewhere. */
export interface Place {
  readonly vbn: number;
  readonly use: Use;
  /** Of a block of a file. */
  readonly ino: number;
}

/** Where a pointer to a block lies: byte `at` of block `vbn` has its VBN, the four bytes behind the checksum. */
interface Reference {
  readonly vbn: number;
  readonly at: number;
}

/** The blocks of a volume by their addresses, for example `active/17/0/2`: block 2 of inode 17. */
export class Anatomy {
  readonly store: MemoryStore;
  readonly places = new Map<string, Place>();
  /** VBN -> all pointers to it. */
  readonly references = new Map<number, Reference[]>();
  /** Where checksums of roots stand that are no pointers: in the pointer table. */
  readonly rootNames = new Map<number, Reference[]>();
  /** Inode numbers in use, by file system. */
  readonly inodes = new Map<string, number[]>();
  readonly #roots = new Map<number, string>();
  readonly #names: { crc: number; where: Reference }[] = [];

  constructor(store: MemoryStore) {
    this.store = store;
    const slots = [0, 1].map((vbn) => decodeSuperblock(this.#block(vbn)));
    const vbn = (slots[0]?.sequence ?? 0) > (slots[1]?.sequence ?? 0) ? 0 : 1;
    const superblock = slots[vbn]!;
    this.places.set("super", { vbn, use: "super", ino: 0 });
    this.#root("active", { vbn, at: SUPERBLOCK_LAYOUT.offsetOf("rootVbn") });
    if (superblock.branch !== undefined) {
      this.#root("branch", { vbn, at: SUPERBLOCK_LAYOUT.offsetOf("branchVbn") });
    }
    for (const { crc, where } of this.#names) {
      for (const root of this.#roots.keys()) {
        if (checksum(this.#block(root)) !== crc) continue;
        this.rootNames.set(root, [...this.rootNames.get(root) ?? [], where]);
      }
    }
  }

  #block(vbn: number): Uint8Array<ArrayBuffer> {
    const block = new Uint8Array(BLOCK_SIZE);
    this.store.read(vbn, block);
    return block;
  }

  /** Notes a pointer. @returns The VBN it names, 0: nothing. */
  #refer(where: Reference): number {
    const vbn = new DataView(this.#block(where.vbn).buffer).getUint32(where.at, true);
    if (vbn === 0) return 0;
    const known = this.references.get(vbn) ?? [];
    const isKnown = known.some((one) => one.vbn === where.vbn && one.at === where.at);
    if (!isKnown) this.references.set(vbn, [...known, where]);
    return vbn;
  }

  #root(name: string, where: Reference): void {
    const vbn = this.#refer(where);
    if (this.#roots.has(vbn)) return;
    this.#roots.set(vbn, name);
    this.places.set(`${name}/root`, { vbn, use: "root", ino: 0 });
    const root = decodeRoot(this.#block(vbn));
    const inodes: number[] = [];
    this.inodes.set(name, inodes);
    const at = ROOT_LAYOUT.offsetOf("inodeFile") + INODE_LAYOUT.offsetOf("slots");
    const { height } = root.inodeFile;
    this.#tree(`${name}/i`, { vbn, at }, { height, count: POINTERS_PER_INODE, ino: 0 });
    for (const [address, place] of [...this.places]) {
      if (place.use !== "inodes" || !address.startsWith(`${name}/i/`)) continue;
      this.#inodeBlock(name, place.vbn, Number(address.split("/")[3]), inodes);
    }
    this.#tables(name);
  }

  #inodeBlock(name: string, vbn: number, index: number, inodes: number[]): void {
    const block = this.#block(vbn);
    for (let i = 0; i < INODES_PER_BLOCK; i++) {
      const inode = INODE_LAYOUT.read(block, i * INODE_SIZE);
      const ino = index * INODES_PER_BLOCK + i;
      if (inode.mode === 0 || ino === 0) continue;
      inodes.push(ino);
      const field = (of: "slots" | "attributeVbn") => ({
        vbn,
        at: i * INODE_SIZE + INODE_LAYOUT.offsetOf(of),
      });
      const tree = { height: inode.height, count: POINTERS_PER_INODE, ino };
      this.#tree(`${name}/${ino}`, field("slots"), tree);
      const more = { height: inode.attributeHeight, count: 1, ino };
      this.#tree(`${name}/${ino}a`, field("attributeVbn"), more);
    }
  }

  #tree(
    name: string,
    from: Reference,
    { height, count, ino }: { height: number; count: number; ino: number },
    first = 0,
  ): void {
    if (height === 0) return;
    const level = height - 1;
    for (let i = 0; i < count; i++) {
      const vbn = this.#refer({ vbn: from.vbn, at: from.at + i * 8 });
      if (vbn === 0) continue;
      const use = level > 0 ? "pointers" : ino === 0 ? "inodes" : "content";
      this.places.set(`${name}/${level}/${first + i}`, { vbn, use, ino });
      if (level === 0) continue;
      const below = { height: level, count: POINTERS_PER_BLOCK, ino };
      this.#tree(name, { vbn, at: 0 }, below, (first + i) * POINTERS_PER_BLOCK);
    }
  }

  /** What the snapshot table and the pointer table refer to. */
  #tables(name: string): void {
    for (let index = 0;; index++) {
      const table = this.places.get(`${name}/${INO.snapshots}/0/${index}`);
      if (table === undefined) break;
      for (let at = 0; at < BLOCK_SIZE; at += SNAPSHOT_LAYOUT.size) {
        const record = SNAPSHOT_LAYOUT.read(this.#block(table.vbn), at);
        if (record.cp === 0 || record.kind !== 0) continue;
        const text = new TextDecoder().decode(record.name.subarray(0, record.nameLength));
        this.#root(text, { vbn: table.vbn, at: at + SNAPSHOT_LAYOUT.offsetOf("rootVbn") });
      }
    }
    const table = this.places.get(`${name}/${INO.pointers}/0/0`);
    if (table === undefined) return;
    for (let at = 0; at < BLOCK_SIZE; at += POINTER_LAYOUT.size) {
      const { cp, rootCrc } = POINTER_LAYOUT.read(this.#block(table.vbn), at);
      // Written as if a VBN stood before it.
      const where = { vbn: table.vbn, at: at + POINTER_LAYOUT.offsetOf("rootCrc") - 4 };
      if (cp !== 0) this.#names.push({ crc: rootCrc, where });
    }
  }
}

/** Rounds of new checksums after which a circle is left as it is. */
const MAX_ROUNDS = 64;

/**
 * A copy of a volume with changes, sealed again.
 *
 * Steps: `set` puts bytes (`hex`) at byte `offset` of the block `at`; `point` puts a pointer to the block
 * `to` there (an address, or a VBN), with the right checksum; `copy` gives the block `at` the content of
 * the block `to`. With `same` the last four bytes of the block make up for a change instead of new
 * checksums above: so circles can be made.
 */
export function forged(anatomy: Anatomy, steps: Input): MemoryStore {
  const store = copyOf(anatomy.store);
  const forger = new Forger(anatomy, store);
  for (const step of steps) forger.apply(step);
  forger.seal();
  return store;
}

class Forger {
  readonly #anatomy: Anatomy;
  readonly #store: MemoryStore;
  readonly #references: Map<number, Reference[]>;
  readonly #changed = new Set<number>();
  readonly #super: number;

  constructor(anatomy: Anatomy, store: MemoryStore) {
    this.#anatomy = anatomy;
    this.#store = store;
    this.#references = new Map(anatomy.references);
    this.#super = anatomy.places.get("super")!.vbn;
  }

  apply(step: Step): void {
    const place = this.#anatomy.places.get(String(step.at));
    if (place === undefined) return;
    const offset = Math.min(Number(step.offset ?? 0), BLOCK_SIZE - 1);
    if (step.op === "set") this.#put(place.vbn, offset, fromHex(String(step.hex)), step);
    else if (step.op === "point") this.#point(place.vbn, Math.min(offset, BLOCK_SIZE - 8), step);
    else if (step.op === "copy") {
      const from = this.#anatomy.places.get(String(step.to));
      if (from !== undefined) this.#put(place.vbn, 0, this.#block(from.vbn), step);
    }
  }

  #block(vbn: number): Uint8Array<ArrayBuffer> {
    const block = new Uint8Array(BLOCK_SIZE);
    this.#store.read(vbn, block);
    return block;
  }

  #put(vbn: number, offset: number, bytes: Uint8Array, step: Step): void {
    const block = this.#block(vbn);
    const change = bytes.subarray(0, BLOCK_SIZE - offset);
    if (step.same === true && offset + change.length <= BLOCK_SIZE - 4) {
      this.#store.write(vbn, sameChecksum(block, change, offset));
      return;
    }
    block.set(change, offset);
    this.#store.write(vbn, block);
    this.#changed.add(vbn);
  }

  #point(vbn: number, offset: number, step: Step): void {
    const to = this.#anatomy.places.get(String(step.to))?.vbn ?? Number(step.to);
    const isHere = to < this.#store.capacity;
    const pointer = new Uint8Array(8);
    const view = new DataView(pointer.buffer);
    view.setUint32(0, to, true);
    view.setUint32(4, isHere ? checksum(this.#block(to)) : 0, true);
    for (const [target, list] of this.#references) {
      const rest = list.filter((one) => one.vbn !== vbn || one.at !== offset);
      if (rest.length < list.length) this.#references.set(target, rest);
    }
    this.#put(vbn, offset, pointer, step);
    if (!isHere || step.same === true) return;
    this.#references.set(to, [...this.#references.get(to) ?? [], { vbn, at: offset }]);
  }

  /** Gives every pointer to a changed block the block's checksum. */
  seal(): void {
    for (let round = 0; round < MAX_ROUNDS && this.#changed.size > 0; round++) {
      const changed = [...this.#changed];
      this.#changed.clear();
      for (const vbn of changed) this.#sealOne(vbn);
    }
  }

  #sealOne(vbn: number): void {
    if (vbn === this.#super) {
      const block = this.#block(vbn);
      const at = SUPERBLOCK_LAYOUT.offsetOf("crc");
      new DataView(block.buffer).setUint32(at, checksum(block.subarray(0, at)), true);
      this.#store.write(vbn, block);
      return;
    }
    const crc = checksum(this.#block(vbn));
    const where = [
      ...this.#references.get(vbn) ?? [],
      ...this.#anatomy.rootNames.get(vbn) ?? [],
    ];
    for (const { vbn: from, at } of where) {
      const block = this.#block(from);
      const view = new DataView(block.buffer);
      if (view.getUint32(at + 4, true) === crc) continue;
      view.setUint32(at + 4, crc, true);
      this.#store.write(from, block);
      this.#changed.add(from);
    }
  }
}
