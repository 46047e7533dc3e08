/**
 * Waiting between attempts.
 *
 * @module
 */

/**
 * Time before the next attempt, ms: doubles with each failure up to `limitMs`. Half of it is by chance:
 * many that lost one node must not come back at the same moment.
 */
export function backoffOf(firstMs: number, failures: number, limitMs = 10_000): number {
  return Math.min(limitMs, firstMs * 2 ** failures) * (0.5 + Math.random() / 2);
}

/** Waits, or returns at once when `signal` fires. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
