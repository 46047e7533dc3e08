/**
 * Which image answers a request: pure planning over what a volume has. No I/O, no retry.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import { nothingPublished } from "../image/mod.ts";
import { ACTIVE, MASTER, type Snapshot, type Volume } from "../volume/mod.ts";
import { isMirrorSnapshot } from "./mirror_sites.ts";

/** What a caller asks for. */
export interface ReplicationRequest {
  /** A snapshot, or a pointer: the base the caller has. Absent: a full image. */
  readonly since?: string | undefined;
  /** A snapshot or a pointer: the top the caller wants. */
  readonly to?: string | undefined;
  /** Name of the calling site. */
  readonly site?: string | undefined;
}

/** What the caller gets. */
export interface Selection {
  readonly top: Snapshot;
  /** Absent: a full image. It may be a shadow. */
  readonly base?: Snapshot;
  /** Why it is a full image although a base was named. */
  readonly fullBecause?: "unknown-base" | "new-site";
}

/**
 * Chooses top and base.
 *
 * `since` is looked up first among the calling site's pointers, so that `since=master` of a known site
 * means the master it confirmed last. A caller that is no site and names a pointer of this server's
 * asks what came after it: up to the newest snapshot.
 *
 * @throws {VolcastError} `not-found` (nothing published, unknown `to`), `diverged` (the base is of
 *   another history).
 */
export function selectImage(volume: Volume, request: ReplicationRequest): Selection {
  const top = selectTop(volume, request);
  const { since, site } = request;
  if (since === undefined) return { top };
  if (site !== undefined && since === MASTER) {
    const { sites } = volume.local;
    const position = Object.hasOwn(sites, site) ? sites[site].snapshot : undefined;
    if (position === undefined) return { top, fullBecause: "new-site" };
    const base = volume.findBase(position);
    return base === undefined ? { top, fullBecause: "unknown-base" } : { top, base };
  }
  const base = volume.findBase(since);
  if (base !== undefined) return { top, base };
  checkSameHistory(volume, since);
  return { top, fullBecause: "unknown-base" };
}

function selectTop(volume: Volume, { since, to, site }: ReplicationRequest): Snapshot {
  if (to !== undefined) return replicated(volume, volume.resolve(to));
  // What a mirror takes for itself goes again with its next round.
  const newest = volume.role === "origin"
    ? volume.snapshots().findLast(({ name }) => !isMirrorSnapshot(name))
    : volume.snapshots().at(-1);
  if (newest === undefined) throw nothingPublished();
  const asksServersPointer = site === undefined && since !== undefined &&
    volume.pointers().some((pointer) => pointer.name === since);
  if (asksServersPointer) return newest;
  return volume.find(MASTER) ?? newest;
}

/** Sites get what was applied here; what was changed here stays here. */
function replicated(volume: Volume, top: Snapshot): Snapshot {
  if (top.name === ACTIVE) return volume.current;
  if (!volume.localSnapshots().some(({ id }) => id === top.id)) return top;
  throw new VolcastError(
    "diverged",
    `Cannot replicate '${top.name}': it is a snapshot of local changes, which the next image takes away`,
    `To copy it nevertheless: GET /image?select=${encodeURIComponent(top.name)}`,
  );
}

/** A consistency point of this number with another root: the caller's history is not this one. */
function checkSameHistory(volume: Volume, since: string): void {
  if (!SNAPSHOT_ID_PATTERN.test(since)) return;
  const cp = Number(since.split("-")[0]);
  const known = [...volume.snapshots(), ...volume.shadows(), volume.current]
    .find((snapshot) => snapshot.cp === cp);
  if (known === undefined || known.id === since) return;
  throw new VolcastError(
    "diverged",
    `Cannot make an increment since ${since}: here consistency point ${cp} is ${known.id}, so the two ` +
      "volumes have different histories",
    "Go back to what both have: volcast resync. Or take a full image: leave 'since' out",
  );
}
