/**
 * Nothing is stuck without being told: work on which nothing happens for too long is ended.
 *
 * @module
 */

import { type Clock, HOST_CLOCK, type VolcastError } from "../core/mod.ts";

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
  /** What it is measured by; the host's by default. */
  readonly clock?: Clock | undefined;
}

/**
 * Runs work with a signal that fires when `signal` does, and when nothing has happened for too long.
 * Time is counted here, not by what clocks of the host say.
 */
export async function guarded<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { beat, limitMs, stuck, log, clock = HOST_CLOCK }: Guarded,
  signal: AbortSignal,
): Promise<T> {
  const ending = new AbortController();
  const abort = () => ending.abort(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  let last = beat();
  let since = clock.elapsed();
  const everyMs = Math.min(10_000, Math.max(10, limitMs() / 10));
  let callOff = () => {};
  const look = () => {
    const now = beat();
    if (now !== last) {
      last = now;
      since = clock.elapsed();
    }
    const silentMs = clock.elapsed() - since;
    if (ending.signal.aborted) return;
    callOff = clock.timer(everyMs, look);
    if (silentMs < limitMs()) return;
    const error = stuck(silentMs);
    log?.(error.message);
    ending.abort(error);
  };
  callOff = clock.timer(everyMs, look);
  try {
    return await work(ending.signal);
  } finally {
    callOff();
    signal.removeEventListener("abort", abort);
  }
}
