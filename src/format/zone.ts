/**
 * The file map of a volume as one value: who lies where. No other module adds an offset.
 *
 * @module
 */

import { assert, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, MAX_BLOCKS } from "./block.ts";

/** Fewest blocks of a volume: 1 MiB. */
export const MIN_BLOCKS = 256;

/** A stretch of VBNs. */
export interface Extent {
  readonly start: number;
  readonly count: number;
}

/** Where everything lies in a volume of a given size. */
export interface Zone {
  /** Blocks of the volume. */
  readonly capacity: number;
  /** Who has the volume open now. */
  readonly owner: Extent;
  /** Two slots for this node's local state, written in turn. */
  readonly localSlots: readonly [Extent, Extent];
  /** Rest of the local zone, reserved for planes that this node keeps for its children. */
  readonly localPlanes: Extent;
  /** Everything that planes cover. */
  readonly data: Extent;
}

/**
 * The map of a volume of `capacity` blocks. The local zone is 1/512 of the volume, at least 64 blocks
 * and at most 65,536.
 *
 * @throws {VolcastError} `usage` when the size is out of bounds.
 */
export function zoneOf(capacity: number): Zone {
  if (!Number.isSafeInteger(capacity) || capacity < MIN_BLOCKS || capacity > MAX_BLOCKS) {
    throw new VolcastError(
      "usage",
      `Cannot make a volume of ${capacity} blocks: the least is ${MIN_BLOCKS} (1 MiB), the most ${MAX_BLOCKS} (16 TiB)`,
    );
  }
  const slot = Math.floor(Math.min(65536, Math.max(64, capacity / 512)) / 4);
  const owner = { start: 2, count: 1 };
  const first = { start: 3, count: slot };
  const second = { start: first.start + slot, count: slot };
  const planes = { start: second.start + slot, count: slot * 2 };
  const data = { start: planes.start + planes.count, count: 0 };
  const zone: Zone = {
    capacity,
    owner,
    localSlots: [first, second],
    localPlanes: planes,
    data: { start: data.start, count: capacity - data.start },
  };
  assert(zone.data.count > 0, "a zone without data");
  return zone;
}

/** Bytes of an extent. */
export function byteSize(extent: Extent): number {
  return extent.count * BLOCK_SIZE;
}
