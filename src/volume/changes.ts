/**
 * Whether two roots show the same to users, told from what differs in their trees. Every consistency
 * point has new metafiles, also one that only lists or deletes a snapshot for a mirror; a mirror that
 * took that for a change would never come to rest.
 *
 * @module
 */

import { assert } from "../core/mod.ts";
import {
  decodePointers,
  decodeSnapshots,
  equalBytes,
  INO,
  INODE_SIZE,
  INODES_PER_BLOCK,
  type Pointer,
  snapshotId,
} from "../format/mod.ts";
import type { FileSystem } from "./file_system.ts";
import { readAll } from "./live_file_system.ts";
import type { Volume } from "./volume.ts";

/**
 * Whether files, directories, pointers or listed snapshots differ. Costs what changed, not what there is.
 *
 * @param options.ignored Names of snapshots that do not count.
 */
export function showsChanges(
  volume: Volume,
  [before, after]: readonly [{ id: string; root: Pointer }, { id: string; root: Pointer }],
  options: { ignored: (name: string) => boolean },
): boolean {
  if (before.id === after.id) return false;
  const [a, b] = [volume.fileSystem(before), volume.fileSystem(after)];
  return inodesDiffer(a, b) || tables(a, options.ignored) !== tables(b, options.ignored);
}

/** The inodes of metafiles are all in the first block of the inode file, with that of the root directory. */
function inodesDiffer(a: FileSystem, b: FileSystem): boolean {
  assert(INO.firstUser <= INODES_PER_BLOCK, "metafiles' inodes are in one block");
  const [mine, theirs] = [a.inodeFileTree, b.inodeFileTree];
  if (mine.height !== theirs.height) return true;
  for (const index of mine.differing(theirs)) if (index !== 0) return true;
  const rootInode = ({ inodeFileTree }: FileSystem) =>
    inodeFileTree.block(0).subarray(INO.root * INODE_SIZE, (INO.root + 1) * INODE_SIZE);
  return !equalBytes(rootInode(a), rootInode(b));
}

function tables(fs: FileSystem, ignored: (name: string) => boolean): string {
  const snapshots = decodeSnapshots(readAll(fs, INO.snapshots))
    .filter(({ name }) => !ignored(name))
    .map((snapshot) => [snapshot.name, snapshotId(snapshot)]);
  return JSON.stringify([snapshots, decodePointers(readAll(fs, INO.pointers))]);
}
