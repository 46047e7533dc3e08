/**
 * Directories that a walk has been in. A directory has one name and lies in one directory only; what comes
 * twice is a circle, or would be walked as often as there are ways to it.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";

/** Directories within directories that a walk goes into: what walks a tree goes as deep as the tree. */
const MAX_LEVELS = 4096;

/** See the module. */
export class SeenDirectories {
  readonly #seen = new Set<number>();

  /**
   * Before a directory is walked.
   *
   * @param ino Its inode number.
   * @param path Where it lies, for the message; its names are counted.
   * @throws {VolcastError} `damaged` when the walk has been there, or is too deep.
   */
  enter(ino: number, path: string): void {
    if (this.#seen.has(ino)) {
      throw damaged(
        `Cannot walk the directory ${path || "/"}: it is inode ${ino}, which has another name too`,
        "Run: volcast fsck",
      );
    }
    this.#seen.add(ino);
    if (path.length <= MAX_LEVELS * 2 || path.split("/").length <= MAX_LEVELS) return;
    throw damaged(`Cannot walk the tree: it is deeper than ${MAX_LEVELS} directories`);
  }
}
