/**
 * Consistency points: everything changed goes to disk, and a new root is made that reaches it.
 *
 * The order is what makes a crash harmless: blocks first, all of them to places that no root on
 * disk uses; then a sync; only then the caller moves the superblock. What must be written last is
 * the map of what is used, because writing it uses blocks: so first every block gets its place (a
 * loop that ends, since a block that has one is not asked again), and then all are written. The same
 * goes for the planes of shadows, which lose the bit of every block that gets used.
 *
 * @module
 */

import {
  checksum,
  encodeInode,
  encodeRoot,
  INO,
  type Inode,
  INODE_SIZE,
  type Pointer,
  type Root,
} from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import type { BlockTree } from "./block_tree.ts";
import type { LiveFileSystem } from "./live_file_system.ts";
import type { Space } from "./space.ts";

/** What a consistency point is made of. */
export interface CheckpointParts {
  readonly io: BlockIo;
  readonly live: LiveFileSystem;
  readonly space: Space;
  /** Where the root of the last consistency point lies; 0 at init. */
  readonly oldRoot: number;
  readonly time: bigint;
  /** What tells this root from those of other nodes that went on from the same one. */
  readonly nonce: Uint8Array;
  readonly volumeId: string;
  /** The epoch, and the takeovers that led to it. */
  readonly line: Pick<Root, "epoch" | "takeovers">;
}

/**
 * Writes all blocks of a consistency point and its root. Nothing is durable yet and no root was
 * moved: the caller syncs, writes the superblock and syncs again.
 */
export function writeCheckpoint(parts: CheckpointParts): { pointer: Pointer; root: Root } {
  const { io, live, space } = parts;
  live.settleAll();
  const inodeTree = live.inodeFileTree;
  const rootVbn = space.allocate();
  if (parts.oldRoot !== 0) space.free(parts.oldRoot);
  // The block that holds the metafiles' inodes changes for certain: their trees get new places.
  const metaInodes = inodeTree.writableBlock(0);
  const { shadows } = space;
  for (let more = true; more;) {
    more = inodeTree.assign();
    if (shadows !== undefined) more = shadows.tree.assign() || more;
    more = space.map.assign() || more;
    more = space.summary.assign() || more;
  }
  space.detachWorkingPage();
  const planes: [number, BlockTree][] = [[INO.blockMap, space.map], [INO.summary, space.summary]];
  if (shadows !== undefined) planes.push([INO.shadows, shadows.tree]);
  for (const [ino, tree] of planes) {
    tree.write();
    putMetafile(live, metaInodes, ino, tree);
  }
  inodeTree.write();
  const root: Root = {
    volumeId: parts.volumeId,
    cp: live.cp,
    time: parts.time,
    epoch: parts.line.epoch,
    takeovers: parts.line.takeovers,
    nonce: parts.nonce,
    inodeCount: live.inodeCount,
    inodeLimit: live.inodeLimit,
    freeInode: live.freeInode,
    blockCount: space.mapCount,
    inodeFile: inodeFileInode(live, inodeTree),
  };
  const block = encodeRoot(root);
  const crc = checksum(block);
  io.write(rootVbn, crc, block);
  return { pointer: { vbn: rootVbn, crc }, root };
}

function putMetafile(live: LiveFileSystem, block: Uint8Array, ino: number, tree: BlockTree): void {
  const inode: Inode = { ...live.readInode(ino), height: tree.height, slots: tree.slots };
  encodeInode(inode, block, ino * INODE_SIZE);
}

function inodeFileInode(live: LiveFileSystem, tree: BlockTree): Inode {
  return {
    ...live.root.inodeFile,
    size: live.inodeLimit * INODE_SIZE,
    height: tree.height,
    slots: tree.slots.slice(),
  };
}
