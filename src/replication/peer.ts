/**
 * Another server as replication sees it. What carries the calls (HTTP, or nothing in a simulation) is
 * not known here.
 *
 * @module
 */

import type { Image } from "../image/mod.ts";
import type { History } from "../volume/mod.ts";

/** What is asked of a parent. */
export interface PeerRequest {
  /** Id of the snapshot that is here. */
  readonly since?: string;
  readonly site: string;
  /** `all`: every snapshot between comes along; absent: the top alone. */
  readonly snapshots?: "all";
  /** The pointer that is followed; absent: the parent's master. */
  readonly to?: string;
}

/** What a parent would send. */
export interface PeerPlan {
  readonly volumeId: string;
  /** Blocks of the volume. */
  readonly capacity: number;
  /** Id of the top. */
  readonly top: string;
  readonly topName: string;
  /** Id of the base, with `~` and the id of its state where it is a shadow; absent for a full image. */
  readonly base?: string;
  /** The further snapshots that come along, in words that every parent understands. */
  readonly snapshots?: string;
  /** Exact bytes of the stream. */
  readonly byteCount: number;
  readonly blockCount: number;
  /** Tag of these very bytes, the same at every parent; absent where it is not told. */
  readonly etag?: string;
  /** The id that was asked since, where the parent lacks nothing but its plane to make an increment. */
  readonly wantsPlane?: string;
  /** Names of the parent and of the nodes above it, nearest first. */
  readonly chain: readonly string[];
  /** When the parent's pointer was moved to the top, by its origin's epochs and consistency points. */
  readonly moved?: { readonly epoch: number; readonly cp: number };
  /** The seal of the top, as its origin made it; absent where the parent has none. */
  readonly seal?: Uint8Array;
  /** Where the parent's own history stands; absent when it does not say. */
  readonly history?: History;
}

/** Something that happened at a parent. */
export interface PeerEvent {
  /** As the parent calls it; `connected` when it can be heard from now on. */
  readonly type: string;
}

/** Where a site stands, as it tells its parent. */
export interface SitePosition {
  /** Id of the snapshot that is current at the site. */
  readonly snapshot: string;
  /** Ids of the snapshots that the site's own children stand on. */
  readonly needs: readonly string[];
}

/** See the module. */
export interface Peer {
  /** What users call it, its URL. */
  readonly name: string;
  /**
   * What would come: the way to the parent's master from `since` (full when absent or not known there),
   * with the snapshots between where `snapshots` is `all`.
   * @throws {VolcastError} `io` when it cannot be reached; its own refusal otherwise.
   */
  plan(request: PeerRequest, signal?: AbortSignal): Promise<PeerPlan>;
  /**
   * Brings the plane of a snapshot that a plan wants, as `planeImage` makes it.
   * @throws {VolcastError} Its refusal: then the image is a full one.
   */
  bringPlane(site: string, image: Image, signal?: AbortSignal): Promise<void>;
  /** The bytes of a planned image from `offset` on; the same at every parent that has it. */
  open(plan: PeerPlan, offset: number, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>>;
  /** Tells where a site stands now. May be repeated. */
  confirm(site: string, position: SitePosition, signal?: AbortSignal): Promise<void>;
  /** What happens at the parent, until the connection ends or `signal` fires. */
  events(signal: AbortSignal): AsyncIterable<PeerEvent>;
}
