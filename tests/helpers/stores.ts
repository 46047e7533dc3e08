/**
 * Block stores that fail: one that gives errors, one that loses what was not made durable.
 *
 * @module
 */

import { VolcastError } from "../../src/core/mod.ts";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import type { Random } from "./random.ts";

const BLOCK_SIZE = 4096;
const SECTOR_SIZE = 512;

/** A store with the same blocks as another one, and a life of its own. */
export function copyOf(store: MemoryStore): MemoryStore {
  const copy = new MemoryStore(store.capacity);
  // A MemoryStore replaces blocks and never changes one, so they can be shared.
  for (const [vbn, block] of store.blocks) copy.blocks.set(vbn, block);
  return copy;
}

/** Flips one bit in a store. */
export function flipBit(store: BlockStore, vbn: number, bit: number): void {
  const block = new Uint8Array(BLOCK_SIZE);
  store.read(vbn, block);
  block[bit >>> 3] ^= 1 << (bit & 7);
  store.write(vbn, block);
}

/** Which calls of a {@linkcode FaultStore} fail. */
export interface Fault {
  /** Number of the call, from 1 on; those before it succeed. */
  readonly at: number;
  readonly call: "write" | "sync" | "read";
  readonly kind: "full" | "io";
  /** Whether every later call of the kind fails too. One that does not is the nastier make. */
  readonly forEver?: boolean;
}

/** A store in which a chosen call fails. What fails has no effect. */
export class FaultStore implements BlockStore {
  readonly under: BlockStore;
  fault: Fault | undefined;
  readonly counts = { write: 0, sync: 0, read: 0 };
  /** Writes that reached the store below after the fault. */
  writesAfterFault = 0;
  faults = 0;

  constructor(under: BlockStore, fault?: Fault) {
    this.under = under;
    this.fault = fault;
  }

  get capacity(): number {
    return this.under.capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#maybeFail("read");
    this.under.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#maybeFail("write");
    if (this.faults > 0) this.writesAfterFault++;
    this.under.write(vbn, source);
  }

  async sync(): Promise<void> {
    this.#maybeFail("sync");
    await this.under.sync();
  }

  close(): void {
    this.under.close();
  }

  #maybeFail(call: "write" | "sync" | "read"): void {
    const number = ++this.counts[call];
    const { fault } = this;
    if (fault === undefined || fault.call !== call) return;
    if (number !== fault.at && !(fault.forEver && number > fault.at)) return;
    this.faults++;
    throw new VolcastError(
      fault.kind,
      fault.kind === "full"
        ? `Cannot ${call}: No space left on device (os error 28)`
        : `Cannot ${call}: Input/output error (os error 5)`,
    );
  }
}

/** One thing that happened to a {@linkcode CrashStore}. */
export type CrashEvent =
  | { readonly kind: "write"; readonly vbn: number; readonly bytes: Uint8Array }
  /** Everything written before event number `upTo` is durable from here on. */
  | { readonly kind: "sync"; readonly upTo: number };

/**
 * A store that records what happens, and can give the disk as it may be found after a loss of power
 * at any moment: what was written before the last finished sync is there; of what came later every
 * block on its own is there, is not, or is torn between sectors of 512 bytes.
 */
export class CrashStore implements BlockStore {
  readonly capacity: number;
  readonly events: CrashEvent[] = [];
  /** When each event was, by the clock that several stores may share. */
  readonly #times: number[] = [];
  readonly #clock: { now: number };
  readonly #initial: MemoryStore;
  readonly #live: MemoryStore;
  #syncs = 0;
  /** Events that were made part of the initial disk. */
  #folded = 0;
  /** Number of a sync (from 1 on) -> whether it does nothing: a mistake that tests must see. */
  brokenSync: (number: number) => boolean = () => false;
  /** How long a sync takes. */
  syncing: () => Promise<void> = () => Promise.resolve();

  constructor(initial: MemoryStore, clock = { now: 0 }) {
    this.capacity = initial.capacity;
    this.#initial = copyOf(initial);
    this.#live = copyOf(initial);
    this.#clock = clock;
  }

  /** Events before a moment of the clock. */
  countAt(time: number): number {
    const index = this.#times.findIndex((at) => at >= time);
    return index < 0 ? this.#times.length : index;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#live.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#live.write(vbn, source);
    this.#push({ kind: "write", vbn, bytes: source.slice() });
  }

  async sync(): Promise<void> {
    const upTo = this.#folded + this.events.length;
    // Others may write meanwhile; that is not part of this sync.
    await this.syncing();
    if (this.brokenSync(++this.#syncs)) return;
    this.#push({ kind: "sync", upTo: Math.max(0, upTo - this.#folded) });
  }

  close(): void {}

  /** The disk after the first `count` events when nothing is lost. */
  whole(count: number = this.events.length): MemoryStore {
    return this.#replay(count, (store, vbn, block) => store.blocks.set(vbn, block));
  }

  /** A disk that may be found when power goes after the first `count` events. */
  crashed(count: number, random: Random): MemoryStore {
    // Sometimes nearly all or nearly nothing got there, sometimes half of it.
    const lossInTen = random.pick([1, 3, 5, 9, 10]);
    return this.#replay(count, (store, vbn, block) => {
      if (random.below(10) >= lossInTen) store.blocks.set(vbn, block);
      else if (random.oneIn(3)) store.blocks.set(vbn, torn(store, vbn, block, random));
    });
  }

  /** The disk of which everything is lost that is not durable. */
  durable(): MemoryStore {
    return this.#replay(this.events.length, () => {});
  }

  /** Forgets how what is durable came to be, so that a long life does not fill the memory. */
  fold(): void {
    const durable = this.#durable(this.events.length);
    for (const event of this.events.slice(0, durable)) {
      if (event.kind === "write") this.#initial.write(event.vbn, event.bytes);
    }
    const rest = this.events.slice(durable);
    this.#times.splice(0, this.events.length, ...this.#times.slice(durable));
    // What is behind the last sync's mark is not durable, so syncs that are left say nothing.
    this.events.splice(
      0,
      Infinity,
      ...rest.map((event): CrashEvent => event.kind === "sync" ? { kind: "sync", upTo: 0 } : event),
    );
    this.#folded += durable;
  }

  /** How many of the first `count` events are durable. */
  #durable(count: number): number {
    let durable = 0;
    for (let i = 0; i < count; i++) {
      const event = this.events[i];
      if (event.kind === "sync") durable = Math.max(durable, event.upTo);
    }
    return durable;
  }

  #push(event: CrashEvent): void {
    this.events.push(event);
    this.#times.push(this.#clock.now++);
  }

  #replay(
    count: number,
    unsynced: (store: MemoryStore, vbn: number, block: Uint8Array) => void,
  ): MemoryStore {
    const durable = this.#durable(count);
    const store = copyOf(this.#initial);
    for (let i = 0; i < count; i++) {
      const event = this.events[i];
      if (event.kind !== "write") continue;
      for (let at = 0; at < event.bytes.length; at += BLOCK_SIZE) {
        const block = event.bytes.subarray(at, at + BLOCK_SIZE);
        const vbn = event.vbn + at / BLOCK_SIZE;
        if (i < durable) store.blocks.set(vbn, block);
        else unsynced(store, vbn, block);
      }
    }
    return store;
  }
}

function torn(store: MemoryStore, vbn: number, block: Uint8Array, random: Random): Uint8Array {
  const result = new Uint8Array(BLOCK_SIZE);
  store.read(vbn, result);
  for (let at = 0; at < BLOCK_SIZE; at += SECTOR_SIZE) {
    if (random.oneIn(2)) result.set(block.subarray(at, at + SECTOR_SIZE), at);
  }
  return result;
}
