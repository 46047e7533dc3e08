/**
 * Walking every pointer that a root reaches.
 *
 * @module
 */

import {
  BLOCK_SIZE,
  decodeInode,
  decodeRoot,
  type Inode,
  INODE_SIZE,
  INODES_PER_BLOCK,
  type Pointer,
  POINTERS_PER_BLOCK,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import { BlockTree, type VisitPointer } from "./block_tree.ts";
import { attributeTree } from "./file_system.ts";

/** Blocks of content that are read and checked at once. */
const CHECK_BLOCKS = 256;

/** What a pointer points at. */
export type BlockUse =
  /** The root itself. */
  | "root"
  /** A block of pointers. */
  | "pointers"
  /** A block of inodes. */
  | "inodes"
  /** A block of a file's content (of a directory, of a metafile, of extended attributes too). */
  | "content";

/** Where a pointer is in the tree of its inode. */
export interface TreePlace {
  /** 0: it points at a block of the file. */
  readonly level: number;
  /** Number of the block there. */
  readonly index: number;
  /** Whether the tree is that of the inode's extended attributes. */
  readonly isAttribute: boolean;
}

/**
 * Gets a pointer, what it is used for, the inode it belongs to (0: the inode file), the VBN of the
 * block that has it (0: the superblock), and its place in the tree of that inode.
 */
export type Visit = (
  pointer: Pointer,
  use: BlockUse,
  ino: number,
  parent: number,
  place: TreePlace,
) => boolean;

/** See {@linkcode walkSteps}. */
export interface WalkOptions {
  readonly from?: number;
  readonly isKnown?: ((ino: number, block: Uint8Array, offset: number) => boolean) | undefined;
}

const ROOT_PLACE: TreePlace = { level: 0, index: 0, isAttribute: false };

/**
 * Calls `visit` for every pointer below a root, top down. Where it returns false nothing below is
 * visited; where it returns true for anything but content, the block is read (and its checksum
 * checked) and what it points at follows.
 *
 * @throws {VolcastError} `damaged` from reading; a visitor that wants to go on reads the block itself
 *   first.
 */
export function walkRoot(io: BlockIo, root: Pointer, visit: Visit): void {
  for (const _ of walkSteps(io, root, visit));
}

/**
 * Like {@linkcode walkRoot}, yielding after each block of content: for {@linkcode paced}.
 *
 * @param options.from Blocks of the inode file before this one, and what is below them, are not visited.
 * @param options.isKnown Whether nothing below the inode at an offset of a block needs to be visited.
 * @returns Yields the number of the next block of the inode file when one is done with all below it.
 */
export function* walkSteps(
  io: BlockIo,
  root: Pointer,
  visit: Visit,
  { from = 0, isKnown }: WalkOptions = {},
): Generator<number | undefined> {
  if (!visit(root, "root", 0, 0, ROOT_PLACE)) return;
  const { inodeFile, inodeLimit } = decodeRoot(io.read(root));
  const tree = new BlockTree(io, inodeFile.height, inodeFile.slots);
  const blocks = tree.blocks((pointer, level, index, parent) =>
    (index + 1) * POINTERS_PER_BLOCK ** level > from &&
    visit(pointer, level === 0 ? "inodes" : "pointers", 0, parent || root.vbn, {
      level,
      index,
      isAttribute: false,
    })
  );
  for (const { pointer, index } of blocks) {
    const block = io.read(pointer);
    for (let i = 0; i < INODES_PER_BLOCK; i++) {
      const ino = index * INODES_PER_BLOCK + i;
      if (ino === 0 || ino >= inodeLimit) continue;
      if (isKnown?.(ino, block, i * INODE_SIZE) === true) continue;
      const inode = decodeInode(block, i * INODE_SIZE);
      if (inode.mode === 0) continue;
      yield* inodeSteps(
        io,
        inode,
        (p, use, parent, place) => visit(p, use, ino, parent || pointer.vbn, place),
      );
    }
    yield index + 1;
  }
}

function* inodeSteps(
  io: BlockIo,
  inode: Inode,
  visit: (pointer: Pointer, use: BlockUse, parent: number, place: TreePlace) => boolean,
): Generator<undefined> {
  const takeAs = (isAttribute: boolean): VisitPointer => (pointer, level, index, parent) =>
    visit(pointer, level === 0 ? "content" : "pointers", parent, { level, index, isAttribute });
  const tree = new BlockTree(io, inode.height, inode.slots);
  for (const _ of tree.blocks(takeAs(false))) yield undefined;
  if (inode.attributeHeight === 0) return;
  for (const _ of attributeTree(io, inode).blocks(takeAs(true))) yield undefined;
}

/**
 * Reads blocks of content in batches and checks their checksums; neighbours on disk are read with
 * one call. Use: `add` each, then `flush`.
 */
export class ContentChecker {
  readonly #io: BlockIo;
  readonly #failed: (vbn: number, error: unknown, block: { crc: number; ino: number }) => void;
  readonly #buffer = new Uint8Array(CHECK_BLOCKS * BLOCK_SIZE);
  #start = 0;
  #crcs: number[] = [];
  #inos: number[] = [];

  /** @param failed Called for each block that cannot be read or does not match. */
  constructor(
    io: BlockIo,
    failed: (vbn: number, error: unknown, block: { crc: number; ino: number }) => void,
  ) {
    this.#io = io;
    this.#failed = failed;
  }

  /** Takes a block to be checked. @param ino Whose it is, for whoever is told that it is bad. */
  add(pointer: Pointer, ino = 0): void {
    const follows = pointer.vbn === this.#start + this.#crcs.length;
    if (!follows || this.#crcs.length === CHECK_BLOCKS) {
      this.flush();
      this.#start = pointer.vbn;
    }
    this.#crcs.push(pointer.crc);
    this.#inos.push(ino);
  }

  /** Checks what is left. */
  flush(): void {
    const [crcs, inos] = [this.#crcs, this.#inos];
    this.#crcs = [];
    this.#inos = [];
    if (crcs.length === 0) return;
    try {
      this.#io.readRun(this.#start, crcs, this.#buffer.subarray(0, crcs.length * BLOCK_SIZE));
    } catch {
      // One of them: find out which.
      for (const [i, crc] of crcs.entries()) {
        try {
          this.#io.readRun(this.#start + i, [crc], this.#buffer.subarray(0, BLOCK_SIZE));
        } catch (error) {
          this.#failed(this.#start + i, error, { crc, ino: inos[i] });
        }
      }
    }
  }
}
