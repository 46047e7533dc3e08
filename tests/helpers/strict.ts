/**
 * `Deno.test` with the sanitizers that are off by default: a test that leaves a timer, a file or a
 * stream behind has found a leak in what it tests.
 *
 * @module
 */

/**
 * Registers a test that must give back everything it took.
 * @param reason Why it cannot run here: it is ignored then, and says so.
 */
export function test(
  name: string,
  fn: (context: Deno.TestContext) => void | Promise<void>,
  reason?: string,
): void {
  Deno.test({
    name: reason === undefined ? name : `${name} (ignored: ${reason})`,
    ignore: reason !== undefined,
    fn,
    sanitizeOps: true,
    sanitizeResources: true,
    sanitizeExit: true,
  });
}
