/**
 * From a received root to one that can be written: for local changes at a replica, and for a takeover.
 *
 * A root that was received lists snapshots whose blocks are not here, sums up their planes, and does not
 * list itself: the consistency point that lists a snapshot comes after it. So before the first block is
 * given out:
 *
 * 1. The table lists what is held here, and the applied snapshot under its own name and id, so that the
 *    sites below go on with increments. Planes of anything else are not read: their blocks may be gone.
 * 2. The summary is exactly the sum of the planes of what the table lists. The applied root's own blocks
 *    are in it, so no block under the applied plane is ever given out (I2, I4).
 * 3. `master` means the applied snapshot; of the other pointers those stay that mean something present.
 *
 * All of this is in memory until the consistency point that makes it so.
 *
 * @module
 */

import { divCeil, paced, PAGE_WORDS, type Plane, popcountWord, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  bytesToHex,
  checkLabel,
  decodeSnapshots,
  encodePointers,
  encodeSnapshots,
  INO,
  MAX_TAKEOVERS,
  type Root,
  snapshotId,
  type SnapshotRecord,
} from "../format/mod.ts";
import type { LiveFileSystem } from "./live_file_system.ts";
import { wordsOf } from "./plane_file.ts";
import type { Space } from "./space.ts";
import { countChanged } from "./tree_diff.ts";
import type { Flushed, Snapshot, Volume } from "./volume.ts";

/**
 * Makes the file system over a replica's applied root one that can be written; see the module.
 * @throws {VolcastError} `full` when the consistency point would find no room. Nothing is written then.
 */
export async function makeWritable(
  volume: Volume,
  live: LiveFileSystem,
  space: Space,
): Promise<void> {
  const present = volume.snapshots();
  const planes = present.map((snapshot) => volume.plane(snapshot));
  await paced(replaceSummary(space, planes), volume.options.clock);
  const table = encodeSnapshots(prunedTable(live, present, volume.current));
  const pointers = encodePointers(volume.pointers());
  // What is kept back for consistency points is for this too: a full volume can be taken over.
  const tables = divCeil(table.length, BLOCK_SIZE) + divCeil(pointers.length, BLOCK_SIZE);
  const needed = space.dirtyCount * 2 + tables + 8;
  if (space.freeCount < needed) {
    throw new VolcastError(
      "full",
      `Cannot make the volume writable: ${space.freeCount} blocks are free, its first consistency point ` +
        `may need ${needed}`,
      "Pull a snapshot with fewer blocks first, or take a full image into a larger volume",
    );
  }
  live.writeMetafile(INO.snapshots, table);
  live.writeMetafile(INO.pointers, pointers);
}

/** The line of history behind a takeover: the next epoch, which begins behind the applied root. */
export function nextEpoch(
  root: Pick<Root, "epoch" | "takeovers">,
  appliedCp: number,
  mark: Uint8Array,
): Pick<Root, "epoch" | "takeovers"> {
  // Local changes made before the takeover are of the new epoch too: the old source has others.
  const takeover = {
    cp: appliedCp + 1,
    mark: bytesToHex(mark),
  };
  return {
    epoch: root.epoch + 1,
    takeovers: [...root.takeovers, takeover].slice(-MAX_TAKEOVERS),
  };
}

/** What was counted last, by volume: a status may be asked for often. */
const counted = new WeakMap<Volume, { readonly id: string; readonly flushed: Flushed }>();

/** What would go if an image came in now; `undefined` when there are no local changes. */
export function localChanges(volume: Volume): Flushed | undefined {
  if (volume.superblock.branch === undefined) return undefined;
  const { id } = volume.active;
  const known = counted.get(volume);
  if (known?.id === id) return known.flushed;
  const [before, after] = [volume.current, volume.active].map((one) => volume.fileSystem(one));
  const snapshots = volume.localSnapshots().map(({ name }) => name);
  const flushed = { files: countChanged(before, after), snapshots };
  counted.set(volume, { id, flushed });
  return flushed;
}

/** What the received table lists and is here, shadows as they are, and the applied snapshot. */
function prunedTable(
  live: LiveFileSystem,
  present: readonly Snapshot[],
  current: Snapshot,
): SnapshotRecord[] {
  const ids = new Set(present.map(({ id }) => id));
  // A shadow needs its plane only, which lies in a metafile of this root.
  const kept = decodeSnapshots(live.readAll(INO.snapshots)).filter((record) =>
    record.slot !== undefined || ids.has(snapshotId(record))
  );
  const { cp, root, time, blockCount } = current;
  return [...kept, { name: nameOf(current), cp, root, time, blockCount }];
}

/** An image of `active` is of no snapshot, and its name cannot be one. */
function nameOf({ name, cp }: Snapshot): string {
  try {
    return checkLabel("snapshot", name);
  } catch {
    return `cp${cp}`;
  }
}

/** Makes the summary the sum of these planes, page by page where it is not. */
function* replaceSummary(space: Space, planes: readonly Plane[]): Generator<unknown> {
  const { map, summary } = space;
  const indexes = new Set<number>();
  summary.forEachPointer((_, level, index) => {
    if (level === 0) indexes.add(index);
    return true;
  });
  for (const plane of planes) for (const index of plane.pages()) indexes.add(index);
  for (const index of [...indexes].sort((a, b) => a - b)) {
    const wanted = new Uint32Array(PAGE_WORDS);
    for (const plane of planes) {
      const page = plane.page(index);
      for (let i = 0; i < PAGE_WORDS; i++) wanted[i] |= page[i];
    }
    const before = wordsOf(summary.block(index));
    if (wanted.some((word, i) => word !== before[i])) {
      const active = wordsOf(map.block(index));
      for (let i = 0; i < PAGE_WORDS; i++) {
        space.freeCount += popcountWord(before[i] & ~active[i]) -
          popcountWord(wanted[i] & ~active[i]);
      }
      wordsOf(summary.writableBlock(index)).set(wanted);
    }
    yield;
  }
}
