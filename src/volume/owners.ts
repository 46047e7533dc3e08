/**
 * Whose a block is, in words: the paths of an inode, or what a metafile is called.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { INO } from "../format/mod.ts";
import type { FileSystem } from "./file_system.ts";
import { SeenDirectories } from "./seen_directories.ts";

/** What reserved inodes are called; 0 stands for the inode file. */
const METAFILES: Readonly<Record<number, string>> = {
  0: "the inode file",
  [INO.blockMap]: "the block map",
  [INO.root]: "/",
  [INO.snapshots]: "the snapshot table",
  [INO.pointers]: "the pointer table",
  [INO.summary]: "the summary",
  [INO.shadows]: "the planes of shadows",
};

/**
 * Names of inodes: every path of a file that a readable directory has, the name of a metafile, else the
 * inode's number. Yields after each directory, to be paced; ends early when all are found.
 */
export function* ownerSteps(
  fs: FileSystem,
  inos: ReadonlySet<number>,
): Generator<undefined, Map<number, string[]>> {
  const owners = new Map<number, string[]>();
  for (const ino of inos) {
    const metafile = METAFILES[ino];
    if (metafile !== undefined) owners.set(ino, [metafile]);
  }
  const wanted = new Set([...inos].filter((ino) => !owners.has(ino)));
  const directories: [ino: number, path: string][] = wanted.size > 0 ? [[INO.root, ""]] : [];
  const seen = new SeenDirectories();
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const [directory, path] = next;
    try {
      seen.enter(directory, path);
      for (const { ino, name, type } of fs.list(directory)) {
        if (wanted.has(ino)) owners.set(ino, [...owners.get(ino) ?? [], `${path}/${name}`]);
        if (type === "directory") directories.push([ino, `${path}/${name}`]);
      }
    } catch (error) {
      // A directory that cannot be read names nothing; what is in it keeps its numbers.
      if (!(error instanceof VolcastError)) throw error;
    }
    yield undefined;
  }
  for (const ino of wanted) if (!owners.has(ino)) owners.set(ino, [`inode ${ino}`]);
  return owners;
}

/** Like {@linkcode ownerSteps}, in one go. */
export function ownersOf(fs: FileSystem, inos: ReadonlySet<number>): Map<number, string[]> {
  const steps = ownerSteps(fs, inos);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
