/**
 * Ending on a signal in order: what is under way is told, cleans up, and the program ends.
 *
 * @module
 */

/** The user ended the program. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Exit code of a program that a SIGINT ended, as shells show it. */
export const INTERRUPTED_CODE = 130;

/**
 * Runs something that SIGINT and SIGTERM end through the abort signal it is given; a second one ends
 * the program at once.
 *
 * @throws {Interrupted} When a signal ended it.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) Deno.exit(INTERRUPTED_CODE);
    controller.abort(new Interrupted("interrupted"));
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  try {
    return await work(controller.signal);
  } catch (error) {
    // However the work was cut, the reason is the same.
    controller.signal.throwIfAborted();
    throw error;
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, stop);
  }
}
