/**
 * Stops at a bug. For conditions that only a mistake in this program can break; bytes from a disk
 * or a network are never asserted, they are checked and refused with a {@linkcode VolcastError}.
 *
 * @throws {Error} When `condition` is false.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`Assertion failed: ${message}`);
}

/** Integer division rounded up. Both operands are non-negative. */
export function divCeil(value: number, divisor: number): number {
  return Math.ceil(value / divisor);
}
