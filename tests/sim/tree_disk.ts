/**
 * A disk of the simulation: it keeps what was written across the processes that use it, loses at a crash
 * what was not synced, and is full now and then.
 *
 * @module
 */

import { VolcastError } from "../../src/core/mod.ts";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import type { Random } from "../helpers/random.ts";
import { CrashStore } from "../helpers/stores.ts";
import type { ProcessClock, SimTime } from "./tree_time.ts";

/** Whoever uses disks: of a host, all at once are full, and all at once lose power. */
export interface DiskUser {
  readonly clock: ProcessClock;
  /** Blocks that can be written before the host's disks are full. */
  roomBlocks: number;
  /** Writes and syncs before the process dies in the midst of one. */
  callsLeft: number;
  /** Called for that. */
  readonly dies: () => void;
  /** Called when a write found no room. */
  readonly wasFull: () => void;
}

/** See the module. */
export class SimDisk {
  readonly capacity: number;
  readonly #time: SimTime;
  readonly #random: Random;
  #store: CrashStore;

  /** @param initial What is on it; nothing by default. */
  constructor(capacity: number, time: SimTime, random: Random, initial?: MemoryStore) {
    this.capacity = capacity;
    this.#time = time;
    this.#random = random;
    this.#store = this.#newStore(initial ?? new MemoryStore(capacity));
  }

  #newStore(initial: MemoryStore): CrashStore {
    const store = new CrashStore(initial);
    // Mostly a disk is quick.
    store.syncing = () =>
      this.#time.pause(this.#random.oneIn(20) ? this.#random.below(800) : this.#random.below(8));
    return store;
  }

  /** Power goes. */
  crash(): void {
    this.#store = this.#newStore(this.found(this.#random));
  }

  /** The disk as it may be found if power went now; without `random` all is lost that may be lost. */
  found(random?: Random): MemoryStore {
    if (random === undefined) return this.#store.durable();
    return this.#store.crashed(this.#store.events.length, random);
  }

  /** The disk as its process sees it. */
  open(user: DiskUser): BlockStore {
    const store = this.#store;
    const isAlive = () => {
      if (user.clock.isDead) return false;
      if (--user.callsLeft > 0) return true;
      user.dies();
      return false;
    };
    return {
      capacity: this.capacity,
      read: (vbn, target) => store.read(vbn, target),
      write(vbn, source): void {
        // What a dead process does reaches nobody.
        if (!isAlive()) return;
        user.roomBlocks -= source.length / 4096;
        if (user.roomBlocks < 0) {
          user.wasFull();
          throw new VolcastError("full", "Cannot write: No space left on device (os error 28)");
        }
        store.write(vbn, source);
      },
      async sync(): Promise<void> {
        if (!isAlive()) return await new Promise(() => {});
        await store.sync();
        if (user.clock.isDead) return await new Promise(() => {});
        if (store.events.length > 500) store.fold();
      },
      close(): void {},
    };
  }
}
