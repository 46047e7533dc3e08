/**
 * Changing a block so that its CRC-32 stays what it was: what anybody can do, and a checksum beside a
 * pointer cannot tell.
 *
 * @module
 */

import { assert } from "@std/assert";
import { crc32 } from "node:zlib";

/** A block with another content from byte `at` on, and four bytes at its end that make up for it. */
export function sameChecksum(
  block: Uint8Array,
  change: Uint8Array,
  at: number,
): Uint8Array<ArrayBuffer> {
  const forged = Uint8Array.from(block);
  forged.set(change, at);
  const end = block.length - 4;
  assert(at + change.length <= end, "the change leaves the last four bytes alone");
  const wanted = crc32(block);
  // CRC-32 is linear: each bit of the last four bytes flips the same bits of it, whatever the rest is.
  const base = crc32(forged);
  const columns = Array.from({ length: 32 }, (_, bit) => {
    forged[end + (bit >> 3)] ^= 1 << (bit & 7);
    const difference = (crc32(forged) ^ base) >>> 0;
    forged[end + (bit >> 3)] ^= 1 << (bit & 7);
    return { difference, bits: (1 << bit) >>> 0 };
  });
  // Elimination over GF(2).
  let rest = (wanted ^ base) >>> 0;
  let flips = 0;
  for (let row = 31; row >= 0; row--) {
    const pivot = columns.findIndex(({ difference }) =>
      difference !== 0 && 31 - Math.clz32(difference) === row
    );
    assert(pivot >= 0, "the four bytes reach every checksum");
    const [chosen] = columns.splice(pivot, 1);
    for (const column of columns) {
      if ((column.difference >>> row & 1) === 0) continue;
      column.difference = (column.difference ^ chosen.difference) >>> 0;
      column.bits = (column.bits ^ chosen.bits) >>> 0;
    }
    if ((rest >>> row & 1) === 0) continue;
    rest = (rest ^ chosen.difference) >>> 0;
    flips = (flips ^ chosen.bits) >>> 0;
  }
  for (let i = 0; i < 4; i++) forged[end + i] ^= (flips >>> (i * 8)) & 255;
  assert(crc32(forged) === wanted, "the checksum is what it was");
  return forged;
}
