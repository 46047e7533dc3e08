/**
 * Waiting for what is meant, never for a time that should be enough.
 *
 * @module
 */

/** Waits. */
export function sleep(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms));
}

/** Waits until something is so; on a loaded machine that may take long. */
export async function until(
  what: string,
  test: () => boolean | Promise<boolean>,
  limitMs = 180_000,
): Promise<void> {
  const begin = Date.now();
  while (!(await test())) {
    if (Date.now() - begin > limitMs) throw new Error(`Not within ${limitMs} ms: ${what}`);
    await sleep(20);
  }
}
