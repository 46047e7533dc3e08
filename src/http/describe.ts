/**
 * Things as JSON.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { BLOCK_SIZE } from "../format/mod.ts";
import {
  type FileInfo,
  type FileSystem,
  type Flushed,
  localChanges,
  MASTER,
  type Snapshot,
  type Volume,
} from "../volume/mod.ts";

/** A snapshot as JSON shows it. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  /** Consistency point. */
  readonly cp: number;
  /** ISO 8601. */
  readonly time: string;
  readonly blocks: number;
  readonly bytes: number;
  /** Names of the pointers that mean it. */
  readonly pointers: readonly string[];
}

/** What there is to say about a volume: a part of `/status`, and what `volcast info` shows. */
export interface VolumeStatus {
  readonly volume: {
    readonly id: string;
    readonly role: "origin" | "replica";
    /** Counts takeovers, from 1 on. */
    readonly epoch: number;
    readonly capacityBlocks: number;
    readonly capacityBytes: number;
    readonly usedBlocks: number;
    /** `null` at a replica, which gives no blocks out. */
    readonly freeBlocks: number | null;
    readonly inodes: number;
    /** Consistency point. */
    readonly cp: number;
    /** Readers that hold a root. */
    readonly leases: number;
    /** Changed metadata in memory. */
    readonly dirtyBytes: number;
  };
  readonly current: SnapshotInfo;
  /** A replica's own changes, which the next image takes away. */
  readonly localChanges: Flushed | null;
  readonly master: SnapshotInfo | null;
  readonly snapshots: number;
  readonly sites: number;
}

/** See {@linkcode VolumeStatus}. */
export function volumeStatus(volume: Volume): VolumeStatus {
  const { zone, root, role } = volume;
  const master = volume.find(MASTER);
  return {
    volume: {
      id: volume.volumeId,
      role,
      epoch: root.epoch,
      capacityBlocks: zone.capacity,
      capacityBytes: zone.capacity * BLOCK_SIZE,
      usedBlocks: root.blockCount,
      freeBlocks: role === "origin" ? volume.freeBlocks : null,
      inodes: root.inodeCount,
      cp: volume.superblock.cp,
      leases: volume.leases.size,
      dirtyBytes: volume.dirtyBytes,
    },
    current: snapshotJson(volume, volume.current),
    localChanges: localChanges(volume) ?? null,
    master: master === undefined ? null : snapshotJson(volume, master),
    snapshots: volume.snapshots().length,
    sites: Object.keys(volume.local.sites).length,
  };
}

/** A snapshot as JSON. */
export function snapshotJson(volume: Volume, snapshot: Snapshot): SnapshotInfo {
  return {
    id: snapshot.id,
    name: snapshot.name,
    cp: snapshot.cp,
    time: isoTime(snapshot.time),
    blocks: snapshot.blockCount,
    bytes: snapshot.blockCount * BLOCK_SIZE,
    pointers: [...volume.pointers(), ...volume.localPointers()]
      .filter((pointer) => pointer.snapshot === snapshot.id)
      .map((pointer) => pointer.name),
  };
}

/** What is known of a file as JSON; times are ns since 1970 in decimal. */
export function fileJson(
  fs: FileSystem,
  info: FileInfo,
  at: { path: string; name: string },
): Record<string, unknown> {
  const { atime, mtime, ctime, btime, ...rest } = info;
  const { xattrs } = fs.attributes(info.ino);
  return {
    path: at.path,
    name: at.name,
    ...rest,
    atime: String(atime),
    mtime: String(mtime),
    ctime: String(ctime),
    btime: String(btime),
    ...(info.type === "symlink" ? { target: fs.readLink(info.ino) } : {}),
    ...(xattrs.size === 0 ? {} : {
      xattrs: Object.fromEntries(
        [...xattrs].map(([name, value]) => [name, Buffer.from(value).toString("base64")]),
      ),
    }),
  };
}

/** Nanoseconds since 1970 as ISO 8601. */
export function isoTime(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}
