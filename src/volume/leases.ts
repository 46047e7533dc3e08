/**
 * Leases: a reader holds one on the root it reads, so that the root's blocks are not used again
 * under its hands. Whoever needs the blocks waits a bounded time and then ends the lease; a reader
 * whose lease was ended gets an error, never other data.
 *
 * @module
 */

import { type Clock, HOST_CLOCK, VolcastError } from "../core/mod.ts";
import type { Pointer } from "../format/mod.ts";

/** A reader's hold on a root. */
export interface Lease {
  /** Id of the snapshot it reads, or of the consistency point. */
  readonly snapshot: string;
  /** The consistency point at which it began. */
  readonly cp: number;
  /** Looks whether it still holds. @throws {VolcastError} `busy` when the lease was ended. */
  check(): void;
  /** Gives it back; more than once is fine. */
  release(): void;
}

/** What a lease holds: a snapshot, which may have left the list of snapshots since. */
export interface Leased {
  readonly id: string;
  readonly name: string;
  readonly root: Pointer;
}

interface Hold {
  readonly leased: Leased;
  readonly cp: number;
  ended: boolean;
  /** When it was looked at last, by the time that never goes back. */
  usedAt: number;
  /** Told when it is ended, not when it is given back. */
  readonly onEnded: (() => void) | undefined;
}

/** All leases of a volume. */
export class Leases {
  readonly #active = new Set<Hold>();
  readonly #released: () => void;
  readonly #clock: Clock;
  #waiters: (() => void)[] = [];

  /** @param released Called after a lease went. */
  constructor(released: () => void, clock: Clock = HOST_CLOCK) {
    this.#released = released;
    this.#clock = clock;
  }

  /** Number of leases. */
  get size(): number {
    return this.#active.size;
  }

  /** Takes a lease. @param onEnded Called when others end it. */
  take(leased: Leased, cp: number, onEnded?: () => void): Lease {
    const clock = this.#clock;
    const state: Hold = { leased, cp, ended: false, usedAt: clock.elapsed(), onEnded };
    this.#active.add(state);
    return {
      snapshot: leased.id,
      cp,
      check(): void {
        state.usedAt = clock.elapsed();
        if (!state.ended) return;
        throw new VolcastError(
          "busy",
          `Cannot go on reading snapshot ${leased.id}: its readers were ended, since its blocks were needed or nothing was read for long`,
          "Begin again; the current snapshot is there",
        );
      },
      release: () => this.#drop(state),
    };
  }

  /** The least CP at which a lease began, `Infinity` without leases. */
  get oldest(): number {
    let oldest = Infinity;
    for (const lease of this.#active) oldest = Math.min(oldest, lease.cp);
    return oldest;
  }

  /** Everything that is being read, listed or not, each once. */
  leased(): Leased[] {
    const byId = new Map<string, Leased>();
    for (const { leased } of this.#active) byId.set(leased.id, leased);
    return [...byId.values()];
  }

  /** Waits until nobody reads `snapshots`, for at most `limitMs`, then ends those who still do. */
  async clear(snapshots: ReadonlySet<string>, limitMs: number): Promise<void> {
    const deadline = this.#clock.elapsed() + limitMs;
    const busy = () => [...this.#active].filter((lease) => snapshots.has(lease.leased.id));
    while (busy().length > 0) {
      const left = deadline - this.#clock.elapsed();
      if (left <= 0) {
        for (const lease of busy()) this.#end(lease);
        return;
      }
      let forget = () => {};
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        forget = this.#clock.timer(left, resolve);
      });
      forget();
    }
  }

  /** Ends every lease at once: the volume is full, or it is being closed. */
  endAll(): void {
    for (const lease of [...this.#active]) this.#end(lease);
  }

  /** Ends the leases that nobody looked at for so long: their readers stalled. @returns How many. */
  endIdle(limitMs: number): number {
    const now = this.#clock.elapsed();
    const idle = [...this.#active].filter(({ usedAt }) => now - usedAt > limitMs);
    for (const lease of idle) this.#end(lease);
    return idle.length;
  }

  #end(lease: Hold): void {
    lease.ended = true;
    this.#drop(lease);
    lease.onEnded?.();
  }

  #drop(lease: Hold): void {
    if (!this.#active.delete(lease)) return;
    this.#released();
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}
