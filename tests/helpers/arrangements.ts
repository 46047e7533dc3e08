/**
 * Stores made of other stores, as crash tests lay volumes on them.
 *
 * @module
 */

import { type BlockStore, MemoryStore, PackedStore, StripedStore } from "../../src/store/mod.ts";
import { memberBlocksOf } from "../../src/format/mod.ts";
import type { Arrangement } from "./publisher.ts";

/** Names of the members of test stripes. */
export const MEMBERS: readonly string[] = ["a", "b", "c"];

/** A stripe over new disks in memory. */
export function stripeOf(
  capacity: number,
  names: readonly string[] = MEMBERS,
): { store: StripedStore; disks: MemoryStore[] } {
  const disks = names.map(() => new MemoryStore(memberBlocksOf(capacity, names.length)));
  const stripeId = crypto.randomUUID().replaceAll("-", "");
  return { store: StripedStore.create(disks, { capacity, names, stripeId }), disks };
}

/** A volume packed into a disk of 1000 blocks. */
export const PACKED: Arrangement = {
  create(capacity) {
    const disk = new MemoryStore(1000);
    return { store: PackedStore.create(disk, capacity), disks: [disk] };
  },
  open: ([disk]) => PackedStore.open(disk),
};

/** A volume over three disks. */
export const STRIPED: Arrangement = {
  create: (capacity) => stripeOf(capacity),
  open: (disks: readonly BlockStore[]) => StripedStore.open(disks, MEMBERS),
};
