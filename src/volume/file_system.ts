/**
 * A file system as of one root: look-ups, listings, reading. Everything here works the same on a
 * snapshot, on the last consistency point and (through {@linkcode LiveFileSystem}) on the file
 * system that is being written.
 *
 * @module
 */

import { damaged, divCeil, VolcastError } from "../core/mod.ts";
import {
  type Attributes,
  BLOCK_SIZE,
  checkStoredName,
  decodeAttributes,
  decodeInode,
  decodeInodeHead,
  INLINE_SIZE,
  INO,
  type Inode,
  INODE_SIZE,
  type InodeHead,
  INODES_PER_BLOCK,
  MAX_LINK_BYTES,
  NO_ATTRIBUTES,
  type Root,
  type TypeName,
  typeOfMode,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import { type Allocator, BlockTree } from "./block_tree.ts";
import { BlockWindow } from "./block_window.ts";
import { Directory, type DirectoryEntry } from "./directory.ts";

/** Symbolic links followed in one path before it counts as a loop. */
const MAX_LINKS = 40;
const MAX_OPEN = 2048;

/** An inode with its blocks. */
export interface OpenInode {
  readonly ino: number;
  readonly inode: Inode;
  readonly tree: BlockTree;
}

/** What is known of a file without reading it. Times are ns since 1970. */
export interface FileInfo {
  readonly ino: number;
  readonly type: TypeName;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly size: number;
  readonly atime: bigint;
  readonly mtime: bigint;
  readonly ctime: bigint;
  readonly btime: bigint;
  readonly rdev: number;
  readonly dos: number;
  readonly generation: number;
  /** CP in which content or attributes changed last; with inode and generation it names the state. */
  readonly version: number;
}

/** See the module. */
export class FileSystem {
  readonly root: Root;
  /** Verified access to blocks. */
  protected readonly io: BlockIo;
  /** The blocks of the inode file. */
  protected readonly inodeTree: BlockTree;
  /** Absent where the file system is only read. */
  protected readonly allocator: Allocator | undefined;
  readonly #opened = new Map<number, OpenInode>();
  /** There where much is looked at in a row; what is only read may come from far, block by block. */
  readonly #inodeWindow: BlockWindow | undefined;
  readonly #pageWindow: BlockWindow | undefined;

  constructor(io: BlockIo, root: Root, allocator?: Allocator) {
    this.io = io;
    if (allocator !== undefined) {
      this.#inodeWindow = new BlockWindow(io);
      this.#pageWindow = new BlockWindow(io);
    }
    this.root = root;
    this.allocator = allocator;
    // The file of inodes has no holes, so there are no more than fit into the volume.
    if (root.inodeLimit > io.store.capacity * INODES_PER_BLOCK) {
      throw damaged(
        `Cannot read the root: inodes below ${root.inodeLimit} in a volume of ${io.store.capacity} blocks`,
      );
    }
    const file = root.inodeFile;
    this.inodeTree = new BlockTree(io, file.height, file.slots.slice(), allocator);
  }

  /** Inode numbers in use lie below this. */
  get inodeLimit(): number {
    return this.root.inodeLimit;
  }

  /** An inode with its blocks. @throws {VolcastError} `damaged` when the number is out of bounds or free. */
  open(ino: number): OpenInode {
    const known = this.#opened.get(ino);
    if (known !== undefined) return known;
    const inode = this.readInode(ino);
    if (inode.mode === 0) throw freeInode(ino);
    const opened = this.makeOpen(ino, inode);
    if (this.#opened.size >= MAX_OPEN) this.#opened.clear();
    this.#opened.set(ino, opened);
    return opened;
  }

  /**
   * An inode to look at: nothing is kept for it, as is for one whose blocks are read. Those that follow
   * each other come fastest.
   * @throws {VolcastError} As {@linkcode FileSystem.open}.
   */
  inodeOf(ino: number): InodeHead {
    const known = this.#opened.get(ino);
    if (known !== undefined) return known.inode;
    const inode = decodeInodeHead(this.#inodeBlock(ino), (ino % INODES_PER_BLOCK) * INODE_SIZE);
    if (inode.mode === 0) throw freeInode(ino);
    return inode;
  }

  /** The inode as stored, free or not. */
  readInode(ino: number): Inode {
    return decodeInode(this.#inodeBlock(ino), (ino % INODES_PER_BLOCK) * INODE_SIZE);
  }

  /** The block an inode lies in; valid until the next one is asked for. */
  #inodeBlock(ino: number): Uint8Array {
    if (ino < 1 || ino >= this.inodeLimit) {
      throw damaged(`Cannot open inode ${ino}: the limit is ${this.inodeLimit}`);
    }
    return this.inodeTree.look(Math.floor(ino / INODES_PER_BLOCK), this.#inodeWindow);
  }

  /** Whether an inode is stored here with the very bytes that it has at an offset of a block. */
  isStored(ino: number, block: Uint8Array, offset: number): boolean {
    if (ino < 1 || ino >= this.inodeLimit) return false;
    const here = this.inodeTree.block(Math.floor(ino / INODES_PER_BLOCK));
    const difference = (ino % INODES_PER_BLOCK) * INODE_SIZE - offset;
    for (let at = offset; at < offset + INODE_SIZE; at++) {
      if (block[at] !== here[at + difference]) return false;
    }
    return true;
  }

  /** Joins an inode and its blocks. */
  protected makeOpen(ino: number, inode: Inode): OpenInode {
    const tree = new BlockTree(this.io, inode.height, inode.slots, this.allocator);
    return { ino, inode, tree };
  }

  /** The inode changed: what is kept of it is stale. */
  protected forget(ino: number): void {
    this.#opened.delete(ino);
  }

  /** The blocks of the inode file itself. */
  get inodeFileTree(): BlockTree {
    return this.inodeTree;
  }

  /** What is known of a file. */
  stat(ino: number): FileInfo {
    const { inode } = this.open(ino);
    return {
      ino,
      type: typeOfMode(inode.mode),
      mode: inode.mode,
      uid: inode.uid,
      gid: inode.gid,
      nlink: inode.nlink,
      size: inode.size,
      atime: inode.atime,
      mtime: inode.mtime,
      ctime: inode.ctime,
      btime: inode.btime,
      rdev: inode.rdev,
      dos: inode.dos,
      generation: inode.generation,
      version: inode.version,
    };
  }

  /** The directory of an inode. @throws {VolcastError} `usage` when it is none. */
  directory(ino: number): Directory {
    const { inode, tree } = this.open(ino);
    if (typeOfMode(inode.mode) !== "directory") {
      throw new VolcastError("usage", `Cannot look into inode ${ino}: it is not a directory`);
    }
    return new Directory(tree, pagesOf(inode), this.#pageWindow);
  }

  /** The inode number of a name in a directory. */
  lookup(directory: number, name: string): number | undefined {
    return this.directory(directory).find(name)?.ino;
  }

  /** Entries of a directory in order of name, those behind `after` only. */
  *list(directory: number, after?: string): Generator<DirectoryEntry> {
    for (const entry of this.directory(directory).entries(after)) {
      checkStoredName(entry.name);
      yield entry;
    }
  }

  /**
   * The inode at a path, `/` between names, symbolic links followed inside the volume.
   *
   * @param options.followLast Whether a link at the end is followed; yes by default.
   * @throws {VolcastError} `not-found`, or `usage` for `..` and NUL.
   */
  resolve(path: string, options: { followLast?: boolean } = {}): number {
    let links = 0;
    const walk = (from: number[], text: string, followLast: boolean): number[] => {
      let trail = text.startsWith("/") ? [INO.root as number] : from;
      const names = text.split("/").filter((name) => name !== "" && name !== ".");
      for (const [index, name] of names.entries()) {
        const last = index === names.length - 1;
        if (name === "..") {
          trail = trail.length > 1 ? trail.slice(0, -1) : trail;
          continue;
        }
        const here = trail[trail.length - 1];
        if (typeOfMode(this.open(here).inode.mode) !== "directory") throw notFound(path);
        const found = this.directory(here).find(name);
        if (found === undefined) throw notFound(path);
        if (found.type !== "symlink" || (last && !followLast)) {
          trail = [...trail, found.ino];
          continue;
        }
        if (++links > MAX_LINKS) {
          throw new VolcastError("not-found", `Cannot find '${path}': too many symbolic links`);
        }
        trail = walk(trail, this.readLink(found.ino), true);
      }
      return trail;
    };
    checkPath(path);
    return walk([INO.root], path, options.followLast ?? true).at(-1)!;
  }

  /** Target of a symbolic link. */
  readLink(ino: number): string {
    const { inode } = this.open(ino);
    if (typeOfMode(inode.mode) !== "symlink" || inode.size > MAX_LINK_BYTES) {
      throw damaged(
        `Cannot read inode ${ino} as a symbolic link: it is a ${typeOfMode(inode.mode)} of ` +
          `${inode.size} bytes, the limit is ${MAX_LINK_BYTES}`,
      );
    }
    const bytes = new Uint8Array(inode.size);
    this.read(ino, 0, bytes);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  /** Extended attributes of a file. */
  attributes(ino: number): Attributes {
    const { inode } = this.open(ino);
    if (inode.attributeSize === 0) return NO_ATTRIBUTES;
    const tree = attributeTree(this.io, inode);
    const bytes = new Uint8Array(inode.attributeSize);
    for (let at = 0; at < bytes.length; at += BLOCK_SIZE) {
      const block = tree.block(at / BLOCK_SIZE);
      bytes.set(block.subarray(0, Math.min(BLOCK_SIZE, bytes.length - at)), at);
    }
    return decodeAttributes(bytes);
  }

  /**
   * Reads content from `offset` on. Behind the end of the file, `target` may be filled with zeros up
   * to the end of its last block; a buffer of whole blocks is read fastest.
   *
   * @returns Bytes read; fewer than `target` has only at the end of the file.
   * @throws {VolcastError} `damaged` when a block's checksum does not match (I1).
   */
  read(ino: number, offset: number, target: Uint8Array): number {
    const { inode, tree } = this.open(ino);
    const length = Math.max(0, Math.min(target.length, inode.size - offset));
    if (length === 0) return 0;
    if (tree.height === 0) {
      // No blocks: the content lies in the inode, or the file is one hole.
      if (inode.size <= INLINE_SIZE) target.set(inode.slots.subarray(offset, offset + length));
      else target.fill(0, 0, length);
      return length;
    }
    // Where the buffer has room for all of the last block, that is read with those before it.
    const room = Math.min(
      target.length,
      divCeil(offset + length, BLOCK_SIZE) * BLOCK_SIZE - offset,
    );
    let done = 0;
    while (done < length) {
      const index = Math.floor((offset + done) / BLOCK_SIZE);
      const within = (offset + done) % BLOCK_SIZE;
      if (within === 0 && room - done >= BLOCK_SIZE) {
        done += this.#readWhole(tree, index, target.subarray(done, room));
        continue;
      }
      const count = Math.min(BLOCK_SIZE - within, length - done);
      target.set(tree.block(index).subarray(within, within + count), done);
      done += count;
    }
    return length;
  }

  /** Reads whole blocks, neighbours on disk at once; returns the bytes read, at least a block. */
  #readWhole(tree: BlockTree, index: number, target: Uint8Array): number {
    const most = Math.floor(target.length / BLOCK_SIZE);
    const first = tree.pointer(index);
    if (first.vbn === 0) {
      target.set(tree.block(index));
      return BLOCK_SIZE;
    }
    const crcs = [first.crc];
    while (crcs.length < most) {
      const next = tree.pointer(index + crcs.length);
      if (next.vbn !== first.vbn + crcs.length) break;
      crcs.push(next.crc);
    }
    const byteCount = crcs.length * BLOCK_SIZE;
    this.io.readRun(first.vbn, crcs, target.subarray(0, byteCount));
    return byteCount;
  }
}

function freeInode(ino: number): VolcastError {
  return damaged(`Cannot open inode ${ino}: it is free`, "Run: volcast fsck");
}

/** Pages of a directory, free ones included. @throws {VolcastError} `damaged` for a part of a page. */
export function pagesOf({ size }: Inode): number {
  if (size % BLOCK_SIZE === 0) return size / BLOCK_SIZE;
  throw damaged(`Cannot read a directory: its ${size} bytes are no whole pages`);
}

/** The blocks that hold an inode's extended attributes. */
export function attributeTree(io: BlockIo, inode: Inode, allocator?: Allocator): BlockTree {
  const slots = new Uint8Array(8);
  const view = new DataView(slots.buffer);
  view.setUint32(0, inode.attributeVbn, true);
  view.setUint32(4, inode.attributeCrc, true);
  return new BlockTree(io, inode.attributeHeight, slots, allocator);
}

/** Checks a path given from outside. */
export function checkPath(path: string): void {
  if (path.includes("\0")) {
    throw new VolcastError("usage", "Cannot use the path: it contains a NUL byte");
  }
  if (path.split("/").includes("..")) {
    throw new VolcastError(
      "usage",
      `Cannot use the path '${path}': it contains '..'`,
      "Give the path from the volume's root",
    );
  }
}

function notFound(path: string): VolcastError {
  return new VolcastError("not-found", `Cannot find '${path}'`, "List what is there: volcast ls");
}
