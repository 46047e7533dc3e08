/**
 * Pulling: asking parents what there is, taking it, making it current, and saying so.
 *
 * States of a pull: ask -> (nothing new) confirm; ask -> transfer -> verify -> flip -> confirm. A cut
 * transfer goes on at the same parent or the next one from where it was; a confirmation that was lost
 * is repeated by the next pull.
 *
 * Invariants:
 * 1. A node never takes an image from a chain that it is part of.
 * 2. A parent that is behind this node does not take it back. Which of two that say different things of a
 *    pointer is behind says the moment at which the pointer was moved (see `volume/moved.ts`); of a parent
 *    that does not tell it, the age of what it has, unless it knows this node's snapshot.
 * 3. An origin pulls nothing; a parent whose history went apart from this node's, or that is of an older
 *    epoch, is not followed: neither is changed in silence (see `volume/history.ts`).
 * 4. Silence, a broken line and what something between here and a parent answers are never its "no": they
 *    lead to another attempt or another parent, and not to a full image in the place of an increment.
 * 5. Every wait ends: with an answer, with the patience for it, or with the watchdog (`watchdog.ts`).
 * 6. Readers are served from the old root until the flip, and from the old file until the new one is
 *    complete.
 *
 * @module
 */

import {
  askedMsOf,
  isPassing,
  messageOf,
  orAborted,
  type Patience,
  patienceBy,
  retrying,
  UnansweredError,
  VolcastError,
  waitMsOf,
} from "../core/mod.ts";
import { decodeSeal, type Seal, sealedId } from "../format/mod.ts";
import { type Applied, type ApplyOptions, type ImageSource, planeImage } from "../image/mod.ts";
import { isEarlier, newestOf, noteMoved } from "../volume/mod.ts";
import type { Node } from "./node.ts";
import type { Peer, PeerPlan, PeerRequest } from "./peer.ts";
import {
  checkHistory,
  cpOf,
  isBehind,
  isFinal,
  isOrigin,
  isRefusal,
  loop,
  noneOf,
  otherVolume,
  planeNotBrought,
} from "./pull_refusals.ts";
import { receiveImage, type ReceiveOptions } from "./receive.ts";
import { noteSeal, type Trust } from "./trust.ts";
import { guarded } from "./watchdog.ts";

/** What the slowest line carries that is waited for. */
export const SLOW_BYTES_PER_MS = 10;

/** Settings of a {@linkcode Puller}. */
export interface PullOptions extends Pick<ReceiveOptions, "volumeOptions" | "drainMs" | "opened"> {
  /** In order of preference. */
  readonly parents: readonly Peer[];
  /** How often parents are asked again, and when. */
  readonly patience?: Patience | undefined;
  /** Longest time in which nothing happens before a pull is ended, ms; 120,000 by default. */
  readonly stuckMs?: number | undefined;
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

/** What a parent would send. */
interface Offer {
  readonly peer: Peer;
  readonly plan: PeerPlan;
}

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
    const { watch } = this.#node;
    this.#running ??= this.#node.pulling(
      (ending) =>
        guarded((stopping) => this.#pull(stopping), {
          ...watch.guarded(this.#options.stuckMs),
          clock: this.#node.clock,
        }, ending),
      signal,
    )
      .finally(() => this.#running = undefined);
    return this.#running;
  }

  async #pull(signal: AbortSignal): Promise<PullResult> {
    const node = this.#node;
    if (node.volumeIfAny?.role === "origin") throw isOrigin(node);
    try {
      const result = await this.#pullOnce(signal);
      node.watch.succeeded();
      return result;
    } catch (error) {
      // What broke when the watchdog ended it broke because of that.
      const reason = signal.reason instanceof VolcastError ? signal.reason : error;
      const parent = node.upstream?.parent ?? this.#options.parents[0].name;
      node.upstream = { ...node.upstream, parent, error: messageOf(reason) };
      node.watch.failed(messageOf(reason));
      throw reason;
    }
  }

  async #pullOnce(signal: AbortSignal): Promise<PullResult> {
    const node = this.#node;
    const { peer, plan } = await this.#ask(signal);
    this.#noteUpstream(peer, plan);
    const current = node.volumeIfAny?.current;
    if (current?.id === plan.top) {
      await this.#keepSeal(plan);
      await this.#keepMoved(plan);
      return {
        kind: "current",
        snapshot: current.id,
        name: current.name,
        ...await this.#confirm(peer, signal),
      };
    }
    node.watch.enter("receiving", peer.name);
    const applied = await this.#takeOrFull(peer, plan, signal).catch((error) => {
      const isSuspect = error instanceof VolcastError &&
        ["damaged", "untrusted"].includes(error.kind);
      if (isSuspect) this.#suspect = peer;
      throw error;
    });
    // Whoever was passed over since then gets another chance with the next image.
    this.#suspect = undefined;
    return {
      kind: applied.base === undefined ? "full" : "increment",
      parent: peer.name,
      ...applied,
      ...await this.#confirm(peer, signal),
    };
  }

  /** Takes an image; where there is no room to stage one since a shadow, a full one in its place. */
  async #takeOrFull(peer: Peer, first: PeerPlan, signal: AbortSignal): Promise<Applied> {
    try {
      return await this.#take(peer, first, signal);
    } catch (error) {
      const isSinceShadow = first.base?.includes("~") === true;
      const lacksRoom = error instanceof VolcastError && error.kind === "full";
      if (!isSinceShadow || !lacksRoom || this.#node.volume.poisoned !== undefined) throw error;
      const plan = await orAborted(peer.plan(this.#request(undefined), signal), signal);
      return await this.#take(peer, plan, signal);
    }
  }

  /**
   * The first parent, in order of preference, that can serve; all are asked again where that may help. A full
   * image in the place of an increment is taken only when no other parent has the increment, and none of
   * them is only silent for now.
   */
  async #ask(signal: AbortSignal): Promise<Offer> {
    const patience = this.#patience;
    for (let round = 1;; round++) {
      const failures: unknown[] = [];
      let full: Offer | undefined;
      for (const peer of this.#inOrder()) {
        this.#node.watch.enter("asking", peer.name);
        try {
          const plan = await this.#askOne(peer, signal);
          if (this.#isAllAgain(plan)) full ??= { peer, plan };
          else if (full === undefined || full.plan.top === plan.top) return { peer, plan };
        } catch (error) {
          signal.throwIfAborted();
          failures.push(error);
        }
      }
      // One that says "not now" itself is asked again with the next pull, or when it announces a master.
      const passing = failures.filter((one) => one instanceof UnansweredError && isPassing(one))
        .sort((a, b) => askedMsOf(b) - askedMsOf(a));
      if (passing.length === 0 || round >= patience.attempts) {
        if (full !== undefined) return full;
        throw noneOf(failures);
      }
      this.#node.watch.enter("asking");
      await patience.pause(waitMsOf(patience, round, passing[0]), signal);
      signal.throwIfAborted();
    }
  }

  /** Whether a plan is all of a release, although another one is here. */
  #isAllAgain({ base, top }: PeerPlan): boolean {
    const current = this.#node.volumeIfAny?.current;
    return current !== undefined && base === undefined && top !== current.id;
  }

  /** What a parent would send, if that may be taken. */
  async #askOne(peer: Peer, signal: AbortSignal): Promise<PeerPlan> {
    const node = this.#node;
    const current = node.volumeIfAny?.current;
    const plan = await this.#plan(peer, signal);
    if (plan.chain.includes(node.name)) throw loop(node.name, peer, plan);
    const volumeId = node.volumeIfAny?.volumeId;
    if (volumeId !== undefined && volumeId !== plan.volumeId) {
      throw otherVolume(peer, plan.volumeId, volumeId);
    }
    checkHistory(peer, plan, node.volumeIfAny);
    node.trust?.check({ ...plan, from: peer.name }, node.volumeIfAny);
    if (current !== undefined && plan.top !== current.id && this.#isLate(plan)) {
      throw isBehind(peer, plan, current.name);
    }
    return plan;
  }

  #noteUpstream(peer: Peer, plan: PeerPlan): void {
    const node = this.#node;
    node.chain = plan.chain;
    node.upstream = {
      parent: peer.name,
      snapshot: plan.top,
      name: plan.topName,
      seenAt: node.clock.now(),
      heardAt: node.clock.elapsed(),
    };
  }

  /** Whether a parent has not heard yet what is known here. */
  #isLate({ base, top, moved }: PeerPlan): boolean {
    const { trust, volume: { current, local } } = this.#node;
    // Where only what is sealed counts, the numbers of seals tell it, and nobody's word does.
    const known = newestOf(local.moved);
    if (moved !== undefined && known !== undefined && trust === undefined) {
      return isEarlier(moved, known);
    }
    return base === undefined && cpOf(top) < current.cp;
  }

  /** What a parent would send; where it lacks but the plane of what is here, after bringing that. */
  async #plan(peer: Peer, signal: AbortSignal): Promise<PeerPlan> {
    const node = this.#node;
    const volume = node.volumeIfAny;
    const current = volume?.current;
    const request = this.#request(current?.id);
    const plan = await orAborted(peer.plan(request, signal), signal);
    // Before anything is taken: a seal that cannot be read would end the pull when the image is current.
    if (plan.seal !== undefined) decodeSeal(plan.seal);
    if (current === undefined || plan.wantsPlane !== current.id) return plan;
    try {
      await retrying(() => {
        const plane = planeImage(volume!, current);
        node.watch.enter("bringing", peer.name, plane.byteCount / SLOW_BYTES_PER_MS);
        return orAborted(peer.bringPlane(node.name, plane, signal), signal);
      }, { patience: this.#patience, signal });
      node.watch.enter("asking", peer.name);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof VolcastError)) throw error;
      if (!isRefusal(error)) throw planeNotBrought(peer, current.name, error);
      // A full image does as well; why it is one is told with what it brings.
      return plan;
    }
    const next = await orAborted(peer.plan(request, signal), signal);
    if (next.wantsPlane !== current.id) return next;
    const reason = new UnansweredError("it asks for it again", "", { isPassing: true });
    throw planeNotBrought(peer, current.name, reason);
  }

  get #patience(): Patience {
    return this.#options.patience ?? patienceBy(this.#node.clock);
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

  async #take(peer: Peer, plan: PeerPlan, signal: AbortSignal): Promise<Applied> {
    const source = this.#source(peer, plan, signal);
    const { trust } = this.#node;
    const applied = await receiveImage(this.#node, plan, source, {
      ...this.#options,
      progress: (done, total) => this.#node.watch.progress(done, total),
      signal,
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

  /** The pointer may have been elsewhere, and come back to what is here. */
  async #keepMoved({ moved, top }: PeerPlan): Promise<void> {
    const { volume } = this.#node;
    if (moved === undefined) return;
    const known = newestOf(volume.local.moved, top);
    if (known !== undefined && !isEarlier(known, moved)) return;
    await volume.updateLocal((state) => noteMoved(state, { snapshot: top, ...moved }, top));
  }

  #source(first: Peer, plan: PeerPlan, signal: AbortSignal): ImageSource {
    const patience = this.#patience;
    const { watch } = this.#node;
    // The one that was asked first, then the others in order: they have the same bytes.
    const order = [first, ...this.#options.parents.filter((peer) => peer !== first)];
    /** How each failed last: who asked to be left alone is. */
    const failed = new Map<Peer, unknown>();
    let turn = 0;
    let failures = 0;
    const peerNow = () => order[turn % order.length];
    const wait = async () => {
      const waitMs = waitMsOf(patience, Math.max(1, failures), failed.get(peerNow()));
      await patience.pause(waitMs, signal);
      signal.throwIfAborted();
    };
    return {
      open: async (offset) => {
        for (;;) {
          const peer = peerNow();
          watch.enter("receiving", peer.name);
          try {
            const stream = await orAborted(peer.open(plan, offset, signal), signal);
            failed.delete(peer);
            return stream;
          } catch (error) {
            signal.throwIfAborted();
            failed.set(peer, error);
            failures++;
            // Whoever would answer the same again is not asked for this image any more.
            if (isFinal(error)) order.splice(turn % order.length, 1);
            else turn++;
            if (failures >= patience.attempts * order.length) throw error;
            await wait();
          }
        }
      },
      retry: async (error, progressed) => {
        if (signal.aborted) return false;
        failures = progressed ? 0 : failures + 1;
        // What came was wrong, not just cut: ask somebody else.
        if (error instanceof VolcastError || failures > 1) turn++;
        if (failures >= patience.attempts) return false;
        await wait();
        return true;
      },
    };
  }

  /**
   * Tells the parent where this node stands, each time: the parent may have forgotten. A failure is not
   * one of the pull, but it is told, since the parent keeps nothing for a node that it does not know.
   */
  async #confirm(peer: Peer, signal: AbortSignal): Promise<{ unconfirmed?: string }> {
    const node = this.#node;
    node.watch.enter("confirming", peer.name);
    try {
      await retrying(
        () => orAborted(peer.confirm(node.name, node.position(), signal), signal),
        { patience: this.#patience, signal },
      );
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
