/**
 * Leases: a reader holds one on the root it reads, so that the root's blocks are not used again
 * under its hands. Whoever needs the blocks waits a bounded time and then ends the lease; a reader
 * whose lease was ended gets an error, never other data.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";

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

/** All leases of a volume. */
export class Leases {
  readonly #active = new Set<{ snapshot: string; cp: number; ended: boolean }>();
  readonly #released: () => void;
  #waiters: (() => void)[] = [];

  /** @param released Called after a lease went. */
  constructor(released: () => void) {
    this.#released = released;
  }

  /** Number of leases. */
  get size(): number {
    return this.#active.size;
  }

  /** Takes a lease. */
  take(snapshot: string, cp: number): Lease {
    const state = { snapshot, cp, ended: false };
    this.#active.add(state);
    return {
      snapshot,
      cp,
      check(): void {
        if (!state.ended) return;
        throw new VolcastError(
          "busy",
          `Cannot go on reading snapshot ${snapshot}: its blocks were needed and its readers were ended`,
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

  /** Whether anybody reads this snapshot. */
  isLeased(snapshot: string): boolean {
    for (const lease of this.#active) if (lease.snapshot === snapshot) return true;
    return false;
  }

  /** Waits until nobody reads `snapshots`, for at most `limitMs`, then ends those who still do. */
  async clear(snapshots: ReadonlySet<string>, limitMs: number): Promise<void> {
    const deadline = Date.now() + limitMs;
    const busy = () => [...this.#active].filter((lease) => snapshots.has(lease.snapshot));
    while (busy().length > 0) {
      const left = deadline - Date.now();
      if (left <= 0) {
        for (const lease of busy()) {
          lease.ended = true;
          this.#drop(lease);
        }
        return;
      }
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  }

  /** Ends every lease at once: the volume is full, or it is being closed. */
  endAll(): void {
    for (const lease of [...this.#active]) {
      lease.ended = true;
      this.#drop(lease);
    }
  }

  #drop(lease: { snapshot: string; cp: number; ended: boolean }): void {
    if (!this.#active.delete(lease)) return;
    this.#released();
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}
