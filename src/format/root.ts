/**
 * The root: the block a superblock points at, and from which a whole file system, active or
 * snapshot, is read.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { BLOCK_SIZE, MAX_BLOCKS, MAX_COUNTER } from "./block.ts";
import { decodeInode, encodeInode, type Inode, INODE_SIZE } from "./inode.ts";
import { defineLayout } from "./layout.ts";
import { bytesToHex, hexToBytes } from "./superblock.ts";

const MAGIC = new Uint8Array([0x56, 0x43, 0x52, 0x4f, 0x4f, 0x54, 0x0a, 0x1a]);

/** Takeovers that a root remembers: enough to tell lines of history apart for as long as it matters. */
export const MAX_TAKEOVERS = 64;

/** Table of a takeover in a root. */
export const TAKEOVER_LAYOUT = defineLayout("takeover", 16, [
  ["cp", "u64", 8, "first consistency point of the epoch; 0 ends the list"],
  ["mark", "bytes", 8, "random: two takeovers of one snapshot differ"],
]);

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
  [
    "takeovers",
    "bytes",
    MAX_TAKEOVERS * TAKEOVER_LAYOUT.size,
    "the newest takeovers, oldest first; the last one began the epoch",
  ],
  ["_reserved", "zero", 2728, "reserved"],
]);

/** A takeover: a replica became the source, and with it a new epoch began. */
export interface Takeover {
  /** First consistency point of the epoch. */
  readonly cp: number;
  /** 16 random hexadecimal digits. */
  readonly mark: string;
}

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
  /** The newest takeovers, oldest first; none in epoch 1. */
  readonly takeovers: readonly Takeover[];
}

/** Encodes a root into a block of its own. */
export function encodeRoot(root: Root): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  const inodeFile = new Uint8Array(INODE_SIZE);
  encodeInode(root.inodeFile, inodeFile, 0);
  ROOT_LAYOUT.write(
    {
      ...root,
      magic: MAGIC,
      volumeId: hexToBytes(root.volumeId),
      inodeFile,
      takeovers: encodeTakeovers(root.takeovers),
    },
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
  const { cp, epoch, inodeLimit, inodeCount } = record;
  if (Math.max(cp, epoch) >= MAX_COUNTER || Math.max(inodeLimit, inodeCount) > MAX_BLOCKS) {
    throw damaged(
      `Cannot read the root: CP ${cp} and epoch ${epoch}, the limit is ${MAX_COUNTER}, and ${inodeCount} ` +
        `inodes below ${inodeLimit}, the limit is ${MAX_BLOCKS}`,
    );
  }
  return {
    ...record,
    volumeId: bytesToHex(record.volumeId),
    inodeFile: decodeInode(record.inodeFile, 0),
    takeovers: decodeTakeovers(record.takeovers, record),
  };
}

function encodeTakeovers(takeovers: readonly Takeover[]): Uint8Array {
  const bytes = new Uint8Array(takeovers.length * TAKEOVER_LAYOUT.size);
  takeovers.forEach(({ cp, mark }, i) =>
    TAKEOVER_LAYOUT.write({ cp, mark: hexToBytes(mark) }, bytes, i * TAKEOVER_LAYOUT.size)
  );
  return bytes;
}

function decodeTakeovers(
  bytes: Uint8Array,
  { epoch, cp }: { epoch: number; cp: number },
): Takeover[] {
  const found: Takeover[] = [];
  for (let at = 0; at < bytes.length; at += TAKEOVER_LAYOUT.size) {
    const record = TAKEOVER_LAYOUT.read(bytes, at);
    if (record.cp === 0) break;
    found.push({ cp: record.cp, mark: bytesToHex(record.mark) });
  }
  const wanted = Math.min(epoch - 1, MAX_TAKEOVERS);
  const ascend = found.every((one, i) => one.cp > (found[i - 1]?.cp ?? 0) && one.cp <= cp);
  if (found.length === wanted && ascend) return found;
  throw damaged(
    `Cannot read the root: ${found.length} takeovers in order of their CPs up to ${cp} should be ${wanted} for epoch ${epoch}`,
  );
}
