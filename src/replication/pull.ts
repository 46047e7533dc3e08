/**
 * Pulling: asking parents what there is, taking it, making it current, and saying so.
 *
 * States of a pull: ask -> (nothing new) confirm; ask -> transfer -> verify -> flip -> confirm. A cut
 * transfer goes on at the same parent or the next one from where it was; a confirmation that was lost
 * is repeated by the next pull.
 *
 * Invariants:
 * 1. A node never takes an image from a chain that it is part of.
 * 2. A parent that is behind this node does not take it back: going back happens only when the parent
 *    knows this node's snapshot and its master is another one.
 * 3. An origin pulls nothing; a parent whose history went apart from this node's, or that is of an older
 *    epoch, is not followed: neither is changed in silence (see `volume/history.ts`).
 * 4. Readers are served from the old root until the flip, and from the old file until the new one is
 *    complete.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { decodeSeal, type Seal, sealedId } from "../format/mod.ts";
import { type Applied, type ApplyOptions, type ImageSource, planeImage } from "../image/mod.ts";
import { relationOf, type Volume } from "../volume/mod.ts";
import type { Node } from "./node.ts";
import { backoffOf, pause } from "./pause.ts";
import type { Peer, PeerPlan, PeerRequest } from "./peer.ts";
import { receiveImage, type ReceiveOptions } from "./receive.ts";
import { noteSeal, type Trust } from "./trust.ts";

/** Longest time that a parent may make this node wait before it is asked again, ms. */
const LONGEST_WAIT_MS = 60_000;

/** Settings of a {@linkcode Puller}. */
export interface PullOptions extends Pick<ReceiveOptions, "volumeOptions" | "drainMs" | "opened"> {
  /** In order of preference. */
  readonly parents: readonly Peer[];
  /** Failures in a row without a byte of progress before a pull gives up; 5 by default. */
  readonly attempts?: number;
  /** First pause between attempts, ms; doubles each time. 200 by default. */
  readonly backoffMs?: number;
  /** `all`: takes every snapshot that is newer than the one here, and keeps them. */
  readonly snapshots?: "all" | undefined;
  /** Pointer of the parent's that is followed; its master by default. */
  readonly pointer?: string | undefined;
}

/** What a pull did. */
export type PullResult =
  & {
    /** Why the parent does not know where this node stands now; absent when it does. */
    readonly unconfirmed?: string;
  }
  & (
    | { readonly kind: "current"; readonly snapshot: string; readonly name: string }
    | ({ readonly kind: "full" | "increment"; readonly parent: string } & Applied)
  );

/** See the module. One pull at a time: callers that come while one runs get its result. */
export class Puller {
  readonly #node: Node;
  readonly #options: PullOptions;
  #running: Promise<PullResult> | undefined;
  /** The parent whose image was found wrong last: asked after all others. */
  #suspect: Peer | undefined;

  constructor(node: Node, options: PullOptions) {
    this.#node = node;
    this.#options = options;
  }

  /**
   * Pulls once.
   * @throws {VolcastError} `io` when no parent can be reached; `diverged`, `damaged` from them.
   */
  pull(signal?: AbortSignal): Promise<PullResult> {
    this.#running ??= this.#node.pulling((ending) => this.#pull(ending), signal)
      .finally(() => this.#running = undefined);
    return this.#running;
  }

  async #pull(signal: AbortSignal): Promise<PullResult> {
    const node = this.#node;
    if (node.volumeIfAny?.role === "origin") throw isOrigin(node);
    try {
      const { peer, plan } = await this.#ask(signal);
      const current = node.volumeIfAny?.current;
      if (current?.id === plan.top) {
        await this.#keepSeal(plan);
        return {
          kind: "current",
          snapshot: current.id,
          name: current.name,
          ...await this.#confirm(peer, signal),
        };
      }
      const applied = await this.#takeOrFull(peer, plan, signal).catch((error) => {
        const isSuspect = error instanceof VolcastError &&
          ["damaged", "untrusted"].includes(error.kind);
        if (isSuspect) this.#suspect = peer;
        throw error;
      });
      return {
        kind: applied.base === undefined ? "full" : "increment",
        parent: peer.name,
        ...applied,
        ...await this.#confirm(peer, signal),
      };
    } catch (error) {
      const parent = node.upstream?.parent ?? this.#options.parents[0].name;
      node.upstream = { ...node.upstream, parent, error: messageOf(error) };
      throw error;
    }
  }

  /** Takes an image; where there is no room to stage one since a shadow, a full one in its place. */
  async #takeOrFull(peer: Peer, plan: PeerPlan, signal: AbortSignal): Promise<Applied> {
    try {
      return await this.#take(peer, plan, signal);
    } catch (error) {
      const isSinceShadow = plan.base?.includes("~") === true;
      const lacksRoom = error instanceof VolcastError && error.kind === "full";
      if (!isSinceShadow || !lacksRoom || this.#node.volume.poisoned !== undefined) throw error;
      return await this.#take(peer, await peer.plan(this.#request(undefined), signal), signal);
    }
  }

  /** The first parent, in order of preference, that can serve. */
  async #ask(signal?: AbortSignal): Promise<{ peer: Peer; plan: PeerPlan }> {
    const node = this.#node;
    const current = node.volumeIfAny?.current;
    const failures: unknown[] = [];
    for (const peer of this.#inOrder()) {
      try {
        const plan = await this.#plan(peer, signal);
        if (plan.chain.includes(node.name)) throw loop(node.name, peer, plan);
        const volumeId = node.volumeIfAny?.volumeId;
        if (volumeId !== undefined && volumeId !== plan.volumeId) {
          throw otherVolume(peer, plan.volumeId, volumeId);
        }
        checkHistory(peer, plan, node.volumeIfAny);
        node.trust?.check({ ...plan, from: peer.name }, node.volumeIfAny);
        const behind = current !== undefined && plan.base === undefined &&
          plan.top !== current.id && cpOf(plan.top) < current.cp;
        if (behind) throw isBehind(peer, plan, current.name);
        node.chain = plan.chain;
        node.upstream = {
          parent: peer.name,
          snapshot: plan.top,
          name: plan.topName,
          seenAt: Date.now(),
        };
        return { peer, plan };
      } catch (error) {
        signal?.throwIfAborted();
        failures.push(error);
      }
    }
    if (failures.length === 1) throw failures[0];
    const diverged = failures.find((one) => one instanceof VolcastError && one.kind === "diverged");
    throw new VolcastError(
      diverged === undefined ? "io" : "diverged",
      `Cannot pull: none of ${failures.length} parents can serve (${
        failures.map(messageOf).join("; ")
      })`,
      (diverged as VolcastError | undefined)?.hint,
    );
  }

  /** What a parent would send; where it lacks but the plane of what is here, after bringing that. */
  async #plan(peer: Peer, signal?: AbortSignal): Promise<PeerPlan> {
    const node = this.#node;
    const volume = node.volumeIfAny;
    const current = volume?.current;
    const request = this.#request(current?.id);
    const plan = await peer.plan(request, signal);
    if (current === undefined || plan.wantsPlane !== current.id) return plan;
    try {
      await peer.bringPlane(node.name, planeImage(volume!, current), signal);
    } catch (error) {
      // A full image does as well; why it is one is told with what it brings.
      if (!(error instanceof VolcastError)) throw error;
      signal?.throwIfAborted();
      return plan;
    }
    return await peer.plan(request, signal);
  }

  #request(since: string | undefined): PeerRequest {
    const { snapshots, pointer } = this.#options;
    return {
      site: this.#node.name,
      ...(since === undefined ? {} : { since }),
      ...(snapshots === undefined ? {} : { snapshots }),
      ...(pointer === undefined ? {} : { to: pointer }),
    };
  }

  #inOrder(): readonly Peer[] {
    const { parents } = this.#options;
    return this.#suspect === undefined
      ? parents
      : [...parents.filter((peer) => peer !== this.#suspect), this.#suspect];
  }

  async #take(peer: Peer, plan: PeerPlan, signal?: AbortSignal): Promise<Applied> {
    const source = this.#source(peer, plan, signal);
    const { trust } = this.#node;
    const applied = await receiveImage(this.#node, plan, source, {
      ...this.#options,
      ...(signal === undefined ? {} : { signal }),
      ...(trust === undefined ? {} : believing(trust, plan.seal!, decodeSeal(plan.seal!))),
    });
    if (trust === undefined) await this.#keepSeal(plan);
    return applied;
  }

  /** Keeps a seal that is newer than the one here: for the sites below, and as the measure of others. */
  async #keepSeal({ seal: bytes, top, volumeId }: PeerPlan): Promise<void> {
    if (bytes === undefined) return;
    const { volume } = this.#node;
    const seal = decodeSeal(bytes);
    if (seal.volumeId !== volumeId || sealedId(seal) !== top) return;
    if (seal.sequence <= (volume.local.sealSequence ?? 0)) return;
    await volume.updateLocal((state) => noteSeal(state, bytes, seal));
  }

  #source(first: Peer, plan: PeerPlan, signal?: AbortSignal): ImageSource {
    const { parents, attempts = 5, backoffMs = 200 } = this.#options;
    // The one that was asked first, then the others in order: they have the same bytes.
    const order = [first, ...parents.filter((peer) => peer !== first)];
    let turn = 0;
    let failures = 0;
    return {
      open: async (offset) => {
        for (;;) {
          try {
            return await order[turn % order.length].open(plan, offset, signal);
          } catch (error) {
            signal?.throwIfAborted();
            turn++;
            if (++failures >= attempts * order.length) throw error;
            // Who has all it can do says when; until then others are asked.
            const wanted = error instanceof VolcastError ? error.retryAfterMs ?? 0 : 0;
            const waitMs = failures % order.length === 0 ? Math.min(wanted, LONGEST_WAIT_MS) : 0;
            await pause(Math.max(waitMs, backoffOf(backoffMs, failures)), signal);
          }
        }
      },
      retry: async (error, progressed) => {
        if (signal?.aborted) return false;
        failures = progressed ? 0 : failures + 1;
        // What came was wrong, not just cut: ask somebody else.
        if (error instanceof VolcastError || failures > 1) turn++;
        if (failures >= attempts) return false;
        await pause(backoffOf(backoffMs, failures), signal);
        return true;
      },
    };
  }

  /**
   * Tells the parent where this node stands, each time: the parent may have forgotten. A failure is not
   * one of the pull, but it is told, since the parent keeps nothing for a node that it does not know.
   */
  async #confirm(peer: Peer, signal?: AbortSignal): Promise<{ unconfirmed?: string }> {
    const node = this.#node;
    try {
      await peer.confirm(node.name, node.position(), signal);
      return {};
    } catch (error) {
      return { unconfirmed: messageOf(error) };
    }
  }
}

/** How an image is looked at before it becomes current, where not everybody is believed. */
export function believing(
  trust: Trust,
  bytes: Uint8Array,
  seal: Seal,
): Pick<ApplyOptions, "accept" | "authenticate"> {
  return {
    accept: (header) => trust.checkHeader(seal, header),
    authenticate: (_, arrived) => trust.checkContent(bytes, seal, arrived),
  };
}

function cpOf(id: string): number {
  return Number(id.split("-")[0]);
}

function loop(name: string, peer: Peer, plan: PeerPlan): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull from ${peer.name}: its chain of parents (${
      plan.chain.join(" <- ")
    }) contains this node, '${name}'`,
    "Give each node a name of its own (--site) and a parent that is not below it",
  );
}

/** A parent that does not know this node's snapshot may only be one of its line; see `history.ts`. */
function checkHistory(peer: Peer, plan: PeerPlan, volume: Volume | undefined): void {
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

function isOrigin({ path, volume }: Node): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull into ${path}: it is an origin, of epoch ${volume.root.epoch}, and has a history of its own`,
    `To follow a parent, and see first what would be lost by that: volcast resync ${path} --parent URL`,
  );
}

function otherVolume(peer: Peer, theirs: string, ours: string): VolcastError {
  return new VolcastError(
    "diverged",
    `Cannot pull from ${peer.name}: it has volume ${theirs}, this is a replica of ${ours}`,
    "Check the parent's URL. To follow it nevertheless, begin with another path",
  );
}

function isBehind(peer: Peer, plan: PeerPlan, name: string): VolcastError {
  return new VolcastError(
    "io",
    `Cannot pull from ${peer.name}: it is behind, at '${plan.topName}', this node is at '${name}'`,
    "It will catch up; nothing was changed here",
  );
}
