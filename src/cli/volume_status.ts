/**
 * What there is to say about a volume, in the words of `/status`.
 *
 * @module
 */

import { BLOCK_SIZE } from "../format/mod.ts";
import { snapshotJson } from "../http/mod.ts";
import { MASTER, type Volume } from "../volume/mod.ts";
import type { SnapshotInfo } from "./target.ts";

/** The part of a status that is about the volume. */
export interface VolumeStatus {
  readonly volume: {
    readonly id: string;
    readonly role: "origin" | "replica";
    readonly capacityBlocks: number;
    readonly capacityBytes: number;
    readonly usedBlocks: number;
    /** `null` at a replica, which gives no blocks out. */
    readonly freeBlocks: number | null;
    readonly inodes: number;
    /** Consistency point. */
    readonly cp: number;
  };
  readonly current: SnapshotInfo;
  readonly master: SnapshotInfo | null;
  readonly snapshots: number;
  readonly sites: number;
}

/** See {@linkcode VolumeStatus}. */
export function volumeStatus(volume: Volume): VolumeStatus {
  const { zone, root, role } = volume;
  const master = volume.find(MASTER);
  const snapshot = (one: Parameters<typeof snapshotJson>[1]) =>
    snapshotJson(volume, one) as unknown as SnapshotInfo;
  return {
    volume: {
      id: volume.volumeId,
      role,
      capacityBlocks: zone.capacity,
      capacityBytes: zone.capacity * BLOCK_SIZE,
      usedBlocks: root.blockCount,
      freeBlocks: role === "origin" ? volume.freeBlocks : null,
      inodes: root.inodeCount,
      cp: volume.superblock.cp,
    },
    current: snapshot(volume.current),
    master: master === undefined ? null : snapshot(master),
    snapshots: volume.snapshots().length,
    sites: Object.keys(volume.local.sites).length,
  };
}
