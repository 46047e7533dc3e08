/**
 * A node: a volume under a name, with what is known of the nodes above and below it. The volume object
 * may be replaced (a full image comes in a file of its own), so everybody asks the node for it.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { MASTER, type SiteState, type Volume } from "../volume/mod.ts";
import { NodeEvents } from "./events.ts";
import type { Mirror } from "./mirror.ts";
import type { SitePosition } from "./peer.ts";
import type { Receiver } from "./receiver.ts";

/** What is known of the parent. */
export interface Upstream {
  /** Its URL. */
  readonly parent: string;
  /** Id of its master when last seen. */
  readonly snapshot?: string;
  readonly name?: string;
  /** When it was last seen, ms since 1970. */
  readonly seenAt?: number;
  /** Why the last attempt failed, absent when it did not. */
  readonly error?: string;
}

/** See the module. */
export class Node {
  /** This node's name among sites. */
  readonly name: string;
  /** Path of the volume's file. */
  readonly path: string;
  readonly events = new NodeEvents();
  /** Nodes above, nearest first, as the parent told. */
  chain: readonly string[] = [];
  upstream: Upstream | undefined;
  /** Why the parent does not know where this node stands, `undefined` when it does. */
  unconfirmed: string | undefined;
  /** Bytes of a transfer under way. */
  transfer: { readonly top: string; readonly done: number; readonly total: number } | undefined;
  /** Takes images that a source pushes; at a standby. */
  receiver: Receiver | undefined;
  /** Keep standbys up to date with this node's volume. */
  readonly mirrors: Mirror[] = [];
  #volume: Volume | undefined;

  constructor(options: { name: string; path: string; volume?: Volume }) {
    this.name = options.name;
    this.path = options.path;
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

  /** Tells everybody that `master` moved. */
  announceMaster(): void {
    const master = this.#volume?.find(MASTER);
    if (master === undefined) return;
    this.events.emit({ type: "master", snapshot: master.id, name: master.name });
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
    volume.resolve(position.snapshot);
    // Needs that nobody here can serve any more would keep nothing.
    const needs = position.needs.filter((id) => volume.find(id) !== undefined);
    const known = Object.hasOwn(volume.local.sites, site) ? volume.local.sites[site] : undefined;
    // Sites repeat themselves; what is known already costs no write.
    const same = known?.snapshot === position.snapshot &&
      known.needs.length === needs.length && known.needs.every((id, i) => id === needs[i]);
    if (same) return known;
    const state = { snapshot: position.snapshot, needs, confirmedAt: Date.now() };
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
