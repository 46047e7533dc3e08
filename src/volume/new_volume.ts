/**
 * What a volume begins with: the metafiles, and an empty root directory.
 *
 * @module
 */

import { pageCountOf } from "../core/mod.ts";
import { BLOCK_SIZE, emptyInode, FILE_TYPE, INO, type Root } from "../format/mod.ts";
import { BlockTree } from "./block_tree.ts";
import { Directory } from "./directory.ts";
import { LiveFileSystem } from "./live_file_system.ts";
import { heightFor } from "./plane_file.ts";
import { Space } from "./space.ts";
import type { BlockIo } from "./block_io.ts";

/** The root before the first consistency point. */
export function emptyRoot(volumeId: string): Root {
  return {
    volumeId,
    cp: 0,
    time: 0n,
    epoch: 1,
    nonce: new Uint8Array(8),
    inodeCount: 0,
    inodeLimit: INO.firstUser,
    freeInode: 0,
    blockCount: 0,
    inodeFile: { ...emptyInode(), mode: FILE_TYPE.file, nlink: 1 },
    takeovers: [],
  };
}

/** The metafiles and the root directory of a volume that is being made. */
export function makeMetafiles(
  at: { io: BlockIo; capacity: number; now: bigint },
  live: LiveFileSystem,
  space: Space,
): void {
  const pages = pageCountOf(at.capacity);
  const planeHeight = heightFor(pages);
  const planes = [INO.blockMap, INO.summary].map((ino) => {
    const inode = {
      ...emptyInode(),
      mode: FILE_TYPE.file,
      nlink: 1,
      size: pages * BLOCK_SIZE,
    };
    const tree = new BlockTree(at.io, planeHeight, inode.slots, space);
    live.storeInode(ino, inode, tree);
    return tree;
  });
  space.attach(planes[0], planes[1]);
  const { now } = at;
  for (const ino of [INO.snapshots, INO.pointers]) {
    const inode = { ...emptyInode(), mode: FILE_TYPE.file, nlink: 1 };
    live.storeInode(ino, inode, new BlockTree(at.io, 0, inode.slots));
  }
  const inode = {
    ...emptyInode(),
    mode: FILE_TYPE.directory | 0o755,
    nlink: 2,
    size: BLOCK_SIZE,
    atime: now,
    mtime: now,
    ctime: now,
    btime: now,
    version: 1,
  };
  const tree = new BlockTree(at.io, 0, inode.slots, space);
  Directory.create(tree);
  while (tree.assign());
  tree.write();
  live.storeInode(INO.root, inode, tree);
  live.inodeCount = 1;
}
