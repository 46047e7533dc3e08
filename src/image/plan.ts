/**
 * Planning: what an image holds, exactly, from planes alone. No block of content is read.
 *
 * @module
 */

import { difference, popcount, sum, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, type TermRole } from "../format/mod.ts";
import type { Snapshot, Volume } from "../volume/mod.ts";
import { Image } from "./image.ts";
import { resolveExpression, selectImage } from "./storage_image.ts";

/** What an expression selects. */
export interface Plan {
  /** Blocks selected. */
  readonly blocks: number;
  /** Exact bytes of the image stream that carries them. */
  readonly bytes: number;
  /** Runs of consecutive VBNs. */
  readonly runs: number;
  /** Bytes of the blocks alone: blocks x 4096. */
  readonly blockBytes: number;
  /** Names of the snapshots that the image restores, oldest first; none: it is a fragment. */
  readonly restores: readonly string[];
  /** Names of the snapshots on which it can stand, oldest first. */
  readonly bases: readonly string[];
  /** Which of those a target must have. */
  readonly needs: "nothing" | "one" | "all";
}

/**
 * The plan of an expression such as `june5 - june3`.
 *
 * @throws {VolcastError} `usage` for the text, `not-found` for a name in it.
 */
export function planExpression(volume: Volume, text: string): Plan {
  return planOf(Image.of(volume, selectImage(volume, resolveExpression(volume, text))));
}

/** The plan of an image. */
export function planOf({ header, top, base, terms, longRuns }: Image): Plan {
  const named = (role: TermRole) =>
    terms.filter((term) => term.role === role).map(({ snapshot }) => snapshot.name);
  const isFragment = header.fragment === true;
  return {
    blocks: header.blockCount,
    bytes: header.byteCount,
    runs: longRuns,
    blockBytes: header.blockCount * BLOCK_SIZE,
    restores: isFragment ? [] : [...named("top"), top.name],
    bases: base === undefined ? [] : [...named("alternative"), ...named("required"), base.name],
    needs: base === undefined || isFragment
      ? "nothing"
      : named("required").length > 0
      ? "all"
      : "one",
  };
}

/** What deleting snapshots would free. */
export interface DeletePlan {
  /** Names of the snapshots. */
  readonly snapshots: readonly string[];
  /** Blocks that are in one of them, and in no other snapshot and not in the active file system. */
  readonly blocks: number;
  /** blocks x 4096. */
  readonly bytes: number;
}

/**
 * What deleting these snapshots together would free: exact, by counting bits. The number of free blocks
 * grows by this once the consistency point is through, but for what the active file system itself has
 * changed by then (its own metadata, and what was written or removed since the last one).
 *
 * @throws {VolcastError} `not-found`; `usage` for what is no snapshot.
 */
export function planDelete(volume: Volume, refs: readonly string[]): DeletePlan {
  const listed = volume.snapshots();
  const gone = new Map(refs.map((ref) => {
    const snapshot = volume.resolve(ref);
    if (listed.some(({ id }) => id === snapshot.id)) return [snapshot.id, snapshot];
    throw new VolcastError(
      "usage",
      `Cannot plan to delete '${ref}': it is the active file system, and no snapshot`,
      "Name snapshots, with commas between: june1,june2",
    );
  }));
  const kept = listed.filter(({ id }) => !gone.has(id) && id !== volume.current.id);
  const planesOf = (snapshots: Iterable<Snapshot>) =>
    [...snapshots].map((snapshot) => volume.plane(snapshot));
  const freed = difference(
    sum(...planesOf(gone.values())),
    sum(...planesOf(kept), volume.plane(volume.current)),
  );
  const blocks = popcount(freed);
  const snapshots = [...gone.values()].map(({ name }) => name);
  return { snapshots, blocks, bytes: blocks * BLOCK_SIZE };
}
