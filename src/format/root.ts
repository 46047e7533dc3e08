/**
 * The root: the block a superblock points at, and from which a whole file system, active or
 * snapshot, is read.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { BLOCK_SIZE } from "./block.ts";
import { decodeInode, encodeInode, type Inode, INODE_SIZE } from "./inode.ts";
import { defineLayout } from "./layout.ts";
import { bytesToHex, hexToBytes } from "./superblock.ts";

const MAGIC = new Uint8Array([0x56, 0x43, 0x52, 0x4f, 0x4f, 0x54, 0x0a, 0x1a]);

/** Table of a root. */
export const ROOT_LAYOUT = defineLayout("root", BLOCK_SIZE, [
  ["magic", "bytes", 8, "'VCROOT' 0a 1a"],
  ["volumeId", "bytes", 16, "the volume's, so that a stray block is not taken for a root"],
  ["cp", "u64", 8, "number of the consistency point"],
  ["time", "i64", 8, "when it was taken, ns since 1970"],
  ["epoch", "u64", 8, "line of history; a takeover begins a new one"],
  ["nonce", "bytes", 8, "random: makes roots of diverged histories differ"],
  ["inodeCount", "u64", 8, "inodes in use"],
  ["inodeLimit", "u64", 8, "inode numbers ever used end here"],
  ["freeInode", "u64", 8, "first of the chain of free inodes, 0: none"],
  ["blockCount", "u64", 8, "blocks in the block map"],
  ["inodeFile", "bytes", INODE_SIZE, "inode of the inode file"],
  ["_reserved", "zero", 3752, "reserved"],
]);

/** A decoded root. */
export interface Root {
  readonly volumeId: string;
  readonly cp: number;
  readonly time: bigint;
  readonly epoch: number;
  readonly nonce: Uint8Array;
  readonly inodeCount: number;
  readonly inodeLimit: number;
  readonly freeInode: number;
  readonly blockCount: number;
  readonly inodeFile: Inode;
}

/** Encodes a root into a block of its own. */
export function encodeRoot(root: Root): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  const inodeFile = new Uint8Array(INODE_SIZE);
  encodeInode(root.inodeFile, inodeFile, 0);
  ROOT_LAYOUT.write(
    { ...root, magic: MAGIC, volumeId: hexToBytes(root.volumeId), inodeFile },
    block,
  );
  return block;
}

/** Decodes a root. @throws {VolcastError} `damaged` when the block is no root. */
export function decodeRoot(block: Uint8Array): Root {
  const record = ROOT_LAYOUT.read(block);
  for (let i = 0; i < MAGIC.length; i++) {
    if (record.magic[i] !== MAGIC[i]) throw damaged("Cannot read the root: its magic is missing");
  }
  return {
    ...record,
    volumeId: bytesToHex(record.volumeId),
    inodeFile: decodeInode(record.inodeFile, 0),
  };
}
