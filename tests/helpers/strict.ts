/**
 * `Deno.test` with the sanitizers that are off by default: a test that leaves a timer, a file or a
 * stream behind has found a leak in what it tests.
 *
 * @module
 */

/** Registers a test that must give back everything it took. */
export function test(
  name: string,
  fn: (context: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({ name, fn, sanitizeOps: true, sanitizeResources: true, sanitizeExit: true });
}
