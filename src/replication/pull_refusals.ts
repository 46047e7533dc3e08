/**
 * Why a parent is not followed, and what its refusals mean.
 *
 * @module
 */

import { askedMsOf, messageOf, UnansweredError, VolcastError } from "../core/mod.ts";
import { relationOf, type Volume } from "../volume/mod.ts";
import type { Node } from "./node.ts";
import type { Peer, PeerPlan } from "./peer.ts";

/** Whether the same question would be answered in the same way. */
export function isFinal(error: unknown): boolean {
  if (error instanceof UnansweredError) return !error.isPassing;
  return error instanceof VolcastError && !["io", "busy"].includes(error.kind);
}

/** Statuses of somebody between here and a parent who will never let through what was asked. */
const NEVER_PASSES = [405, 413, 501];

/** Whether a parent said that it does not want something, or nobody will ever let it through. */
export function isRefusal(error: VolcastError): boolean {
  if (error instanceof UnansweredError) return NEVER_PASSES.includes(error.status ?? 0);
  return error.kind !== "io" && error.kind !== "busy";
}

/** The plane did not come through, and nobody said that it need not. */
export function planeNotBrought(peer: Peer, name: string, error: VolcastError): VolcastError {
  return new UnansweredError(
    `Cannot bring the plane of '${name}' to ${peer.name}, which needs it for an increment: ${error.message}`,
    "It is tried again, and no full image is taken meanwhile; a proxy has to let PUT /sites/.../plane pass",
    { isPassing: false, retryAfterMs: error.retryAfterMs },
  );
}

/** Why nobody can serve. */
export function noneOf(failures: readonly unknown[]): unknown {
  if (failures.length === 1) return failures[0];
  const diverged = failures.find((one) => one instanceof VolcastError && one.kind === "diverged");
  return new VolcastError(
    diverged === undefined ? "io" : "diverged",
    `Cannot pull: none of ${failures.length} parents can serve (${
      failures.map(messageOf).join("; ")
    })`,
    (diverged as VolcastError | undefined)?.hint,
    { retryAfterMs: Math.max(...failures.map(askedMsOf)) },
  );
}

/** Consistency point of a snapshot, by its id. */
export function cpOf(id: string): number {
  return Number(id.split("-")[0]);
}

/** This node is above itself. */
export function loop(name: string, peer: Peer, plan: PeerPlan): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull from ${peer.name}: its chain of parents (${
      plan.chain.join(" <- ")
    }) contains this node, '${name}'`,
    "Give each node a name of its own (--site) and a parent that is not below it",
  );
}

/** A parent that does not know this node's snapshot may only be one of its line; see `history.ts`. */
export function checkHistory(peer: Peer, plan: PeerPlan, volume: Volume | undefined): void {
  const { history, base, top } = plan;
  if (volume === undefined || history === undefined || base !== undefined) return;
  const { current } = volume;
  if (top === current.id) return;
  // One that is an older part of this node's line is behind, which the CPs tell.
  if (relationOf(volume.history, history) !== "diverged") return;
  const here = volume.history.epoch;
  throw new VolcastError(
    "diverged",
    `Cannot pull from ${peer.name}: its history, in epoch ${history.epoch}, and this node's, in epoch ` +
      `${here} at '${current.name}', went apart`,
    history.epoch < here
      ? `It is a source from before a takeover: run volcast resync there, or choose another parent`
      : `To see what would be lost by going back to what both have: volcast resync VOLUME --parent ${peer.name}`,
  );
}

/** An origin follows nobody. */
export function isOrigin({ path, volume }: Node): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull into ${path}: it is an origin, of epoch ${volume.root.epoch}, and has a history of its own`,
    `To follow a parent, and see first what would be lost by that: volcast resync ${path} --parent URL`,
  );
}

/** What a parent has is another volume. */
export function otherVolume(peer: Peer, theirs: string, ours: string): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull from ${peer.name}: it has volume ${theirs}, this is a replica of ${ours}`,
    "Check the parent's URL. To follow it nevertheless, begin with another path",
  );
}

/** A parent has not yet what is here. */
export function isBehind(peer: Peer, plan: PeerPlan, name: string): VolcastError {
  return new VolcastError(
    "io",
    `Cannot pull from ${peer.name}: it is behind, at '${plan.topName}', this node is at '${name}'`,
    "It will catch up; nothing was changed here",
  );
}
