/**
 * Long computations that let others run.
 *
 * @module
 */

/** Work done in one go, ms: about the longest time that a request waits for it. */
const SLICE_MS = 10;

/**
 * Runs a computation to its end, and lets the event loop turn whenever it yields and a slice of time is
 * over. What it reads must be held by a lease or not be changed by anybody.
 */
export async function paced(steps: Iterable<unknown>): Promise<void> {
  const pace = new Pace();
  for (const _ of steps) if (pace.isDue) await pace.turn();
}

/** The same for work that has awaits of its own. */
export class Pace {
  #begin = performance.now();

  /** Whether a slice of time is over. */
  get isDue(): boolean {
    return performance.now() - this.#begin >= SLICE_MS;
  }

  /** Lets the event loop turn. */
  async turn(): Promise<void> {
    // A timer, since the cheaper ways to wait come before the network's turn.
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#begin = performance.now();
  }
}
