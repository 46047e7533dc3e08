/**
 * Inodes: 256 bytes that are one file. Inode n lies at byte n x 256 of the inode file.
 *
 * Pointers in an inode are all of one level: with height 1 they point at data, with height 2 at
 * blocks of 512 pointers to data, and so on. Height 0 keeps up to 128 bytes of content in the
 * place of the pointers.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { MAX_ATTRIBUTE_BYTES } from "./attributes.ts";
import { BLOCK_SIZE, MAX_BLOCKS, POINTERS_PER_INODE } from "./block.ts";
import { defineLayout } from "./layout.ts";
import { smallBytes } from "./small_bytes.ts";

/** Bytes of an inode. */
export const INODE_SIZE = 256;
/** Inodes in a block. */
export const INODES_PER_BLOCK = 16;
/** Content of at most this many bytes lies in the inode itself. */
export const INLINE_SIZE = POINTERS_PER_INODE * 8;
/** Greatest height: 16 x 512^4 blocks, more than a volume can have. */
export const MAX_HEIGHT = 5;

/** Bytes of the longest file: numbers of blocks are 32 bits wide, in a file as in a volume. */
export const MAX_FILE_BYTES: number = MAX_BLOCKS * BLOCK_SIZE;
/** Bytes of the longest target of a symbolic link. */
export const MAX_LINK_BYTES = 4095;

/** Reserved inode numbers: the metafiles and the root directory. */
export const INO = {
  /** The block map: one bit a block that this file system uses. */
  blockMap: 1,
  /** The root directory. */
  root: 2,
  /** The snapshot table. */
  snapshots: 3,
  /** The pointer table. */
  pointers: 4,
  /** The sum of the planes of all regular snapshots. */
  summary: 5,
  /** The planes of shadow snapshots, one slot behind the other; free while there is no shadow. */
  shadows: 6,
  /** The first inode number for users' files. */
  firstUser: 16,
} as const;

/** What an inode says of its file, its content apart. */
const HEAD_FIELDS = [
  ["mode", "u32", 4, "NFS: type and permission bits; 0 is a free inode"],
  ["uid", "u32", 4, "NFS: owner"],
  ["gid", "u32", 4, "NFS: group"],
  ["nlink", "u32", 4, "NFS: number of names"],
  ["size", "u64", 8, "bytes of content"],
  ["atime", "i64", 8, "NFS: last access, ns since 1970"],
  ["mtime", "i64", 8, "NFS: last change of content, ns since 1970"],
  ["ctime", "i64", 8, "NFS: last change of the inode, ns since 1970"],
  ["btime", "i64", 8, "CIFS: creation, ns since 1970"],
  ["rdev", "u64", 8, "NFS: device number; in a free inode the next free one"],
  ["generation", "u32", 4, "incremented when the number is used again"],
  ["dos", "u32", 4, "CIFS: DOS attribute bits"],
  ["height", "u8", 1, "levels below the pointers; 0: content in their place"],
  ["attributeHeight", "u8", 1, "the same for the extended attributes"],
  ["_reserved1", "zero", 2, "reserved"],
  ["attributeSize", "u32", 4, "bytes of the extended attributes"],
  ["attributeVbn", "u32", 4, "pointer to the extended attributes: VBN"],
  ["attributeCrc", "u32", 4, "pointer to the extended attributes: checksum"],
  ["version", "u64", 8, "CP in which content or attributes changed last"],
  ["_reserved2", "zero", 32, "reserved"],
] as const;

/** Table of an inode. */
export const INODE_LAYOUT = defineLayout("inode", INODE_SIZE, [
  ...HEAD_FIELDS,
  ["slots", "bytes", INLINE_SIZE, "16 pointers, or content"],
]);

const HEAD_LAYOUT = defineLayout("inode", INODE_SIZE - INLINE_SIZE, HEAD_FIELDS);

/** A decoded inode. Pointers stand in `slots` as `vbn, crc` pairs; inline content in its bytes. */
export interface Inode {
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  size: number;
  atime: bigint;
  mtime: bigint;
  ctime: bigint;
  btime: bigint;
  rdev: number;
  generation: number;
  dos: number;
  height: number;
  attributeHeight: number;
  attributeSize: number;
  attributeVbn: number;
  attributeCrc: number;
  version: number;
  slots: Uint8Array;
}

/** An inode without its pointers or content: what a look at it is for. */
export type InodeHead = Readonly<Omit<Inode, "slots">>;

/** File types, as in the upper bits of a mode. */
export const FILE_TYPE = {
  mask: 0o170000,
  socket: 0o140000,
  symlink: 0o120000,
  file: 0o100000,
  blockDevice: 0o060000,
  directory: 0o040000,
  charDevice: 0o020000,
  fifo: 0o010000,
} as const;

/** Name of a mode's file type. */
export type TypeName =
  | "file"
  | "directory"
  | "symlink"
  | "charDevice"
  | "blockDevice"
  | "fifo"
  | "socket";

/** The file type in a mode. @throws {VolcastError} `damaged` for a mode with no known type. */
export function typeOfMode(mode: number): TypeName {
  switch (mode & FILE_TYPE.mask) {
    case FILE_TYPE.file:
      return "file";
    case FILE_TYPE.directory:
      return "directory";
    case FILE_TYPE.symlink:
      return "symlink";
    case FILE_TYPE.charDevice:
      return "charDevice";
    case FILE_TYPE.blockDevice:
      return "blockDevice";
    case FILE_TYPE.fifo:
      return "fifo";
    case FILE_TYPE.socket:
      return "socket";
  }
  throw damaged(`Cannot read an inode: mode 0${mode.toString(8)} has no known file type`);
}

/** An inode with everything at zero. */
export function emptyInode(): Inode {
  return {
    mode: 0,
    uid: 0,
    gid: 0,
    nlink: 0,
    size: 0,
    atime: 0n,
    mtime: 0n,
    ctime: 0n,
    btime: 0n,
    rdev: 0,
    generation: 0,
    dos: 0,
    height: 0,
    attributeHeight: 0,
    attributeSize: 0,
    attributeVbn: 0,
    attributeCrc: 0,
    version: 0,
    slots: smallBytes(INLINE_SIZE),
  };
}

/** Reads the inode at byte `at`. */
export function decodeInode(bytes: Uint8Array, at: number): Inode {
  const inode = INODE_LAYOUT.read(bytes, at);
  checkInode(inode);
  return inode;
}

/** Reads what the inode at byte `at` says of its file: all but pointers and content, the same checked. */
export function decodeInodeHead(bytes: Uint8Array, at: number): InodeHead {
  const head = HEAD_LAYOUT.read(bytes, at);
  checkInode(head);
  return head;
}

function checkInode(inode: InodeHead): void {
  if (inode.height > MAX_HEIGHT || inode.attributeHeight > MAX_HEIGHT) {
    throw damaged(
      `Cannot read an inode: height ${inode.height}/${inode.attributeHeight}, the limit is ${MAX_HEIGHT}`,
    );
  }
  if (inode.size > MAX_FILE_BYTES || inode.attributeSize > MAX_ATTRIBUTE_BYTES) {
    throw damaged(
      `Cannot read an inode: ${inode.size} bytes of content and ${inode.attributeSize} of extended ` +
        `attributes, the limits are ${MAX_FILE_BYTES} and ${MAX_ATTRIBUTE_BYTES}`,
    );
  }
}

/** Writes an inode at byte `at`. */
export function encodeInode(inode: Inode, bytes: Uint8Array, at: number): void {
  INODE_LAYOUT.write(inode, bytes, at);
}
