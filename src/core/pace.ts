/**
 * Long computations that let others run.
 *
 * @module
 */

import { type Clock, HOST_CLOCK } from "./clock.ts";

/** Work done in one go, ms: about the longest time that a request waits for it. */
const SLICE_MS = 10;

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
    return this.#clock.elapsed() - this.#begin >= SLICE_MS;
  }

  /** Lets the event loop turn. */
  async turn(): Promise<void> {
    await this.#clock.turn();
    this.#begin = this.#clock.elapsed();
  }
}
