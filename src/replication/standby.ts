/**
 * The other end of a mirror, as the source sees it. What it is made of (a server reached over HTTP, a
 * store on this host) is not known here.
 *
 * @module
 */

import type { ErrorKind } from "../core/mod.ts";
import type { Image } from "../image/mod.ts";

/** A snapshot as the ends name it to each other. */
export interface StandbySnapshot {
  readonly id: string;
  readonly name: string;
  /** Consistency point. */
  readonly cp: number;
}

/** An image that has come in part. */
export interface ComingImage {
  /** Id of its top. */
  readonly top: string;
  /** Id of its base, absent for a full image. */
  readonly base?: string;
  /**
   * `wants`: the next byte wanted is at `offset`. `works`: what has come is being looked at, or comes
   * from somebody else now. `kept`: an earlier attempt left some of it, and has to be begun again for
   * the rest to be told.
   */
  readonly state: "wants" | "works" | "kept";
  /** Byte of the stream; with `wants`. */
  readonly offset?: number;
}

/** Where a standby stands. */
export interface StandbyPosition {
  /** Its own name among sites. */
  readonly node: string;
  /**
   * Whether it is not made yet: its name is only proposed then, and of a first image that is cut nothing
   * is gone on with but what `coming` tells.
   */
  readonly isNew?: boolean;
  /** An `origin` was promoted, or never was a standby, and takes nothing. */
  readonly role: "origin" | "replica";
  /** Absent as long as it has nothing. */
  readonly volumeId?: string;
  readonly current?: StandbySnapshot;
  /** Line of history that it is in. */
  readonly epoch?: number;
  readonly coming?: ComingImage;
  /** Why the last image did not become current. */
  readonly failed?: { readonly top: string; readonly kind: ErrorKind; readonly message: string };
}

/** How an image is handed over. */
export interface TakeOptions {
  /** Line of history of the image's top. */
  readonly epoch: number;
  readonly signal?: AbortSignal;
  /** Bytes taken and bytes in all. Called as long as something happens: silence means it is stuck. */
  readonly progress?: (done: number, total: number) => void;
  /**
   * Called by a standby that `isNew` when it has the whole image, durable: whatever fails from here on,
   * it goes on from there.
   */
  readonly landed?: () => Promise<void>;
}

/** See the module. */
export interface Standby {
  /** What users call it, its URL. */
  readonly name: string;
  /** What to do where it has something else than the source; what is done about a server by default. */
  readonly beginAnew?: string;
  /**
   * Where it stands.
   * @throws {VolcastError} `io` when it cannot be reached, `not-found` when it is no standby.
   */
  position(signal?: AbortSignal): Promise<StandbyPosition>;
  /**
   * The source knows where it stands, and goes on: what it takes to be brought further is made now, under
   * the name that it has among sites. Nothing was made before.
   *
   * @param how.full Whether a full image comes whatever it has.
   * @returns Where it stands then.
   * @throws {VolcastError} Why nothing can be handed to it.
   */
  prepare?(name: string, how: { readonly full: boolean }): Promise<StandbyPosition>;
  /**
   * Hands it an image; it is current there, durable, when this returns. Goes on where an earlier
   * attempt was cut, if the standby still has it.
   *
   * @throws {VolcastError} `io` when the line failed: ask where it stands, and try again; `busy`;
   *   otherwise its refusal.
   */
  take(image: Image, options: TakeOptions): Promise<void>;
  /** A round has ended: what was opened for it is given back until the next. */
  release?(): Promise<void>;
}
