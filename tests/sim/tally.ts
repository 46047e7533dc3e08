/**
 * Adding up what happened in worlds.
 *
 * @module
 */

import type { World } from "./world.ts";

/** Adds what happened in a world to sums. */
export function addUp(sums: Record<string, number>, { counts, truth }: World): void {
  const { images, again, sinceShadows, spared } = truth.counts;
  const all = {
    ...counts,
    "images compared": images,
    "images made again": again,
    "images since shadows": sinceShadows,
    "blocks spared by shadows": spared,
  };
  for (const [what, count] of Object.entries(all)) sums[what] = (sums[what] ?? 0) + count;
}
