/**
 * Time, and what else differs from run to run: whoever waits, looks at a clock or leaves something to
 * chance is given this. A simulation gives its own, and its runs come again.
 *
 * @module
 */

/** See the module. */
export interface Clock {
  /** ms since 1970. It may be set, back as well as forth: for what is shown and stored, not for waiting. */
  now(): number;
  /** ms since some moment. It never goes back. */
  elapsed(): number;
  /**
   * Calls `ring` once, `ms` from now on.
   * @param options.background The program does not go on running for it.
   * @returns Takes it back.
   */
  timer(ms: number, ring: () => void, options?: { background?: boolean }): () => void;
  /** Lets everybody else run, the network too. */
  turn(): Promise<void>;
  /** From 0 up to 1: many that wait for the same must not come back at the same moment. */
  chance(): number;
  /** Bytes that nobody can foresee, and that nobody else has. */
  nonce(byteCount: number): Uint8Array<ArrayBuffer>;
}

/** What a timer takes: 31 bits of ms. One that is given more fires at once. */
function timerMs(ms: number): number {
  return Math.min(ms, 2 ** 31 - 1);
}

/** The clock of the host. */
export const HOST_CLOCK: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  timer(ms, ring, options): () => void {
    const timer = setTimeout(ring, timerMs(ms));
    if (options?.background) Deno.unrefTimer(timer);
    return () => clearTimeout(timer);
  },
  // A timer, since the cheaper ways to wait come before the network's turn.
  turn: () => new Promise((resolve) => setTimeout(resolve, 0)),
  chance: () => Math.random(),
  nonce: (byteCount) => crypto.getRandomValues(new Uint8Array(byteCount)),
};
