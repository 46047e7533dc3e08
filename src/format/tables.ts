/**
 * Records of the snapshot table and of the pointer table, both metafiles.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import type { Pointer } from "./block.ts";
import { defineLayout } from "./layout.ts";
import { decodeLabel, encodeName, MAX_NAME_BYTES } from "./names.ts";

/** Table of a record of the snapshot table. */
export const SNAPSHOT_LAYOUT = defineLayout("snapshot record", 512, [
  ["cp", "u64", 8, "consistency point of the root; 0 ends the table"],
  ["rootVbn", "u32", 4, "VBN of the root"],
  ["rootCrc", "u32", 4, "checksum of the root"],
  ["time", "i64", 8, "when it was taken, ns since 1970"],
  ["blockCount", "u64", 8, "blocks of its plane"],
  ["kind", "u8", 1, "0 regular, 1 shadow"],
  ["slot", "u8", 1, "of a shadow: its slot in the file of shadow planes; else 0"],
  ["nameLength", "u16", 2, "bytes of the name"],
  ["name", "bytes", MAX_NAME_BYTES, "UTF-8"],
  ["_reserved2", "zero", 221, "reserved"],
]);

/** Table of a record of the pointer table. */
export const POINTER_LAYOUT = defineLayout("pointer record", 512, [
  ["cp", "u64", 8, "consistency point of the snapshot; 0 ends the table"],
  ["rootCrc", "u32", 4, "checksum of the snapshot's root"],
  ["nameLength", "u16", 2, "bytes of the name"],
  ["name", "bytes", MAX_NAME_BYTES, "UTF-8"],
  ["_reserved", "zero", 243, "reserved"],
]);

/**
 * Planes that the file of shadow planes has room for. With the two planes of marks that a mirror keeps
 * in memory they are at most one byte a block.
 */
export const SHADOW_SLOTS = 6;

/** A snapshot: a past root that is kept readable, or (with a `slot`) only the plane of one. */
export interface SnapshotRecord {
  readonly name: string;
  readonly cp: number;
  readonly root: Pointer;
  readonly time: bigint;
  readonly blockCount: number;
  /**
   * Of a shadow: where its plane lies in the file of shadow planes. Shadows may share a slot. Absent:
   * a regular snapshot.
   */
  readonly slot?: number;
}

/** A named pointer to a snapshot. */
export interface PointerRecord {
  readonly name: string;
  /** Id of the snapshot, see {@linkcode snapshotId}. */
  readonly snapshot: string;
}

/**
 * The id of a snapshot, the same at every node: the number of its consistency point and the
 * checksum of its root, so that equal numbers of diverged histories are told apart.
 */
export function snapshotId(snapshot: { cp: number; root: Pointer }): string {
  return `${snapshot.cp}-${snapshot.root.crc.toString(16).padStart(8, "0")}`;
}

/** The form of a snapshot id. */
export const SNAPSHOT_ID_PATTERN: RegExp = /^[1-9][0-9]{0,15}-[0-9a-f]{8}$/;

/** Encodes the snapshot table. */
export function encodeSnapshots(snapshots: readonly SnapshotRecord[]): Uint8Array {
  const bytes = new Uint8Array(snapshots.length * SNAPSHOT_LAYOUT.size);
  snapshots.forEach((snapshot, index) => {
    const name = encodeName(snapshot.name);
    SNAPSHOT_LAYOUT.write(
      {
        cp: snapshot.cp,
        rootVbn: snapshot.root.vbn,
        rootCrc: snapshot.root.crc,
        time: snapshot.time,
        blockCount: snapshot.blockCount,
        kind: snapshot.slot === undefined ? 0 : 1,
        slot: snapshot.slot ?? 0,
        nameLength: name.length,
        name,
      },
      bytes,
      index * SNAPSHOT_LAYOUT.size,
    );
  });
  return bytes;
}

/** Decodes the snapshot table. @throws {VolcastError} `damaged` when the table does not follow its layout. */
export function decodeSnapshots(bytes: Uint8Array): SnapshotRecord[] {
  return records(bytes, SNAPSHOT_LAYOUT.size, "the snapshot table").map((at) => {
    const record = SNAPSHOT_LAYOUT.read(bytes, at);
    const slots = record.kind === 1 ? SHADOW_SLOTS : 1;
    if (record.kind > 1 || record.slot >= slots || record.nameLength > MAX_NAME_BYTES) {
      throw damaged(
        `Cannot read the snapshot table: record at ${at} has kind ${record.kind}, slot ${record.slot} ` +
          `and a name of ${record.nameLength} bytes`,
      );
    }
    return {
      name: decodeLabel(record.name.subarray(0, record.nameLength), "the snapshot table"),
      cp: record.cp,
      root: { vbn: record.rootVbn, crc: record.rootCrc },
      time: record.time,
      blockCount: record.blockCount,
      ...(record.kind === 1 ? { slot: record.slot } : {}),
    };
  });
}

/** Encodes the pointer table. */
export function encodePointers(pointers: readonly PointerRecord[]): Uint8Array {
  const bytes = new Uint8Array(pointers.length * POINTER_LAYOUT.size);
  pointers.forEach((pointer, index) => {
    const name = encodeName(pointer.name);
    const [cp, crc] = pointer.snapshot.split("-");
    POINTER_LAYOUT.write(
      {
        cp: Number(cp),
        rootCrc: parseInt(crc, 16),
        nameLength: name.length,
        name,
      },
      bytes,
      index * POINTER_LAYOUT.size,
    );
  });
  return bytes;
}

/** Decodes the pointer table. @throws {VolcastError} `damaged` when the table does not follow its layout. */
export function decodePointers(bytes: Uint8Array): PointerRecord[] {
  return records(bytes, POINTER_LAYOUT.size, "the pointer table").map((at) => {
    const record = POINTER_LAYOUT.read(bytes, at);
    if (record.nameLength > MAX_NAME_BYTES) {
      throw damaged(`Cannot read the pointer table: a name of ${record.nameLength} bytes`);
    }
    return {
      name: decodeLabel(record.name.subarray(0, record.nameLength), "the pointer table"),
      snapshot: snapshotId({ cp: record.cp, root: { vbn: 0, crc: record.rootCrc } }),
    };
  });
}

function records(bytes: Uint8Array, size: number, what: string): number[] {
  if (bytes.length % size !== 0) {
    throw damaged(`Cannot read ${what}: ${bytes.length} bytes are not whole records of ${size}`);
  }
  return Array.from({ length: bytes.length / size }, (_, index) => index * size);
}
