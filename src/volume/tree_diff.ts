/**
 * What differs between two file systems of one volume, by path.
 *
 * Files change without their directories: a directory's pages hold names and inode numbers only. So the
 * inodes that differ are found first, from the two inode files, without reading the blocks of inodes
 * that both share. Then directories are walked side by side; one whose pages are the same is read once;
 * the walk ends when every name of every inode that differs has been seen.
 *
 * @module
 */

import {
  compareBytes,
  decodeInode,
  emptyInode,
  encodeName,
  equalBytes,
  INO,
  type Inode,
  INODE_SIZE,
  INODES_PER_BLOCK,
  type TypeName,
  typeOfMode,
} from "../format/mod.ts";
import { divCeil } from "../core/mod.ts";
import type { DirectoryEntry } from "./directory.ts";
import type { FileSystem } from "./file_system.ts";
import { SeenDirectories } from "./seen_directories.ts";

/** One path that is not the same. A file that was renamed is one removed and one created. */
export interface TreeChange {
  readonly kind: "created" | "changed" | "removed";
  /** From the root, beginning with `/`. */
  readonly path: string;
  readonly type: TypeName;
}

/**
 * The paths that differ, in the order of a walk. A file is changed when its content or an attribute is;
 * times of access, of the last change of the inode, and link counts do not count, and of a directory
 * what follows from its entries does not either.
 */
export function* diffTrees(before: FileSystem, after: FileSystem): Generator<TreeChange> {
  yield* new Walk(before, after).run();
}

/** Files that are not the same, a directory only where it was made or removed: cheap, by inode. */
export function countChanged(before: FileSystem, after: FileSystem): number {
  const typeOf = ({ mode }: Inode) => mode === 0 ? "free" : typeOfMode(mode);
  let count = 0;
  for (const ino of differingInodes(before, after)) {
    const types = [before, after].map((fs) => typeOf(inodeOf(fs, ino)));
    const isSame = types[0] === types[1] && (types[0] === "free" || types[0] === "directory");
    if (!isSame) count++;
  }
  return count;
}

class Walk {
  readonly #before: FileSystem;
  readonly #after: FileSystem;
  readonly #seenBefore = new SeenDirectories();
  readonly #seenAfter = new SeenDirectories();
  readonly #differing: Set<number>;
  /** Names of inodes that differ and that were not seen yet, on both sides. */
  #left = 0;

  constructor(before: FileSystem, after: FileSystem) {
    this.#before = before;
    this.#after = after;
    this.#differing = new Set(differingInodes(before, after));
    for (const ino of this.#differing) {
      if (ino !== INO.root) this.#left += namesOf(before, ino) + namesOf(after, ino);
    }
  }

  *run(): Generator<TreeChange> {
    if (this.#differing.size === 0) return;
    const [a, b] = [inodeOf(this.#before, INO.root), inodeOf(this.#after, INO.root)];
    if (!isSame(a, b)) yield { kind: "changed", path: "/", type: "directory" };
    yield* this.#pair("", INO.root, INO.root);
  }

  /** The entries of a directory that is on both sides. */
  *#pair(path: string, a: number, b: number): Generator<TreeChange> {
    if (this.#left === 0 && a === b && !this.#differing.has(a)) return;
    this.#seenBefore.enter(a, path);
    this.#seenAfter.enter(b, path);
    if (a === b && this.#hasSamePages(a)) {
      for (const entry of this.#after.list(b)) {
        this.#saw(entry);
        this.#saw(entry);
        yield* this.#both(`${path}/${entry.name}`, entry, entry);
      }
      return;
    }
    for (const [mine, theirs] of joined(this.#before.list(a), this.#after.list(b))) {
      if (mine !== undefined) this.#saw(mine);
      if (theirs !== undefined) this.#saw(theirs);
      const at = `${path}/${(mine ?? theirs)!.name}`;
      if (mine !== undefined && theirs !== undefined && mine.type === theirs.type) {
        yield* this.#both(at, mine, theirs);
        continue;
      }
      if (mine !== undefined) yield* this.#all("removed", at, mine, this.#before);
      if (theirs !== undefined) yield* this.#all("created", at, theirs, this.#after);
    }
  }

  /** One name on both sides, of one type. */
  *#both(path: string, mine: DirectoryEntry, theirs: DirectoryEntry): Generator<TreeChange> {
    const { type } = theirs;
    if (mine.ino !== theirs.ino || this.#differing.has(mine.ino)) {
      const [a, b] = [inodeOf(this.#before, mine.ino), inodeOf(this.#after, theirs.ino)];
      // Another file in its place is a change, whatever is in it.
      const other = mine.ino !== theirs.ino || a.generation !== b.generation;
      if ((other && type !== "directory") || !isSame(a, b)) yield { kind: "changed", path, type };
    }
    if (type === "directory") yield* this.#pair(path, mine.ino, theirs.ino);
  }

  /** A name on one side only, with everything below it. */
  *#all(
    kind: "created" | "removed",
    path: string,
    entry: DirectoryEntry,
    fs: FileSystem,
  ): Generator<TreeChange> {
    yield { kind, path, type: entry.type };
    if (entry.type !== "directory") return;
    (fs === this.#before ? this.#seenBefore : this.#seenAfter).enter(entry.ino, path);
    for (const below of fs.list(entry.ino)) {
      this.#saw(below);
      yield* this.#all(kind, `${path}/${below.name}`, below, fs);
    }
  }

  #saw(entry: DirectoryEntry): void {
    if (this.#differing.has(entry.ino)) this.#left--;
  }

  #hasSamePages(ino: number): boolean {
    if (!this.#differing.has(ino)) return true;
    const [a, b] = [inodeOf(this.#before, ino), inodeOf(this.#after, ino)];
    return a.size === b.size && a.height === b.height && equalBytes(a.slots, b.slots);
  }
}

/** Numbers of the inodes whose records differ. */
function* differingInodes(before: FileSystem, after: FileSystem): Generator<number> {
  for (const index of differingBlocks(before, after)) {
    const a = before.inodeFileTree.block(index);
    const b = after.inodeFileTree.block(index);
    for (let i = 0; i < INODES_PER_BLOCK; i++) {
      const ino = index * INODES_PER_BLOCK + i;
      if (ino < INO.firstUser && ino !== INO.root) continue;
      const [start, end] = [i * INODE_SIZE, (i + 1) * INODE_SIZE];
      if (!equalBytes(a.subarray(start, end), b.subarray(start, end))) yield ino;
    }
  }
}

function* differingBlocks(before: FileSystem, after: FileSystem): Generator<number> {
  const [a, b] = [before.inodeFileTree, after.inodeFileTree];
  if (a.height === b.height) {
    yield* a.differing(b);
    return;
  }
  // One of them has grown by a level: pointers to blocks of inodes are compared one by one.
  const count = divCeil(Math.max(before.inodeLimit, after.inodeLimit), INODES_PER_BLOCK);
  for (let index = 0; index < count; index++) {
    const [mine, theirs] = [a.pointer(index), b.pointer(index)];
    if (mine.vbn !== theirs.vbn || mine.crc !== theirs.crc) yield index;
  }
}

/** The inode, one that is free where the number was not in use yet. */
function inodeOf(fs: FileSystem, ino: number): Inode {
  if (ino >= fs.inodeLimit) return emptyInode();
  const block = fs.inodeFileTree.block(Math.floor(ino / INODES_PER_BLOCK));
  return decodeInode(block, (ino % INODES_PER_BLOCK) * INODE_SIZE);
}

function namesOf(fs: FileSystem, ino: number): number {
  const { mode, nlink } = inodeOf(fs, ino);
  if (mode === 0) return 0;
  return typeOfMode(mode) === "directory" ? 1 : nlink;
}

/** Whether what users see of two inodes is the same; of directories without their entries. */
function isSame(a: Inode, b: Inode): boolean {
  const attributes = (inode: Inode) => [
    inode.mode,
    inode.uid,
    inode.gid,
    inode.dos,
    inode.rdev,
    inode.btime,
    inode.attributeSize,
    inode.attributeVbn,
    inode.attributeCrc,
  ];
  const theirs = attributes(b);
  if (!attributes(a).every((value, i) => value === theirs[i])) return false;
  if (typeOfMode(a.mode) === "directory") return true;
  return a.mtime === b.mtime && a.size === b.size && a.height === b.height &&
    equalBytes(a.slots, b.slots);
}

/** Two listings in order of name, side by side. */
function* joined(
  before: Iterator<DirectoryEntry>,
  after: Iterator<DirectoryEntry>,
): Generator<[DirectoryEntry | undefined, DirectoryEntry | undefined]> {
  const next = (from: Iterator<DirectoryEntry>) => {
    const { value, done } = from.next();
    return done ? undefined : value;
  };
  let [a, b] = [next(before), next(after)];
  while (a !== undefined || b !== undefined) {
    const order = a === undefined
      ? 1
      : b === undefined
      ? -1
      : compareBytes(encodeName(a.name), encodeName(b.name));
    yield [order <= 0 ? a : undefined, order >= 0 ? b : undefined];
    if (order <= 0) a = next(before);
    if (order >= 0) b = next(after);
  }
}
