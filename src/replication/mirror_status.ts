/**
 * What a mirror says of itself.
 *
 * @module
 */

/** What a mirror does now. */
export type MirrorPhase = "idle" | "asking" | "snapshot" | "sending" | "confirming";

/** What a round did. */
export type MirrorResult =
  | { readonly kind: "nothing"; readonly name: string; readonly top: string }
  | {
    readonly kind: "full" | "increment";
    /** Name of the snapshot that the standby stands on now. */
    readonly name: string;
    /** Its id. */
    readonly top: string;
    /** Id of the one before, absent after a full image. */
    readonly base?: string;
    readonly blocks: number;
    /** Bytes of the image. */
    readonly bytes: number;
    readonly ms: number;
    /** Whether it was begun by an earlier round, so that there may be something newer. */
    readonly resumed: boolean;
  };

/** How a mirror is, for `/status`. */
export interface MirrorStatus {
  /** The standby, as users call it. */
  readonly to: string;
  /** Its name among sites, once known. */
  readonly name: string | undefined;
  readonly phase: MirrorPhase;
  /** When the phase began, ms since 1970. */
  readonly since: number;
  /** When the phase began, or something happened in it last; ms, by `performance.now`. */
  readonly aliveAt: number;
  /** Where the standby stood when it was heard last. */
  readonly standsOn: { readonly id: string; readonly name: string } | undefined;
  /** When a round succeeded last, ms since 1970. */
  readonly succeededAt: number | undefined;
  /** Rounds that failed since. */
  readonly failures: number;
  /** Rounds that failed since the start. */
  readonly failuresInAll: number;
  /** Why the last round failed, `undefined` when it did not. */
  readonly error: string | undefined;
  /** Bytes of the transfer under way. */
  readonly transfer:
    | { readonly top: string; readonly done: number; readonly total: number }
    | undefined;
  /** Blocks that the next image would hold now; `undefined` before the first round. */
  readonly lagBlocks: number | undefined;
  /** Bytes of memory that its marks take. */
  readonly markBytes: number;
}
