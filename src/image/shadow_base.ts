/**
 * Shadows as bases of images: their planes, and how they are named.
 *
 * A shadow's plane loses the bit of each block that is used again, so it is read as of a root, its
 * *state*. Whatever a root as old as the state or older, but not older than the shadow, has of that
 * plane holds what it held in the shadow's snapshot; so `top - shadow` lacks nothing, and may have more
 * than is needed. With the top itself as the state the image is the same at every node (I5).
 *
 * Source: WO 00/07104, shadow snapshots and master shadows.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { isShadow, type Snapshot, type Volume } from "../volume/mod.ts";

/** A base, with its state where it is a shadow. */
export interface Base {
  readonly base: Snapshot;
  readonly state?: Snapshot;
}

/** How a base is written in URLs and expressions: `ID`, or `ID~STATE` of a shadow. */
export function baseName(base: { id: string }, state?: { id: string }): string {
  return state === undefined ? base.id : `${base.id}~${state.id}`;
}

/**
 * The root as of which a shadow is the base for a top: the top itself where it lists the shadow, else
 * the oldest root behind it that does.
 *
 * @throws {VolcastError} `not-found` when no root here does.
 */
export function stateFor(volume: Volume, shadow: Snapshot, top: Snapshot): Snapshot {
  const later = [...volume.snapshots()].filter(({ cp }) => cp > top.cp)
    .sort((a, b) => a.cp - b.cp);
  for (const state of [top, ...later, volume.current]) {
    if (volume.shadowsIn(state).some(({ id }) => id === shadow.id)) return state;
  }
  throw new VolcastError(
    "not-found",
    `Cannot make an increment since '${shadow.name}' (${shadow.id}): no root here has it as a shadow`,
    "Take a full image",
  );
}

/**
 * Looks a base up, for an image of `top`: by name, by id, or as {@linkcode baseName} writes it.
 * @throws {VolcastError} `not-found`.
 */
export function resolveBase(volume: Volume, ref: string, top: Snapshot): Base {
  const [id, stateId] = ref.split("~");
  if (stateId !== undefined) {
    const state = volume.resolve(stateId);
    const base = volume.shadowsIn(state).find((shadow) => shadow.id === id);
    if (base !== undefined) return { base, state };
    throw new VolcastError(
      "not-found",
      `Cannot find the shadow ${id} in ${stateId}`,
      "Take the URL from content-location of GET /replicate",
    );
  }
  const base = volume.resolveBase(ref);
  return isShadow(base) ? { base, state: stateFor(volume, base, top) } : { base };
}
