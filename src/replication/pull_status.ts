/**
 * What a site says of its pulling, and when that is stuck.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import type { Guarded } from "./watchdog.ts";

/** What a pull does now. */
export type PullPhase = "idle" | "asking" | "bringing" | "receiving" | "applying" | "confirming";

/** How pulling goes, for `/status`. Times are ms since 1970. */
export interface PullStatus {
  readonly phase: PullPhase;
  /** Who is asked, or sends. */
  readonly parent: string | undefined;
  /** When the phase began. */
  readonly since: number;
  /** When a parent was last asked with success: there was nothing new, or it is here now. */
  readonly succeededAt: number | undefined;
  /** Pulls that failed since. */
  readonly failures: number;
  /** Pulls that failed since the start. */
  readonly failuresInAll: number;
  /** Why the last one failed, `undefined` when it did not. */
  readonly error: string | undefined;
}

/** Longest time in which nothing happens, ms; applying reads and checks what came, at this rate at least. */
const STUCK_MS = 120_000;
const APPLY_MS = 600_000;
const APPLY_BYTES_PER_MS = 10_000;

/** What is known of the pulls of a node. */
export class PullWatch {
  #status: PullStatus = {
    phase: "idle",
    parent: undefined,
    since: Date.now(),
    succeededAt: undefined,
    failures: 0,
    failuresInAll: 0,
    error: undefined,
  };
  #beats = 0;
  #byteCount = 0;
  #extraMs = 0;

  /** How it goes. */
  get status(): PullStatus {
    return this.#status;
  }

  /**
   * The pull does something else now, or with somebody else.
   * @param extraMs How much longer than otherwise nothing may be seen of it.
   */
  enter(phase: PullPhase, parent?: string, extraMs = 0): void {
    this.#extraMs = extraMs;
    this.#status = { ...this.#status, phase, parent, since: Date.now() };
    this.#beats++;
  }

  /** Bytes have come, or were found here. */
  progress(done: number, total: number): void {
    this.#beats++;
    this.#byteCount = total;
    if (done < total || this.#status.phase === "applying") return;
    this.enter("applying", this.#status.parent);
  }

  /** A pull has ended well. */
  succeeded(): void {
    this.enter("idle");
    this.#status = { ...this.#status, succeededAt: Date.now(), failures: 0, error: undefined };
  }

  /** A pull has failed. */
  failed(error: string): void {
    this.enter("idle");
    const { failures, failuresInAll } = this.#status;
    this.#status = {
      ...this.#status,
      failures: failures + 1,
      failuresInAll: failuresInAll + 1,
      error,
    };
  }

  /** For the watchdog. @param stuckMs Longest time in which nothing happens, ms; 120,000 by default. */
  guarded(stuckMs: number = STUCK_MS): Guarded {
    return {
      beat: () => this.#beats,
      limitMs: () =>
        this.#status.phase === "applying"
          ? Math.max(stuckMs, APPLY_MS + this.#byteCount / APPLY_BYTES_PER_MS)
          : stuckMs + this.#extraMs,
      stuck: (silentMs) => {
        const { phase, parent } = this.#status;
        const whom = parent === undefined ? "" : ` from ${parent}`;
        return new VolcastError(
          "io",
          `Cannot go on pulling${whom}: nothing has happened for ${
            Math.round(silentMs / 1000)
          } s while ${phase}`,
          phase === "applying" ? "Look at the disk" : "It is tried again",
        );
      },
    };
  }
}
