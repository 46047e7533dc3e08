/**
 * One number for the content of all blocks under a plane, which follows from that of another plane by
 * the blocks in which the two differ: what an origin signs, and a site computes anew.
 *
 * Each block, with its VBN, is hashed with SHA-256; that key makes 1,024 pseudo-random numbers of 16 bits
 * (AES-256 in counter mode), and the numbers of all blocks are added up, each column for itself. Adding
 * is without order and can be undone, so
 *
 *     sum(top) = sum(base) - sum(base - top) + sum(top - base)
 *
 * and to know the sum of an increment's top costs its changed blocks, nothing that grows with the volume,
 * and no table of hashes beside it. To find other blocks with the same sum means to solve a problem of
 * short vectors in 1,024 dimensions; the make is known as LtHash (Bellare and Micciancio's AdHash with
 * a lattice), there with another function to make numbers of a block.
 *
 * @module
 */

import { createCipheriv, createHash } from "node:crypto";
import { assert } from "./assert.ts";

/** Bytes of a sum. */
export const SUM_BYTES = 2048;
/** Two columns of 16 bits each are added at once in a word of 32. */
const WORDS = SUM_BYTES / 4;
const LOW_BITS = 0x7fff7fff;
const TOP_BITS = 0x80008000;

const ZEROS = new Uint8Array(SUM_BYTES);
const NO_IV = new Uint8Array(16);

/** See the module. Starts as the sum of no block. */
export class PlaneSum {
  readonly #words = new Uint32Array(WORDS);
  readonly #vbn = new Uint8Array(4);

  /** A sum again. @param bytes As {@linkcode bytes} gives them. */
  static from(bytes: Uint8Array): PlaneSum {
    assert(bytes.length === SUM_BYTES, `a sum of ${bytes.length} bytes`);
    const sum = new PlaneSum();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < WORDS; i++) sum.#words[i] = view.getUint32(i * 4, true);
    return sum;
  }

  /** A block comes in. */
  add(vbn: number, block: Uint8Array): void {
    const words = this.#words;
    const numbers = this.#numbersOf(vbn, block);
    for (let i = 0; i < WORDS; i++) {
      const [a, b] = [words[i], numbers[i]];
      words[i] = ((a & LOW_BITS) + (b & LOW_BITS)) ^ ((a ^ b) & TOP_BITS);
    }
  }

  /** A block that was added goes. */
  subtract(vbn: number, block: Uint8Array): void {
    const words = this.#words;
    const numbers = this.#numbersOf(vbn, block);
    for (let i = 0; i < WORDS; i++) {
      const [a, b] = [words[i], numbers[i]];
      words[i] = ((a | TOP_BITS) - (b & LOW_BITS)) ^ ((a ^ ~b) & TOP_BITS);
    }
  }

  /** The whole sum. */
  get bytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(SUM_BYTES);
    const view = new DataView(bytes.buffer);
    this.#words.forEach((word, i) => view.setUint32(i * 4, word, true));
    return bytes;
  }

  /** SHA-256 of the sum: what is signed in its place. */
  get digest(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(createHash("sha256").update(this.bytes).digest());
  }

  /** A sum of its own with the same value. */
  copy(): PlaneSum {
    const copy = new PlaneSum();
    copy.#words.set(this.#words);
    return copy;
  }

  #numbersOf(vbn: number, block: Uint8Array): Uint32Array {
    new DataView(this.#vbn.buffer).setUint32(0, vbn, true);
    const key = createHash("sha256").update(this.#vbn).update(block).digest();
    const cipher = createCipheriv("aes-256-ctr", key, NO_IV);
    const stream = cipher.update(ZEROS);
    cipher.final();
    // All machines that this runs on are little-endian, as its typed arrays on disk and wire assume.
    return stream.byteOffset % 4 === 0
      ? new Uint32Array(stream.buffer, stream.byteOffset, WORDS)
      : new Uint32Array(Uint8Array.from(stream).buffer);
  }
}
