/**
 * What snapshots keep from being used again, counted from planes.
 *
 * @module
 */

import { pagesOnlyIn, popcountPage } from "../core/mod.ts";
import type { Snapshot, Volume } from "./volume.ts";

/** Counts by volume object; the current root says which snapshots there are and what is in use. */
const counts = new WeakMap<Volume, { root: string; blocks: Map<string, number> }>();

/**
 * Blocks that would be free if these snapshots were none: those that neither the last consistency point
 * nor any other regular snapshot uses. Exact, and counted once for each root. At a replica, which gives
 * no blocks out, there is nothing to keep: 0.
 */
export function pinnedBlocks(volume: Volume, ids: readonly string[]): number {
  if (volume.role !== "origin" || ids.length === 0) return 0;
  const root = volume.current.id;
  let known = counts.get(volume);
  if (known?.root !== root) counts.set(volume, known = { root, blocks: new Map() });
  const key = [...new Set(ids)].sort().join(" ");
  let blocks = known.blocks.get(key);
  if (blocks === undefined) known.blocks.set(key, blocks = count(volume, new Set(ids)));
  return blocks;
}

function count(volume: Volume, ids: ReadonlySet<string>): number {
  const mine = volume.snapshots().filter(({ id }) => ids.has(id));
  if (mine.length === 0) return 0;
  // Only pages that differ from the two most alike are read: the next newer one, and what is in use.
  const newest = mine[mine.length - 1].cp;
  const others = volume.snapshots().filter(({ id }) => !ids.has(id))
    .sort((a, b) => Math.abs(a.cp - newest) - Math.abs(b.cp - newest));
  const planes = (list: readonly Snapshot[]) => list.map((one) => volume.plane(one));
  let blocks = 0;
  for (const { words } of pagesOnlyIn(planes(mine), planes([volume.current, ...others]))) {
    blocks += popcountPage(words);
  }
  return blocks;
}

/** What a site stands on, as far as it is here. */
export interface SitePins {
  readonly site: string;
  /** The snapshot or shadow that it confirmed last; `undefined` when it is not here any more. */
  readonly base: Snapshot | undefined;
  /** Regular snapshots that it or its children stand on, oldest first: these keep blocks. */
  readonly snapshots: readonly Snapshot[];
  /** Blocks that they alone keep, see {@linkcode pinnedBlocks}. */
  readonly blocks: number;
}

/** What each site stands on, and what that keeps. @param names Sites that are known here; all by default. */
export function sitePins(
  volume: Volume,
  names: readonly string[] = Object.keys(volume.local.sites),
): SitePins[] {
  return names.map((site) => {
    const { snapshot, needs } = volume.local.sites[site];
    const wanted = new Set([...(snapshot === undefined ? [] : [snapshot]), ...needs]);
    const snapshots = volume.snapshots().filter(({ id }) => wanted.has(id));
    return {
      site,
      base: snapshot === undefined ? undefined : volume.findBase(snapshot),
      snapshots,
      blocks: pinnedBlocks(volume, snapshots.map(({ id }) => id)),
    };
  });
}
