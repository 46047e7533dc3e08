/**
 * Telling a store which blocks nobody needs: one that gives room only to what is written can use the
 * room again. Other stores are not bothered.
 *
 * @module
 */

import { forEachRunOfPage, PAGE_BITS, pageCountOf, sum } from "../core/mod.ts";
import type { Volume } from "./volume.ts";

/**
 * Gives up every block that no snapshot here, no current root and no lease reaches. To be called when
 * nothing is under way that puts blocks where no plane has them yet: right after a flip, or before
 * an origin is written.
 */
export function discardUnused(volume: Volume): void {
  const { store } = volume.io;
  if (store.discard === undefined) return;
  const { zone } = volume;
  const reached = [...volume.snapshots(), volume.current, ...volume.leases.leased()];
  const used = sum(...new Map(reached.map((one) => [one.id, volume.plane(one)])).values());
  const page = new Uint32Array(PAGE_BITS / 32);
  for (let index = 0; index < pageCountOf(zone.capacity); index++) {
    const words = used.page(index);
    for (let i = 0; i < page.length; i++) page[i] = ~words[i];
    forEachRunOfPage(page, (start, count) => {
      const first = Math.max(zone.data.start, index * PAGE_BITS + start);
      const end = Math.min(zone.capacity, index * PAGE_BITS + start + count);
      if (end > first) store.discard!(first, end - first);
    });
  }
}
