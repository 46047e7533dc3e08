/**
 * Which inodes and names of a volume a tree that comes in has claimed.
 *
 * Invariants:
 * 1. An inode is claimed by the first name that the tree gives it. Another name stays a name of it
 *    only where the tree says so.
 * 2. Of an inode with several names those that the tree gave it are known one by one: the others are
 *    what pruning removes.
 *
 * @module
 */

import { BitPlane, pageCountOf } from "../core/mod.ts";
import type { DirectoryEntry } from "../volume/mod.ts";

/** See the module. It takes a bit for each inode, and the names of files that have several. */
export class Claims {
  readonly #claimed = new BitPlane(pageCountOf(2 ** 32));
  /** Claimed inodes that have, or had, several names; and the names the tree gave to them. */
  readonly #multiple = new Set<number>();
  readonly #names = new Set<string>();

  /** Whether a name of the tree has this inode. */
  has(ino: number): boolean {
    return this.#claimed.has(ino);
  }

  /** The tree has this inode, by a name that is its only one. */
  add(ino: number): void {
    this.#claimed.set(ino);
  }

  /** The tree has this inode by this name, and it has others. */
  addName(parent: number, name: string, ino: number): void {
    this.#claimed.set(ino);
    this.#multiple.add(ino);
    this.#names.add(`${parent}/${name}`);
  }

  /** Whether the tree has what is at this place. */
  isNamed(directory: number, { name, ino }: DirectoryEntry): boolean {
    if (!this.#claimed.has(ino)) return false;
    return !this.#multiple.has(ino) || this.#names.has(`${directory}/${name}`);
  }
}
