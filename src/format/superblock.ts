/**
 * The superblock: the one place from which everything in a volume is reached. Two slots, VBN 0 and
 * 1, are written in turn; the newest valid one counts.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, MAX_BLOCKS, MAX_COUNTER, type Pointer } from "./block.ts";
import { defineLayout, type RecordOf } from "./layout.ts";
import { decodeLabel, encodeName, MAX_NAME_BYTES } from "./names.ts";

/** Version of everything that lies in a volume. */
export const VOLUME_FORMAT_VERSION = 1;

/** PNG style: a byte that is no text, a name, both line ends, an end-of-file mark. */
const MAGIC = new Uint8Array([0x89, 0x56, 0x43, 0x56, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Table of a superblock slot. */
export const SUPERBLOCK_LAYOUT = defineLayout("superblock", BLOCK_SIZE, [
  ["magic", "bytes", 8, "89 'VCV' 0d 0a 1a 0a"],
  ["version", "u32", 4, "format version"],
  ["features", "u32", 4, "feature flags; an unknown one refuses the volume"],
  ["volumeId", "bytes", 16, "random, given at init, equal at every node"],
  ["blockSize", "u32", 4, "4096"],
  ["role", "u8", 1, "0 origin, 1 replica"],
  ["_reserved1", "zero", 3, "reserved"],
  ["capacity", "u64", 8, "blocks of the volume"],
  ["dataStart", "u64", 8, "first VBN that a plane may cover; the local zone lies before it"],
  ["sequence", "u64", 8, "number of this superblock; its parity is its slot"],
  ["cp", "u64", 8, "number of the consistency point that made the root"],
  ["rootVbn", "u32", 4, "VBN of the root"],
  ["rootCrc", "u32", 4, "checksum of the root"],
  ["appliedTime", "i64", 8, "replica: when the current snapshot was taken, ns since 1970"],
  ["appliedNameLength", "u16", 2, "replica: bytes of the name below"],
  ["appliedName", "bytes", MAX_NAME_BYTES, "replica: name of the current snapshot"],
  ["branchCp", "u64", 8, "replica with a branch: consistency point of the branch's root"],
  ["branchVbn", "u32", 4, "replica with a branch: VBN of its root"],
  ["branchCrc", "u32", 4, "replica with a branch: checksum of its root"],
  ["remapVbn", "u32", 4, "replica with staged blocks: first block of their map"],
  ["remapCrc", "u32", 4, "replica with staged blocks: checksum of that block"],
  ["remapCount", "u32", 4, "replica with staged blocks: how many there are"],
  ["_reserved2", "zero", 3719, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** Feature flag: a replica has local changes, a branch with a root of its own. */
const FEATURE_BRANCH = 1;
/** Feature flag: some blocks under the root's plane are staged and lie elsewhere. */
const FEATURE_REMAP = 2;

/** Whether a node writes its volume or only follows a parent. */
export type Role = "origin" | "replica";

/** A verified superblock. */
export interface Superblock {
  readonly volumeId: string;
  readonly role: Role;
  /** Blocks of the volume. */
  readonly capacity: number;
  /** First VBN under planes. */
  readonly dataStart: number;
  readonly sequence: number;
  readonly cp: number;
  readonly root: Pointer;
  /** What the current root is called, at a replica. */
  readonly applied?: { readonly name: string; readonly time: bigint };
  /** At a replica with local changes: the root of their last consistency point. */
  readonly branch?: { readonly cp: number; readonly root: Pointer };
  /** At a replica that has not put all staged blocks into their places yet: the map of them. */
  readonly remap?: RemapHead;
}

/** Where the map of staged blocks begins. */
export interface RemapHead {
  readonly head: Pointer;
  /** Blocks that are staged, at least one. */
  readonly count: number;
}

/** Encodes a superblock into a block of its own. */
export function encodeSuperblock(superblock: Superblock): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  const name = encodeName(superblock.applied?.name ?? "");
  const { branch, remap } = superblock;
  SUPERBLOCK_LAYOUT.write({
    magic: MAGIC,
    version: VOLUME_FORMAT_VERSION,
    features: (branch === undefined ? 0 : FEATURE_BRANCH) |
      (remap === undefined ? 0 : FEATURE_REMAP),
    volumeId: hexToBytes(superblock.volumeId),
    blockSize: BLOCK_SIZE,
    role: superblock.role === "origin" ? 0 : 1,
    capacity: superblock.capacity,
    dataStart: superblock.dataStart,
    sequence: superblock.sequence,
    cp: superblock.cp,
    rootVbn: superblock.root.vbn,
    rootCrc: superblock.root.crc,
    appliedTime: superblock.applied?.time ?? 0n,
    appliedNameLength: name.length,
    appliedName: name,
    branchCp: branch?.cp ?? 0,
    branchVbn: branch?.root.vbn ?? 0,
    branchCrc: branch?.root.crc ?? 0,
    remapVbn: remap?.head.vbn ?? 0,
    remapCrc: remap?.head.crc ?? 0,
    remapCount: remap?.count ?? 0,
    crc: 0,
  }, block);
  const at = SUPERBLOCK_LAYOUT.offsetOf("crc");
  new DataView(block.buffer).setUint32(at, checksum(block.subarray(0, at)), true);
  return block;
}

/**
 * Reads a slot.
 *
 * @returns `undefined` when the slot never held a superblock or holds a torn one.
 * @throws {VolcastError} `unsupported` when it is a valid one of a version or with features that
 *   are not known here.
 */
export function decodeSuperblock(block: Uint8Array): Superblock | undefined {
  for (let i = 0; i < MAGIC.length; i++) if (block[i] !== MAGIC[i]) return undefined;
  const at = SUPERBLOCK_LAYOUT.offsetOf("crc");
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const version = view.getUint32(SUPERBLOCK_LAYOUT.offsetOf("version"), true);
  if (checksum(block.subarray(0, at)) !== view.getUint32(at, true)) {
    return undefined;
  }
  if (version !== VOLUME_FORMAT_VERSION) {
    throw new VolcastError(
      "unsupported",
      `Cannot open the volume: its format version is ${version}, this program knows ${VOLUME_FORMAT_VERSION}`,
      "Use the volcast release that wrote it, or a newer one",
    );
  }
  const record = SUPERBLOCK_LAYOUT.read(block);
  const unknown = record.features & ~(FEATURE_BRANCH | FEATURE_REMAP);
  if (unknown !== 0) {
    throw new VolcastError(
      "unsupported",
      `Cannot open the volume: it uses features 0x${(unknown >>> 0).toString(16)} unknown here`,
      "Use a newer volcast release",
    );
  }
  if (record.blockSize !== BLOCK_SIZE) {
    throw damaged(`Cannot read the superblock: block size ${record.blockSize}, must be 4096`);
  }
  if (
    record.capacity > MAX_BLOCKS || record.dataStart >= record.capacity ||
    record.rootVbn < record.dataStart || record.rootVbn >= record.capacity || record.role > 1
  ) {
    throw damaged(
      `Cannot read the superblock: capacity ${record.capacity}, data from ${record.dataStart}, ` +
        `root at ${record.rootVbn} and role ${record.role} do not fit each other`,
    );
  }
  const { sequence, cp, branchCp } = record;
  if (Math.max(sequence, cp, branchCp) >= MAX_COUNTER) {
    throw damaged(
      `Cannot read the superblock: number ${sequence}, CP ${cp}, CP ${branchCp} of a branch; the limit is ` +
        `${MAX_COUNTER}`,
    );
  }
  const branch = checkedBranch(record);
  const remap = checkedRemap(record);
  const base = {
    volumeId: bytesToHex(record.volumeId),
    role: record.role === 0 ? "origin" : "replica",
    capacity: record.capacity,
    dataStart: record.dataStart,
    sequence: record.sequence,
    cp: record.cp,
    root: { vbn: record.rootVbn, crc: record.rootCrc },
    ...(branch === undefined ? {} : { branch }),
    ...(remap === undefined ? {} : { remap }),
  } as const;
  if (record.appliedNameLength === 0) return base;
  const name = decodeLabel(
    record.appliedName.subarray(0, record.appliedNameLength),
    "the superblock",
  );
  return { ...base, applied: { name, time: record.appliedTime } };
}

/** The branch of a superblock: there with its flag only, and then with a root in the data of a replica. */
function checkedBranch(
  record: RecordOf<typeof SUPERBLOCK_LAYOUT.fields>,
): Superblock["branch"] {
  const { branchCp: cp, branchVbn: vbn, branchCrc: crc } = record;
  const isThere = (record.features & FEATURE_BRANCH) !== 0;
  const fits = isThere
    ? record.role === 1 && cp > record.cp && vbn >= record.dataStart && vbn < record.capacity
    : cp === 0 && vbn === 0 && crc === 0;
  if (!fits) {
    throw damaged(
      `Cannot read the superblock: a branch of CP ${cp} at VBN ${vbn} does not fit role ${record.role}, ` +
        `features ${record.features} and CP ${record.cp}`,
    );
  }
  return isThere ? { cp, root: { vbn, crc } } : undefined;
}

/** The map of staged blocks: there with its flag only, and then in the data of a replica. */
function checkedRemap(
  record: RecordOf<typeof SUPERBLOCK_LAYOUT.fields>,
): RemapHead | undefined {
  const { remapVbn: vbn, remapCrc: crc, remapCount: count } = record;
  const isThere = (record.features & FEATURE_REMAP) !== 0;
  const fits = isThere
    ? record.role === 1 && count > 0 && count < record.capacity && vbn >= record.dataStart &&
      vbn < record.capacity
    : vbn === 0 && crc === 0 && count === 0;
  if (!fits) {
    throw damaged(
      `Cannot read the superblock: a map of ${count} staged blocks at VBN ${vbn} does not fit role ` +
        `${record.role}, features ${record.features} and capacity ${record.capacity}`,
    );
  }
  return isThere ? { head: { vbn, crc }, count } : undefined;
}

/** Bytes as lower-case hexadecimal digits. */
export function bytesToHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Hexadecimal digits as bytes. */
export function hexToBytes(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(hex.slice(i * 2, i * 2 + 2), 16);
  return bytes;
}
