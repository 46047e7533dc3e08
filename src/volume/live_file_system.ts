/**
 * The active file system: everything that changes files.
 *
 * Changed inodes, directories and blocks of pointers stay in memory until the consistency point;
 * the content of files is written at once to blocks that nothing on disk points at yet.
 *
 * Invariants:
 * 1. An operation either happens whole or throws before it changed anything; running out of space
 *    is found out before the first change.
 * 2. No block of content is written over (I2): a changed block goes to a new place.
 * 3. A block whose content stays equal keeps its place.
 * 4. `nlink` of a file is the number of its names; of a directory, 2 and its subdirectories.
 *
 * @module
 */

import { damaged, divCeil, VolcastError } from "../core/mod.ts";
import {
  type Attributes,
  BLOCK_SIZE,
  checkFileName,
  emptyInode,
  encodeAttributes,
  encodeInode,
  FILE_TYPE,
  INLINE_SIZE,
  INO,
  type Inode,
  INODE_SIZE,
  type InodeHead,
  INODES_PER_BLOCK,
  MAX_FILE_BYTES,
  MAX_LINK_BYTES,
  type Root,
  type TypeName,
  typeOfMode,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import { BlockTree } from "./block_tree.ts";
import { writeContent } from "./content.ts";
import { Directory } from "./directory.ts";
import { attributeTree, FileSystem, type OpenInode, pagesOf } from "./file_system.ts";
import { SeenDirectories } from "./seen_directories.ts";
import type { Space } from "./space.ts";

/** Most names of a file, and in a directory: their number is 32 bits wide. */
const MAX_NAMES = 2 ** 32 - 1;
/** Bytes that a metafile read whole may have: a hundred thousand pointers. Its inode may say anything. */
const MAX_TABLE_BYTES = 64 * 2 ** 20;

/** Attributes a caller may set; what is absent stays. */
export interface AttributeChange {
  /** Permission bits; the type of a file never changes. */
  readonly permissions?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly atime?: bigint;
  readonly mtime?: bigint;
  readonly btime?: bigint;
  readonly dos?: number;
}

/** What a new file is made with. */
export interface NewFile extends AttributeChange {
  readonly type: TypeName;
  /** Target of a symbolic link. */
  readonly target?: string;
  /** Number of a device. */
  readonly rdev?: number;
}

/** See the module. */
export class LiveFileSystem extends FileSystem {
  readonly #space: Space;
  readonly #now: () => bigint;
  /** Inodes changed since the last consistency point. */
  readonly #dirty = new Map<number, OpenInode>();
  inodeCount: number;
  #inodeLimit: number;
  freeInode: number;
  /** Number of the consistency point that is being made up. */
  cp: number;

  constructor(io: BlockIo, root: Root, space: Space, now: () => bigint) {
    super(io, root, space);
    this.#space = space;
    this.#now = now;
    this.inodeCount = root.inodeCount;
    this.#inodeLimit = root.inodeLimit;
    this.freeInode = root.freeInode;
    this.cp = root.cp + 1;
    space.waitingInodes = () => this.#dirty.size;
  }

  /** Inode numbers in use lie below this. */
  override get inodeLimit(): number {
    return this.#inodeLimit;
  }

  /** Whether a consistency point would have anything to write. */
  get isDirty(): boolean {
    return this.#dirty.size > 0 || this.inodeTree.isDirty;
  }

  /** Inodes kept in memory until the consistency point. */
  get dirtyInodeCount(): number {
    return this.#dirty.size;
  }

  /** The inode as it is now, changed or not. */
  override open(ino: number): OpenInode {
    return this.#dirty.get(ino) ?? super.open(ino);
  }

  /** The same of the inode as it is now, changed or not. */
  override inodeOf(ino: number): InodeHead {
    return this.#dirty.get(ino)?.inode ?? super.inodeOf(ino);
  }

  /** Makes a file, directory, link or device. @returns Its inode number. */
  create(parent: number, name: string, file: NewFile): number {
    checkFileName(name);
    checkTimes(file);
    if (this.directory(parent).find(name) !== undefined) {
      throw new VolcastError("exists", `Cannot make '${name}': it exists already`);
    }
    const target = new TextEncoder().encode(file.target ?? "");
    if (target.length > MAX_LINK_BYTES) {
      throw new VolcastError(
        "usage",
        `Cannot make the link '${name}': its target has ${target.length} bytes, the limit is ${MAX_LINK_BYTES}`,
      );
    }
    this.#checkEntries(parent, name);
    this.#require(4);
    const directory = this.#directoryForWriting(parent);
    const opened = this.#newInode(file);
    directory.insert(name, opened.ino, file.type);
    this.#changedDirectory(parent, directory, file.type === "directory" ? 1 : 0);
    if (file.type === "directory") {
      Directory.create(opened.tree);
      opened.inode.size = BLOCK_SIZE;
      opened.inode.nlink = 2;
    } else if (file.type === "symlink") this.#setContent(opened, target);
    return opened.ino;
  }

  /** Gives a file (not a directory) one more name. */
  link(parent: number, name: string, ino: number): void {
    checkFileName(name);
    const type = typeOfMode(this.open(ino).inode.mode);
    if (type === "directory") {
      throw new VolcastError("usage", `Cannot link '${name}': a directory has one name only`);
    }
    this.#checkEntries(parent, name);
    if (this.open(ino).inode.nlink >= MAX_NAMES) {
      throw new VolcastError(
        "full",
        `Cannot link '${name}': the file has ${MAX_NAMES} names, which is the limit`,
      );
    }
    this.#require(4);
    const directory = this.#directoryForWriting(parent);
    directory.insert(name, ino, type);
    this.#changedDirectory(parent, directory, 0);
    const { inode } = this.#change(ino);
    inode.nlink++;
    inode.ctime = this.#now();
  }

  /** Removes a name; the file goes with its last one. A directory must be empty. */
  remove(parent: number, name: string): void {
    const entry = this.directory(parent).find(name);
    if (entry === undefined) {
      throw new VolcastError("not-found", `Cannot remove '${name}': it is not there`);
    }
    if (entry.type === "directory" && this.directory(entry.ino).size > 0) {
      throw new VolcastError("usage", `Cannot remove '${name}': the directory is not empty`);
    }
    this.#requireForChange();
    const directory = this.#directoryForWriting(parent);
    directory.remove(name);
    this.#changedDirectory(parent, directory, entry.type === "directory" ? -1 : 0);
    this.#drop(entry.ino, entry.type);
  }

  /** Removes a name and, if it is a directory, everything below it. */
  removeTree(parent: number, name: string): void {
    this.#removeTree(parent, name, new SeenDirectories());
  }

  #removeTree(parent: number, name: string, seen: SeenDirectories): void {
    const entry = this.directory(parent).find(name);
    if (entry?.type === "directory") {
      seen.enter(entry.ino, name);
      for (;;) {
        // In pieces: the listing is taken anew since removing changes the pages it reads.
        const names: string[] = [];
        for (const child of this.list(entry.ino)) {
          names.push(child.name);
          if (names.length === 1024) break;
        }
        if (names.length === 0) break;
        for (const child of names) this.#removeTree(entry.ino, child, seen);
      }
    }
    this.remove(parent, name);
  }

  /** Gives a file another name, in the place of what had it; a directory only replaces an empty one. */
  rename(from: { parent: number; name: string }, to: { parent: number; name: string }): void {
    checkFileName(to.name);
    const entry = this.directory(from.parent).find(from.name);
    if (entry === undefined) {
      throw new VolcastError("not-found", `Cannot rename '${from.name}': it is not there`);
    }
    const present = this.directory(to.parent).find(to.name);
    if (present?.ino === entry.ino) return;
    if (entry.type === "directory" && this.#isBelow(to.parent, entry.ino)) {
      throw new VolcastError("usage", `Cannot move '${from.name}' into itself`);
    }
    if (present !== undefined && (present.type === "directory") !== (entry.type === "directory")) {
      throw new VolcastError(
        "exists",
        `Cannot replace '${to.name}': one of the two is a directory`,
      );
    }
    if (present === undefined) this.#checkEntries(to.parent, to.name);
    this.#require(4);
    if (present !== undefined) this.remove(to.parent, to.name);
    const weight = entry.type === "directory" ? 1 : 0;
    const source = this.#directoryForWriting(from.parent);
    source.remove(from.name);
    this.#changedDirectory(from.parent, source, -weight);
    const target = this.#directoryForWriting(to.parent);
    target.insert(to.name, entry.ino, entry.type);
    this.#changedDirectory(to.parent, target, weight);
    this.#change(entry.ino).inode.ctime = this.#now();
  }

  /** Sets attributes. */
  setAttributes(ino: number, change: AttributeChange): void {
    checkTimes(change);
    this.#requireForChange();
    const { inode } = this.#change(ino);
    applyChange(inode, change);
    inode.ctime = this.#now();
    inode.version = this.cp;
  }

  /** Sets all extended attributes; an empty set removes them. */
  setExtendedAttributes(ino: number, attributes: Attributes): void {
    const bytes = encodeAttributes(attributes);
    this.#require(divCeil(bytes.length, BLOCK_SIZE) + 4);
    const { inode } = this.#change(ino);
    const tree = attributeTree(this.io, inode, this.#space);
    tree.truncate(0);
    for (let at = 0; at < bytes.length; at += BLOCK_SIZE) {
      tree.writableBlock(at / BLOCK_SIZE).set(bytes.subarray(at, at + BLOCK_SIZE));
    }
    while (tree.assign());
    tree.write();
    const view = new DataView(tree.slots.buffer);
    inode.attributeHeight = tree.height;
    inode.attributeSize = bytes.length;
    inode.attributeVbn = view.getUint32(0, true);
    inode.attributeCrc = view.getUint32(4, true);
    inode.ctime = this.#now();
    inode.version = this.cp;
  }

  /**
   * Writes `bytes` at `offset`; the file grows where needed, a gap before it is a hole.
   * @throws {VolcastError} `full` before anything was changed.
   */
  write(ino: number, offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const end = offset + bytes.length;
    checkSize(offset);
    checkSize(end);
    this.#require(divCeil(bytes.length, BLOCK_SIZE) + 8);
    const opened = this.#change(ino);
    const { inode, tree } = opened;
    const mtime = this.#now();
    inode.mtime = inode.ctime = mtime;
    inode.version = this.cp;
    if (tree.height === 0 && end <= INLINE_SIZE && inode.size <= INLINE_SIZE) {
      inode.slots.set(bytes, offset);
      inode.size = Math.max(inode.size, end);
      return;
    }
    this.#leaveInode(opened);
    const first = Math.floor(offset / BLOCK_SIZE);
    const head = offset % BLOCK_SIZE;
    const tail = end % BLOCK_SIZE;
    if (head === 0 && (tail === 0 || end >= inode.size)) {
      this.#writeBlocks(opened, first, bytes);
    } else {
      // Partial blocks at the ends keep what is around them.
      const padded = new Uint8Array(divCeil(head + bytes.length, BLOCK_SIZE) * BLOCK_SIZE);
      const last = padded.length / BLOCK_SIZE - 1;
      padded.set(tree.block(first));
      if (last > 0) padded.set(tree.block(first + last), last * BLOCK_SIZE);
      padded.set(bytes, head);
      this.#writeBlocks(opened, first, padded);
    }
    inode.size = Math.max(inode.size, end);
  }

  /** Makes a file longer (with a hole) or shorter. */
  truncate(ino: number, size: number): void {
    checkSize(size);
    const leavesInode = size > INLINE_SIZE && this.open(ino).inode.size <= INLINE_SIZE;
    if (leavesInode) this.#require(8);
    else this.#requireForChange();
    const opened = this.#change(ino);
    const { inode, tree } = opened;
    if (leavesInode && inode.size > 0) this.#leaveInode(opened);
    if (size < inode.size) {
      if (tree.height === 0) inode.slots.fill(0, Math.min(size, INLINE_SIZE));
      else if (size === 0) {
        tree.truncate(0);
        inode.slots.fill(0);
      } else {
        const blocks = divCeil(size, BLOCK_SIZE);
        tree.truncate(blocks);
        // What stood behind the end must not come back when the file grows again.
        const within = size % BLOCK_SIZE;
        if (within !== 0 && tree.pointer(blocks - 1).vbn !== 0) {
          const block = tree.block(blocks - 1).slice();
          block.fill(0, within);
          this.#writeBlocks(opened, blocks - 1, block);
        }
      }
    }
    inode.size = size;
    inode.mtime = inode.ctime = this.#now();
    inode.version = this.cp;
  }

  /**
   * Replaces the content of a metafile. It takes from the reserve: a volume that is full must still
   * be able to write down that a snapshot is gone.
   */
  writeMetafile(ino: number, bytes: Uint8Array): void {
    const opened = this.#change(ino);
    const { inode, tree } = opened;
    if (bytes.length <= INLINE_SIZE) tree.truncate(0);
    if (tree.height === 0) inode.slots.fill(0);
    this.#setContent(opened, bytes);
    tree.truncate(divCeil(bytes.length, BLOCK_SIZE));
    inode.mtime = inode.ctime = this.#now();
    inode.version = this.cp;
  }

  /** Blocks of the tables of snapshots and pointers. */
  get tableBlocks(): number {
    return [INO.snapshots, INO.pointers]
      .reduce((sum, ino) => sum + divCeil(this.open(ino).inode.size, BLOCK_SIZE), 0);
  }

  /** The whole content of a file that is known to be small. */
  readAll(ino: number): Uint8Array {
    return readAll(this, ino);
  }

  /**
   * Writes an inode back into the inode file and forgets it: an import of millions of files keeps
   * only blocks of inodes in memory.
   */
  settle(ino: number): void {
    const opened = this.#dirty.get(ino);
    if (opened === undefined) return;
    const { inode, tree } = opened;
    if (tree.isDirty) {
      while (tree.assign());
      tree.write();
    }
    this.storeInode(ino, inode, tree);
    this.#dirty.delete(ino);
  }

  /** Settles every changed inode but the metafiles whose trees the volume writes itself. */
  settleAll(): void {
    for (const ino of [...this.#dirty.keys()]) this.settle(ino);
  }

  /** Puts an inode into its place in the inode file. */
  storeInode(ino: number, inode: Inode, tree: BlockTree): void {
    inode.height = tree.height;
    const block = this.inodeTree.writableBlock(Math.floor(ino / INODES_PER_BLOCK));
    encodeInode(inode, block, (ino % INODES_PER_BLOCK) * INODE_SIZE);
  }

  /** Room for blocks of data and what comes with them. Only before a change: inodes may be settled. */
  #require(count: number): void {
    // Inodes that wait may share blocks; settled, they are counted as what they are.
    if (!this.#space.has(count)) this.settleAll();
    this.#space.require(count);
  }

  /** The same for a change that takes no room of its own. */
  #requireForChange(): void {
    if (!this.#space.hasForChange()) this.settleAll();
    this.#space.requireForChange();
  }

  #newInode(file: NewFile): OpenInode {
    let ino = this.freeInode;
    const inode = emptyInode();
    if (ino === 0) {
      if (this.#inodeLimit >= 2 ** 32) {
        throw new VolcastError(
          "full",
          "Cannot make a file: all 4,294,967,280 inodes are in use",
          "Remove files that are not needed",
        );
      }
      ino = this.#inodeLimit++;
    } else {
      const free = this.readInode(ino);
      if (free.mode !== 0 || ino < INO.firstUser) {
        throw damaged(
          `Cannot make a file: inode ${ino} is in the chain of free inodes and in use`,
          "Run: volcast fsck",
        );
      }
      this.freeInode = free.rdev;
      inode.generation = free.generation + 1;
    }
    const now = this.#now();
    inode.mode = FILE_TYPE[file.type];
    inode.nlink = 1;
    inode.atime =
      inode.mtime =
      inode.ctime =
      inode.btime =
        now;
    inode.rdev = file.rdev ?? 0;
    inode.version = this.cp;
    applyChange(inode, { permissions: 0o644, ...file });
    const opened = this.makeOpen(ino, inode);
    this.#dirty.set(ino, opened);
    this.inodeCount++;
    return opened;
  }

  #drop(ino: number, type: TypeName): void {
    const opened = this.#change(ino);
    const { inode, tree } = opened;
    if (type !== "directory" && --inode.nlink > 0) {
      inode.ctime = this.#now();
      return;
    }
    tree.truncate(0);
    attributeTree(this.io, inode, this.#space).truncate(0);
    const free = emptyInode();
    free.generation = inode.generation;
    free.rdev = this.freeInode;
    this.freeInode = ino;
    this.inodeCount--;
    this.#dirty.delete(ino);
    this.forget(ino);
    this.storeInode(ino, free, new BlockTree(this.io, 0, free.slots));
  }

  #change(ino: number): OpenInode {
    let opened = this.#dirty.get(ino);
    if (opened === undefined) {
      // A copy of its own, so that nothing shared with readers is changed.
      opened = this.makeOpen(ino, this.readInode(ino));
      if (opened.inode.mode === 0) throw damaged(`Cannot change inode ${ino}: it is free`);
      this.forget(ino);
      this.#dirty.set(ino, opened);
    }
    return opened;
  }

  #directoryForWriting(ino: number): Directory {
    const { inode, tree } = this.#change(ino);
    if (typeOfMode(inode.mode) !== "directory") {
      throw new VolcastError("usage", `Cannot write into inode ${ino}: it is not a directory`);
    }
    return new Directory(tree, pagesOf(inode));
  }

  #changedDirectory(ino: number, directory: Directory, subdirectories: number): void {
    const { inode } = this.#change(ino);
    inode.size = directory.pageCount * BLOCK_SIZE;
    inode.nlink += subdirectories;
    inode.mtime = inode.ctime = this.#now();
    inode.version = this.cp;
  }

  #setContent(opened: OpenInode, bytes: Uint8Array): void {
    if (bytes.length <= INLINE_SIZE) opened.inode.slots.set(bytes);
    else this.#writeBlocks(opened, 0, bytes);
    opened.inode.size = bytes.length;
  }

  /** Moves content that lies in the inode into a block. */
  #leaveInode(opened: OpenInode): void {
    const { inode, tree } = opened;
    if (tree.height > 0 || inode.size === 0 || inode.size > INLINE_SIZE) {
      if (tree.height === 0) inode.slots.fill(0);
      return;
    }
    const content = inode.slots.slice(0, inode.size);
    inode.slots.fill(0);
    this.#writeBlocks(opened, 0, content);
  }

  #writeBlocks({ tree }: OpenInode, first: number, bytes: Uint8Array): void {
    writeContent({ io: this.io, space: this.#space, tree }, first, bytes);
  }

  #checkEntries(directory: number, name: string): void {
    if (this.directory(directory).size < MAX_NAMES) return;
    throw new VolcastError(
      "full",
      `Cannot make '${name}': its directory has ${MAX_NAMES} names, which is the limit`,
      "Use another directory",
    );
  }

  #isBelow(ino: number, ancestor: number, seen = new SeenDirectories()): boolean {
    if (ino === ancestor) return true;
    seen.enter(ancestor, `inode ${ancestor}`);
    for (const entry of this.list(ancestor)) {
      if (entry.type === "directory" && this.#isBelow(ino, entry.ino, seen)) return true;
    }
    return false;
  }
}

function checkSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= 0 && size <= MAX_FILE_BYTES) return;
  throw new VolcastError(
    "usage",
    `Cannot make a file of ${size} bytes: the limit is ${MAX_FILE_BYTES} (16 TiB)`,
  );
}

/** The whole content of a file that is known to be small. */
export function readAll(fs: FileSystem, ino: number): Uint8Array {
  const { size } = fs.open(ino).inode;
  if (size > MAX_TABLE_BYTES) {
    throw damaged(
      `Cannot read inode ${ino}: a table of ${size} bytes, the limit is ${MAX_TABLE_BYTES}`,
    );
  }
  const bytes = new Uint8Array(size);
  fs.read(ino, 0, bytes);
  return bytes;
}

/** Times are ns since 1970 in 64 bits: 1677 to 2262. */
function checkTimes(change: AttributeChange): void {
  for (const name of ["atime", "mtime", "btime"] as const) {
    const time = change[name];
    if (time === undefined || time === BigInt.asIntN(64, time)) continue;
    throw new VolcastError(
      "usage",
      `Cannot keep the time ${
        time / 1_000_000_000n
      } s as ${name}: the limits are the years 1677 and 2262`,
      "Set another time, for example with touch",
    );
  }
}

function applyChange(inode: Inode, change: AttributeChange): void {
  if (change.permissions !== undefined) {
    inode.mode = (inode.mode & FILE_TYPE.mask) | (change.permissions & 0o7777);
  }
  inode.uid = change.uid ?? inode.uid;
  inode.gid = change.gid ?? inode.gid;
  inode.atime = change.atime ?? inode.atime;
  inode.mtime = change.mtime ?? inode.mtime;
  inode.btime = change.btime ?? inode.btime;
  inode.dos = change.dos ?? inode.dos;
}
