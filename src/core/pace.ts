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
  let begin = performance.now();
  for (const _ of steps) {
    if (performance.now() - begin < SLICE_MS) continue;
    // A timer, since the cheaper ways to wait come before the network's turn.
    await new Promise((resolve) => setTimeout(resolve, 0));
    begin = performance.now();
  }
}
