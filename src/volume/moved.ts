/**
 * When a pointer came to mean what it means: by this, two parents that say different things of `master` are
 * told apart. A pointer moves back as well as forth, so the age of what it names does not say which of them
 * is late.
 *
 * A pointer that a new snapshot was taken for moved with that snapshot, so its epoch and consistency point
 * say when. For one that was moved to an older snapshot the origin notes those of the move, before it is
 * made; a note of one that a crash prevented is of a consistency point that is not there yet, or is another
 * snapshot's. A replica notes what it was told with what it took, and goes by that when it is promoted.
 * Where nobody told anything, no pointer can have been moved to a snapshot before it was taken.
 *
 * @module
 */

import { decodeRoot } from "../format/mod.ts";
import type { LocalState, Moved } from "./local_state.ts";
import { MASTER, type Snapshot, type Volume } from "./volume.ts";

/**
 * When a pointer here was moved to what it means, at the earliest; `undefined` where it is none, and at a
 * replica for pointers that it does not follow.
 */
export function movedAt(volume: Volume, pointer: string = MASTER): Moved | undefined {
  const record = volume.pointers().find(({ name }) => name === pointer);
  const snapshot = record === undefined ? undefined : volume.find(record.snapshot);
  if (snapshot === undefined || (volume.role === "replica" && pointer !== MASTER)) return undefined;
  const { id, cp, root } = snapshot;
  const { moved = [], movedTo = {} } = volume.local;
  const taken = { snapshot: id, epoch: decodeRoot(volume.io.read(root)).epoch, cp };
  const noted = volume.role === "replica" ? undefined : movedTo[id];
  const isMade = noted !== undefined && noted.cp <= volume.superblock.cp;
  return newestOf([...moved, taken, ...(isMade ? [{ snapshot: id, ...noted }] : [])], id);
}

/** The latest move that was told here, or the latest to a snapshot. */
export function newestOf(moved: readonly Moved[] = [], snapshot?: string): Moved | undefined {
  return moved.filter((one) => snapshot === undefined || one.snapshot === snapshot)
    .reduce((a: Moved | undefined, b) => a === undefined || isEarlier(a, b) ? b : a, undefined);
}

/** Whether something was said of a pointer before something else was. */
export function isEarlier(a: Omit<Moved, "snapshot">, b: Omit<Moved, "snapshot">): boolean {
  return a.epoch < b.epoch || (a.epoch === b.epoch && a.cp < b.cp);
}

/**
 * Notes at a replica what it was told, before it takes that. What was told of the snapshot that is current
 * stays until then: the sites below ask for it.
 */
export function noteMoved(state: LocalState, moved: Moved, current: string | undefined): void {
  const all = [...state.moved ?? [], moved];
  state.moved = [...new Set([newestOf(all, current), newestOf(all)])]
    .filter((one) => one !== undefined);
}

/** Notes a move that the next consistency point will have. */
export function noteMove(
  state: LocalState,
  to: Snapshot,
  at: Omit<Moved, "snapshot">,
  kept: Iterable<string>,
): void {
  const { movedTo = {} } = state;
  const ids = new Set(kept);
  state.movedTo = {
    ...Object.fromEntries(Object.entries(movedTo).filter(([id]) => ids.has(id))),
    [to.id]: at,
  };
}
