/**
 * What the first blocks of files have in common: a magic in the style of PNG at the start, a checksum
 * over everything before it in the last four bytes.
 *
 * @module
 */

import { BLOCK_SIZE, checksum, equalBytes } from "./block.ts";

const SEAL_AT = BLOCK_SIZE - 4;

/** A magic: a byte that is no text, three letters, both line ends, an end-of-file mark. */
export function magicOf(letters: string): Uint8Array {
  return new Uint8Array([0x89, ...new TextEncoder().encode(letters), 0x0d, 0x0a, 0x1a, 0x0a]);
}

/** Whether a block begins with a magic. */
export function hasMagic(block: Uint8Array, magic: Uint8Array): boolean {
  return equalBytes(block.subarray(0, magic.length), magic);
}

/** Puts the checksum of a header block into its last four bytes. */
export function sealHeader(block: Uint8Array): Uint8Array {
  viewOf(block).setUint32(SEAL_AT, checksum(block.subarray(0, SEAL_AT)), true);
  return block;
}

/** Whether the checksum of a header block is right: it was not torn. */
export function isSealed(block: Uint8Array): boolean {
  return viewOf(block).getUint32(SEAL_AT, true) === checksum(block.subarray(0, SEAL_AT));
}

function viewOf(block: Uint8Array): DataView {
  return new DataView(block.buffer, block.byteOffset, block.byteLength);
}
