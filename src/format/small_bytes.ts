/**
 * Short byte strings by the hundred thousand: names, and the pointers of inodes.
 *
 * To make a byte string of its own costs half a microsecond, since the host gives the memory; a part of
 * a larger one costs a fifth. What is handed out is never handed out again.
 *
 * @module
 */

const SLAB_BYTES = 8192;
/** Longer ones get memory of their own: a part that is kept keeps all of its slab. */
const MAX_PART = 512;

let slab = new Uint8Array(SLAB_BYTES);
let taken = 0;

/** Zeros, for their receiver alone. Look at them through themselves: their `buffer` has others' bytes, too. */
export function smallBytes(length: number): Uint8Array {
  if (length > MAX_PART) return new Uint8Array(length);
  if (taken + length > SLAB_BYTES) {
    slab = new Uint8Array(SLAB_BYTES);
    taken = 0;
  }
  return slab.subarray(taken, taken += length);
}

/** A copy of a part of `bytes`. */
export function copyOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  const copy = smallBytes(length);
  copy.set(bytes.subarray(start, start + length));
  return copy;
}
