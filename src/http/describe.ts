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
  sitePins,
  type Snapshot,
  type Volume,
} from "../volume/mod.ts";

/** A snapshot as JSON shows it. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  /** A shadow is only a plane: nothing can be read from it. */
  readonly kind: "regular" | "shadow";
  /** Consistency point. */
  readonly cp: number;
  /** ISO 8601. */
  readonly time: string;
  /** Blocks when it was taken; a shadow may have lost some. */
  readonly blocks: number;
  readonly bytes: number;
  /** Names of the pointers that mean it. */
  readonly pointers: readonly string[];
}

/** Where a site stands, and what it keeps. */
export interface SiteInfo {
  readonly name: string;
  /** Id of the snapshot it confirmed last. */
  readonly snapshot: string | null;
  /** `null` where the snapshot is not here any more. */
  readonly snapshotName: string | null;
  readonly kind: SnapshotInfo["kind"] | null;
  /** Snapshots that its own children stand on. */
  readonly needs: readonly string[];
  /** ISO 8601. */
  readonly confirmedAt: string | null;
  /** Blocks that would be free without this site: exact, and 0 at a replica. */
  readonly pinnedBlocks: number;
  readonly pinnedBytes: number;
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
    /** Why nothing can be written now; `null` where it can. */
    readonly writeError: string | null;
  };
  readonly current: SnapshotInfo;
  /** A replica's own changes, which the next image takes away. */
  readonly localChanges: Flushed | null;
  readonly master: SnapshotInfo | null;
  readonly snapshots: number;
  readonly shadows: number;
  readonly sites: number;
  /** What each site keeps, by its name. */
  readonly pinnedBytes: Readonly<Record<string, number>>;
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
      writeError: volume.unwritable?.message ?? null,
    },
    current: snapshotJson(volume, volume.current),
    localChanges: localChanges(volume) ?? null,
    master: master === undefined ? null : snapshotJson(volume, master),
    snapshots: volume.snapshots().length,
    shadows: volume.shadows().length,
    sites: Object.keys(volume.local.sites).length,
    pinnedBytes: Object.fromEntries(
      sitePins(volume).map(({ site, blocks }) => [site, blocks * BLOCK_SIZE]),
    ),
  };
}

/** Snapshots and shadows as JSON, oldest first. */
export function snapshotsJson(volume: Volume): SnapshotInfo[] {
  return [...volume.snapshots(), ...volume.shadows()].sort((a, b) => a.cp - b.cp)
    .map((snapshot) => snapshotJson(volume, snapshot));
}

/** Sites as JSON. @param names Sites that are known here; all by default. */
export function sitesJson(volume: Volume, names?: readonly string[]): SiteInfo[] {
  return sitePins(volume, names).map(({ site, base, blocks }) => {
    const { snapshot, needs, confirmedAt } = volume.local.sites[site];
    return {
      name: site,
      snapshot: snapshot ?? null,
      snapshotName: base?.name ?? null,
      kind: base === undefined ? null : kindOf(base),
      needs,
      confirmedAt: confirmedAt === undefined ? null : new Date(confirmedAt).toISOString(),
      pinnedBlocks: blocks,
      pinnedBytes: blocks * BLOCK_SIZE,
    };
  });
}

function kindOf({ slot }: Snapshot): SnapshotInfo["kind"] {
  return slot === undefined ? "regular" : "shadow";
}

/** A snapshot as JSON. */
export function snapshotJson(volume: Volume, snapshot: Snapshot): SnapshotInfo {
  return {
    id: snapshot.id,
    name: snapshot.name,
    kind: kindOf(snapshot),
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
