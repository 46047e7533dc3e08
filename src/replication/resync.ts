/**
 * The way back onto a parent's line for a node that has left it: an old source that comes back after a
 * takeover, or a site that followed one.
 *
 * States: diverged -> (plan: nothing is changed) -> (go back: one superblock) a replica at the newest
 * common snapshot -> (an ordinary pull) a replica at the parent's master. A crash leaves one of them; from
 * each the same command goes on.
 *
 * @module
 */

import { diffTrees, type Snapshot, type TreeChange, type Volume } from "../volume/mod.ts";

/** What a resync would do. */
export interface ResyncPlan {
  /** The newest snapshot that is complete here and that the parent has. Absent: there is none. */
  readonly common?: Snapshot;
  /** Whether the volume has to go back to it, or is there already. */
  readonly goesBack: boolean;
  /** Snapshots here that the parent does not have. */
  readonly snapshots: readonly Snapshot[];
  /** What was done to paths since the common snapshot. */
  readonly changes: readonly TreeChange[];
}

/** Looks what there is in common, and what would be lost by going back to it. */
export function planResync(volume: Volume, parentHas: ReadonlySet<string>): ResyncPlan {
  const snapshots = volume.keptSnapshots().filter(({ id }) => !parentHas.has(id));
  const common = volume.snapshots().findLast(({ id }) => parentHas.has(id));
  if (common === undefined) return { goesBack: false, snapshots, changes: [] };
  const { active } = volume;
  return {
    common,
    goesBack: volume.role === "origin" || active.id !== common.id,
    snapshots,
    changes: [...diffTrees(volume.fileSystem(common), volume.fileSystem(active))],
  };
}
