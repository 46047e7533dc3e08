/**
 * A node: a volume under a name, with what is known of the nodes above and below it. The volume object
 * may be replaced (a full image comes in a file of its own), so everybody asks the node for it.
 *
 * @module
 */

import { type Clock, HOST_CLOCK, VolcastError } from "../core/mod.ts";
import {
  homeAt,
  MASTER,
  Mutex,
  type SiteState,
  type Volume,
  type VolumeHome,
} from "../volume/mod.ts";
import { NodeEvents } from "./events.ts";
import type { Mirror } from "./mirror.ts";
import type { SitePosition } from "./peer.ts";
import { PullWatch } from "./pull_status.ts";
import type { Receiver } from "./receiver.ts";
import type { Scrub } from "./scrub.ts";
import type { Trust } from "./trust.ts";

/** What is known of the parent. */
export interface Upstream {
  /** Its URL. */
  readonly parent: string;
  /** Id of its master when last seen. */
  readonly snapshot?: string;
  readonly name?: string;
  /** When it was last seen, ms since 1970. */
  readonly seenAt?: number;
  /** The same by `performance.now`, which no setting of the clock moves. */
  readonly heardAt?: number;
  /** Why the last attempt failed, absent when it did not. */
  readonly error?: string;
}

/** See the module. */
export class Node {
  /** This node's name among sites. */
  readonly name: string;
  /** Path of the volume's file. */
  readonly path: string;
  /** Where full images come in. */
  readonly home: VolumeHome;
  readonly clock: Clock;
  readonly events = new NodeEvents();
  /** Nodes above, nearest first, as the parent told. */
  chain: readonly string[] = [];
  upstream: Upstream | undefined;
  /** How pulling goes; at a node that has parents. */
  readonly watch: PullWatch = new PullWatch();
  /** Why the parent does not know where this node stands, `undefined` when it does. */
  unconfirmed: string | undefined;
  /** Bytes of a transfer under way. */
  transfer: { readonly top: string; readonly done: number; readonly total: number } | undefined;
  /** Bytes that a site's base may keep; `undefined` without a limit. */
  pinBudgetBytes: number | undefined;
  readonly #watchers = new Set<() => void>();
  /** Takes images that a source pushes; at a standby. */
  receiver: Receiver | undefined;
  /** Looks at every block now and then, and heals bad ones. */
  scrub: Scrub | undefined;
  /** Keep standbys up to date with this node's volume. */
  readonly mirrors: Mirror[] = [];
  /** Seals are being made: what has no seal now may have one then. At an origin that signs. */
  sealing: Promise<void> | undefined;
  /** Whom this node believes; everybody when absent. */
  trust: Trust | undefined;
  #volume: Volume | undefined;
  /** Pulls, and what must not happen during one. */
  readonly #pulls = new Mutex();
  #pulling: AbortController | undefined;

  /**
   * @param options.home What is at the path by default.
   * @param options.clock The host's by default.
   */
  constructor(
    options: { name: string; path: string; volume?: Volume; home?: VolumeHome; clock?: Clock },
  ) {
    this.name = options.name;
    this.path = options.path;
    this.home = options.home ?? homeAt(options.path);
    this.clock = options.clock ?? HOST_CLOCK;
    this.#volume = options.volume;
  }

  /** The volume. @throws {VolcastError} `busy` while a first full image is still coming. */
  get volume(): Volume {
    if (this.#volume !== undefined) return this.#volume;
    throw new VolcastError(
      "busy",
      "Cannot answer: the first full image has not come in yet",
      "Try again later; GET /status shows how far it is",
    );
  }

  /** The volume, if there is one. */
  get volumeIfAny(): Volume | undefined {
    return this.#volume;
  }

  /** Whether there is something to serve: at an edge, a first master. */
  get isReady(): boolean {
    return this.#volume !== undefined && this.#volume.hasRoot &&
      (this.upstream === undefined || this.#volume.role === "replica");
  }

  /** Puts another volume in the place of the present one. @returns The one that was there. */
  replace(volume: Volume): Volume | undefined {
    const old = this.#volume;
    this.#volume = volume;
    return old;
  }

  /** Calls `watcher` after each change of the volume or of the sites. @returns A function that ends it. */
  onChange(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** Something was published, taken, deleted, moved or confirmed. */
  changed(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Tells everybody that `master` moved. */
  announceMaster(): void {
    const master = this.#volume?.find(MASTER);
    if (master === undefined) return;
    this.events.emit({ type: "master", snapshot: master.id, name: master.name });
  }

  /** Runs a pull. Its signal fires when `signal` does, and when the node is promoted. */
  pulling<T>(work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#pulls.run(async () => {
      const ending = new AbortController();
      const abort = () => ending.abort(signal?.reason);
      signal?.addEventListener("abort", abort);
      if (signal?.aborted) abort();
      this.#pulling = ending;
      try {
        return await work(ending.signal);
      } catch (error) {
        // What broke then broke because of that.
        throw ending.signal.reason instanceof VolcastError ? ending.signal.reason : error;
      } finally {
        this.#pulling = undefined;
        signal?.removeEventListener("abort", abort);
      }
    });
  }

  /**
   * Takeover: makes this replica the origin. A pull under way ends, and none follows.
   * @throws {VolcastError} See {@linkcode Volume.promote}; the node then is what it was.
   */
  async promote(): Promise<void> {
    const { volume } = this;
    if (volume.role === "replica") {
      this.#pulling?.abort(new VolcastError("busy", "Cannot pull: this node is being promoted"));
    }
    // A full image may have taken the volume's place meanwhile.
    await this.#pulls.run(() => this.volume.promote());
    this.upstream = undefined;
    this.unconfirmed = undefined;
    this.chain = [];
    this.events.emit({ type: "role", role: "origin", epoch: this.volume.root.epoch });
  }

  /** Where this node stands and what its children need, for its parent. */
  position(): SitePosition {
    const needs = new Set<string>();
    for (const site of Object.values(this.volume.local.sites)) {
      if (site.snapshot !== undefined) needs.add(site.snapshot);
      for (const id of site.needs) needs.add(id);
    }
    return { snapshot: this.volume.current.id, needs: [...needs] };
  }

  /**
   * Notes where a site stands. Idempotent.
   * @throws {VolcastError} `not-found` when the snapshot is not known here.
   */
  async confirm(site: string, position: SitePosition): Promise<SiteState> {
    const { volume } = this;
    volume.resolveBase(position.snapshot);
    // Needs that nobody here can serve any more would keep nothing.
    const needs = position.needs.filter((id) => volume.findBase(id) !== undefined);
    const known = Object.hasOwn(volume.local.sites, site) ? volume.local.sites[site] : undefined;
    // Sites repeat themselves; what is known already costs no write.
    const same = known?.snapshot === position.snapshot &&
      known.needs.length === needs.length && known.needs.every((id, i) => id === needs[i]);
    if (same) return known;
    const state = { snapshot: position.snapshot, needs, confirmedAt: this.clock.now() };
    await volume.updateLocal((local) => {
      local.sites[site] = state;
    });
    return state;
  }

  /** Forgets a site: nothing is kept for it any more. @throws {VolcastError} `not-found`. */
  async forget(site: string): Promise<void> {
    if (!Object.hasOwn(this.volume.local.sites, site)) {
      throw new VolcastError("not-found", `Cannot forget the site '${site}': it is not known here`);
    }
    await this.volume.updateLocal((local) => {
      delete local.sites[site];
    });
  }
}
