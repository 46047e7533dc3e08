/**
 * Long computations that let others run.
 *
 * @module
 */

import { type Clock, HOST_CLOCK } from "./clock.ts";

/**
 * Work done in one go, ms: about the longest time that a request waits for it. A turn of the event loop takes
 * a timer, and so a millisecond or two: who answers no requests takes few.
 */
const SLICE_MS = { alone: 50, serving: 4 };

let sliceMs = SLICE_MS.alone;

/** Tells long computations of this process that requests wait for them from now on. */
export function beginServing(): void {
  sliceMs = SLICE_MS.serving;
}

/**
 * Runs a computation to its end, and lets the event loop turn whenever it yields and a slice of time is
 * over. What it reads must be held by a lease or not be changed by anybody.
 */
export async function paced(steps: Iterable<unknown>, clock?: Clock): Promise<void> {
  const pace = new Pace(clock);
  for (const _ of steps) if (pace.isDue) await pace.turn();
}

/** The same for work that has awaits of its own. */
export class Pace {
  readonly #clock: Clock;
  #begin: number;

  constructor(clock: Clock = HOST_CLOCK) {
    this.#clock = clock;
    this.#begin = clock.elapsed();
  }

  /** Whether a slice of time is over. */
  get isDue(): boolean {
    return this.#clock.elapsed() - this.#begin >= sliceMs;
  }

  /** Lets the event loop turn. */
  async turn(): Promise<void> {
    await this.#clock.turn();
    this.#begin = this.#clock.elapsed();
  }
}
