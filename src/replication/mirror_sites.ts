/**
 * What a mirror's source keeps for it: a name among sites, and snapshots by that name.
 *
 * A mirror that is yet to be made is *beginning* from before its first snapshot is taken until it is
 * there. Nothing of a first image can be gone on with when the process that sent it has ended, unless
 * the base is complete: then the source has noted that the site stands on it.
 *
 * Invariants:
 * 1. A name is given to one mirror only. Where it has to be made up no site has it, and no snapshot of a
 *    mirror does.
 * 2. What is kept for a beginning goes when its process has ended and no base was complete; nothing that
 *    a mirror may stand on does.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import type { SiteState, Snapshot, Volume } from "../volume/mod.ts";
import type { StandbyPosition } from "./standby.ts";

/** Prefix of the names of snapshots that mirrors take. */
const PREFIX = "mirror.";
/** What this process marks beginnings with: it has the volume for itself. */
export const THIS_PROCESS: string = crypto.randomUUID();

/** Name of a snapshot that a mirror takes. */
export function nameOfMirrorSnapshot(mirror: string, cp: number): string {
  return `${PREFIX}${mirror}.${cp}`;
}

/** Whether a snapshot was taken by a mirror, for itself alone. */
export function isMirrorSnapshot(name: string): boolean {
  return mirrorOf(name) !== undefined;
}

/** Name of the mirror that a snapshot was taken by. */
function mirrorOf(snapshot: string): string | undefined {
  return /^mirror\.(.+)\.\d+$/.exec(snapshot)?.[1];
}

/** Snapshots that a mirror has taken, oldest first. */
export function snapshotsOfMirror(volume: Volume, mirror: string): Snapshot[] {
  return volume.snapshots().filter(({ name }) => mirrorOf(name) === mirror);
}

/** What is known of a site. */
export function siteOf(volume: Volume, name: string): SiteState | undefined {
  const { sites } = volume.local;
  return Object.hasOwn(sites, name) ? sites[name] : undefined;
}

/** The name for a mirror that is yet to be made; the one it began with where its base is there. */
export function nameForNew(volume: Volume, { node, ...position }: StandbyPosition): string {
  const stands = standsOn(position);
  const begun = volume.snapshots().find(({ id }) => stands.has(id));
  const before = begun && mirrorOf(begun.name);
  if (before !== undefined && siteOf(volume, before)?.beginning !== undefined) return before;
  for (let number = 1;; number++) {
    const name = number === 1 ? node : `${node}-${number}`;
    const site = siteOf(volume, name);
    if (site !== undefined && isAbandoned(site)) return name;
    if (site === undefined && snapshotsOfMirror(volume, name).length === 0) return name;
  }
}

/** Lets go what is kept for mirrors whose process ended before their base was complete. */
export async function letAbandonedGo(volume: Volume, position: StandbyPosition): Promise<void> {
  const stands = standsOn(position);
  for (const [name, site] of Object.entries(volume.local.sites)) {
    if (!isAbandoned(site)) continue;
    if (snapshotsOfMirror(volume, name).some(({ id }) => stands.has(id))) continue;
    await letGo(volume, name);
  }
}

/** Forgets a mirror and its snapshots, in an order that a crash leaves it to be done again. */
export async function letGo(volume: Volume, name: string): Promise<void> {
  await volume.updateLocal((state) => {
    state.sites[name] = { needs: [], beginning: THIS_PROCESS };
  });
  for (const { id } of snapshotsOfMirror(volume, name)) await deleteIfFree(volume, id);
  await volume.updateLocal((state) => {
    delete state.sites[name];
  });
}

/** Deletes a snapshot, unless somebody else stands on it or a pointer names it: then it is theirs now. */
export async function deleteIfFree(volume: Volume, id: string): Promise<void> {
  try {
    await volume.exclusive((writer) => writer.deleteSnapshot(id));
  } catch (error) {
    if (!(error instanceof VolcastError) || error.kind !== "held") throw error;
  }
}

function isAbandoned({ beginning, snapshot }: SiteState): boolean {
  return beginning !== undefined && beginning !== THIS_PROCESS && snapshot === undefined;
}

function standsOn({ current, coming }: Omit<StandbyPosition, "node">): Set<string | undefined> {
  return new Set([current?.id, coming?.top]);
}
