/**
 * Simulated time: everything that waits stands in one queue, and time is what the queue says. Between two
 * events all that follows from the first one happens, and nothing else, so a run comes again with its seed.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Clock } from "../../src/core/mod.ts";
import { Random } from "../helpers/random.ts";

interface Waiting {
  readonly at: number;
  readonly number: number;
  readonly ring: () => void;
  isOff: boolean;
}

/** See the module. */
export class SimTime {
  /** ms since the simulation began. */
  now = 0;
  /** Events that happened. */
  count = 0;
  readonly #queue: Waiting[] = [];
  #number = 0;

  /** Calls `ring` in `ms`. @returns Takes it back. */
  timer(ms: number, ring: () => void): () => void {
    const waiting = {
      at: this.now + Math.max(0, ms),
      number: ++this.#number,
      ring,
      isOff: false,
    };
    this.#add(waiting);
    return () => void (waiting.isOff = true);
  }

  /** Waits. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.timer(ms, resolve));
  }

  /** Lets so much time go by. */
  async pass(ms: number): Promise<void> {
    const limit = this.now + ms;
    while (await this.step(limit));
  }

  /** Lets time go by until something is done. */
  async finish<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const ending = work.finally(() => isDone = true);
    // Whoever waits below is told what went wrong.
    ending.catch(() => {});
    await settled();
    while (!isDone && await this.step(Infinity));
    return await ending;
  }

  /** The next event, and all that follows from it at once. @returns Whether there was one before `limit`. */
  async step(limit: number): Promise<boolean> {
    let next = this.#queue[0];
    while (next?.isOff) {
      this.#take();
      next = this.#queue[0];
    }
    if (next === undefined || next.at > limit) {
      if (limit !== Infinity) this.now = limit;
      return false;
    }
    this.#take();
    this.now = next.at;
    this.count++;
    next.ring();
    await settled();
    return true;
  }

  #add(waiting: Waiting): void {
    const queue = this.#queue;
    let at = queue.push(waiting) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (isBefore(queue[above], waiting)) break;
      queue[at] = queue[above];
      at = above;
    }
    queue[at] = waiting;
  }

  #take(): void {
    const queue = this.#queue;
    const last = queue.pop()!;
    if (queue.length === 0) return;
    let at = 0;
    for (;;) {
      let below = at * 2 + 1;
      if (below >= queue.length) break;
      if (below + 1 < queue.length && isBefore(queue[below + 1], queue[below])) below++;
      if (isBefore(last, queue[below])) break;
      queue[at] = queue[below];
      at = below;
    }
    queue[at] = last;
  }
}

function isBefore(a: Waiting, b: Waiting): boolean {
  return a.at < b.at || (a.at === b.at && a.number < b.number);
}

/** Everything that follows at once has happened: nothing here waits for the host. */
export function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** The clock of a process. What it waits for never comes once it is dead. */
export class ProcessClock implements Clock {
  readonly #time: SimTime;
  readonly #random: Random;
  /** The host's own clock, which lies, is put right and jumps. */
  readonly #host: { readonly offsetMs: number };
  isDead = false;

  constructor(time: SimTime, random: Random, host: { readonly offsetMs: number }) {
    this.#time = time;
    this.#random = random;
    this.#host = host;
  }

  now(): number {
    return 1_700_000_000_000 + Math.round(this.#time.now) + this.#host.offsetMs;
  }

  elapsed(): number {
    return this.#time.now;
  }

  timer(ms: number, ring: () => void): () => void {
    return this.#time.timer(ms, () => {
      if (!this.isDead) ring();
    });
  }

  turn(): Promise<void> {
    return new Promise((resolve) => void this.timer(0, resolve));
  }

  chance(): number {
    return this.#random.word() / 2 ** 32;
  }

  nonce(byteCount: number): Uint8Array<ArrayBuffer> {
    return this.#random.bytes(byteCount);
  }
}
