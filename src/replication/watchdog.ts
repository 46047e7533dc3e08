/**
 * Nothing is stuck without being told: work on which nothing happens for too long is ended.
 *
 * @module
 */

import type { VolcastError } from "../core/mod.ts";

/** Work that says what it does. */
export interface Guarded {
  /** Another value each time that something happened. */
  readonly beat: () => unknown;
  /** Longest time without a beat, ms, in what it does now. */
  readonly limitMs: () => number;
  /** What to say when that is over. */
  readonly stuck: (silentMs: number) => VolcastError;
  /** Told of it at once: some work cannot be cut short, and ends when it does. */
  readonly log?: ((text: string) => void) | undefined;
}

/**
 * Runs work with a signal that fires when `signal` does, and when nothing has happened for too long.
 * Time is counted here, not by what clocks of the host say.
 */
export async function guarded<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { beat, limitMs, stuck, log }: Guarded,
  signal: AbortSignal,
): Promise<T> {
  const ending = new AbortController();
  const abort = () => ending.abort(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  let last = beat();
  let since = performance.now();
  const look = () => {
    const now = beat();
    if (now !== last) {
      last = now;
      since = performance.now();
    }
    const silentMs = performance.now() - since;
    if (silentMs < limitMs() || ending.signal.aborted) return;
    const error = stuck(silentMs);
    log?.(error.message);
    ending.abort(error);
  };
  const timer = setInterval(look, Math.min(10_000, Math.max(10, limitMs() / 10)));
  try {
    return await work(ending.signal);
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", abort);
  }
}
