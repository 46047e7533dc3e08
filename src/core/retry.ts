/**
 * Waiting for others: how long, what is tried again, and when. The one place where that is said.
 *
 * @module
 */

import { type Clock, HOST_CLOCK } from "./clock.ts";
import { UnansweredError, VolcastError } from "./errors.ts";

/** How others are waited for. Tests put clocks of their own in the place of the last three. */
export interface Patience {
  /** Time to the first byte of an answer, ms. */
  readonly answerMs: number;
  /** Time between two chunks of a stream, ms. */
  readonly silenceMs: number;
  /** Attempts that bring nothing, the first one included, before something is given up. */
  readonly attempts: number;
  /** Most that is waited after the first failure, ms; it doubles with each further one. */
  readonly firstMs: number;
  /** Most that is waited after any failure, ms. */
  readonly limitMs: number;
  /** Most that is waited since somebody asked for it (Retry-After), ms. */
  readonly askedLimitMs: number;
  /** A number from 0 up to 1, by chance. */
  readonly random: () => number;
  /** Calls `late` after a time, if it is not called off by what this returns. */
  readonly timer: (ms: number, late: () => void) => () => void;
  /** Waits, or returns at once when `signal` fires. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** What is meant where nothing else is said, by a clock. */
export function patienceBy(clock: Clock): Patience {
  return {
    answerMs: 30_000,
    silenceMs: 30_000,
    attempts: 4,
    firstMs: 200,
    limitMs: 10_000,
    askedLimitMs: 60_000,
    random: () => clock.chance(),
    timer: (ms, late) => clock.timer(ms, late),
    pause: (ms, signal) => pause(ms, signal, clock),
  };
}

/** The same by the clock of the host. */
export const PATIENCE: Patience = patienceBy(HOST_CLOCK);

/** Waits, or returns at once when `signal` fires. */
export function pause(
  ms: number,
  signal?: AbortSignal,
  clock: Clock = HOST_CLOCK,
): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      forget();
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const forget = clock.timer(ms, done);
    signal?.addEventListener("abort", done);
  });
}

/**
 * Time before the next attempt, ms. Up to a limit that doubles with each failure, all of it is by chance:
 * many that lost one node must not come back at the same moment. Who asks to be left alone is, and what
 * is by chance comes on top of that.
 *
 * @param failures In a row, from 1 on.
 */
export function waitMsOf(
  { firstMs, limitMs, askedLimitMs, random }: Patience,
  failures: number,
  error?: unknown,
): number {
  const byChance = Math.min(limitMs, firstMs * 2 ** (failures - 1)) * random();
  return Math.min(askedMsOf(error), askedLimitMs) + byChance;
}

/** For how long whoever refused asks to be left alone, ms; 0 where it does not. */
export function askedMsOf(error: unknown): number {
  return error instanceof VolcastError ? error.retryAfterMs ?? 0 : 0;
}

/** Whether the same may go well a moment later: nobody answered, or the answer was "not now". */
export function isPassing(error: unknown): boolean {
  if (error instanceof UnansweredError) return error.isPassing;
  return error instanceof VolcastError && error.kind === "busy";
}

/** How {@linkcode retrying} tries again. */
export interface RetryOptions {
  readonly patience?: Patience | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What is tried again; {@linkcode isPassing} by default. */
  readonly when?: (error: unknown) => boolean;
}

/** Does something that may be repeated, again where it fails in passing, with pauses. */
export async function retrying<T>(work: () => Promise<T>, options: RetryOptions = {}): Promise<T> {
  const { patience = PATIENCE, signal, when = isPassing } = options;
  for (let failures = 1;; failures++) {
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      if (failures >= patience.attempts || !when(error)) throw error;
      await patience.pause(waitMsOf(patience, failures, error), signal);
      signal?.throwIfAborted();
    }
  }
}

/** The same, but ends when `signal` fires, even if whoever does the work does not hear it. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
