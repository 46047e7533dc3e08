/**
 * Content that is the same for the same seed: text, which compresses as text does, and noise.
 *
 * @module
 */

import { randomOf } from "../../tests/e2e/trees.ts";

const WORDS = 4096;
/** Longer than the windows of compressors, so that what they find is what text has. */
const TEXT_BYTES = 8 * 2 ** 20;
/** Shorter than what peers take for one piece when they look for equal ones. */
const PASSAGE_BYTES = 256;
/** Of every four files one is noise, as pictures and archives are. */
const NOISY = 0.25;

/** Makes content, one piece after the other. */
export class ContentMaker {
  readonly #random: () => number;
  readonly #text: Uint8Array;

  constructor(seed: number) {
    this.#random = randomOf(seed);
    this.#text = this.#longText();
  }

  /** A number in [0, 1). */
  random(): number {
    return this.#random();
  }

  /** One of a list. */
  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.#random() * items.length)];
  }

  /** Content of a file: mostly text. */
  content(byteCount: number): Uint8Array<ArrayBuffer> {
    return this.#random() < NOISY ? this.noise(byteCount) : this.text(byteCount);
  }

  /** Text: passages of {@linkcode PASSAGE_BYTES} of a long one, in any order. */
  text(byteCount: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(byteCount);
    for (let at = 0; at < byteCount; at += PASSAGE_BYTES) {
      const length = Math.min(PASSAGE_BYTES, byteCount - at);
      const from = Math.floor(this.#random() * (this.#text.length - length));
      bytes.set(this.#text.subarray(from, from + length), at);
    }
    return bytes;
  }

  /** Bytes that do not compress. */
  noise(byteCount: number): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(Math.ceil(byteCount / 4));
    let state = Math.floor(this.#random() * 2 ** 32) | 1;
    for (let i = 0; i < words.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[i] = state;
    }
    return new Uint8Array(words.buffer, 0, byteCount);
  }

  /** Sizes as in a distribution's /usr/share: half are below 2 KB, the mean is 7 KB, a few are large. */
  size(): number {
    const normal = Math.sqrt(-2 * Math.log(1 - this.#random())) *
      Math.cos(2 * Math.PI * this.#random());
    return Math.min(Math.floor(2000 * Math.exp(1.58 * normal)), 4 * 2 ** 20);
  }

  /** Words, the first ones far more often than the last, in lines. */
  #longText(): Uint8Array {
    const words = Array.from({ length: WORDS }, () => this.#word());
    const bytes = new Uint8Array(TEXT_BYTES);
    let at = 0;
    for (let column = 0; at < bytes.length;) {
      const word = words[Math.floor(this.#random() ** 3 * WORDS)];
      for (let i = 0; i < word.length && at < bytes.length; i++) bytes[at++] = word[i];
      column += word.length + 1;
      if (at < bytes.length) bytes[at++] = column > 80 ? 10 : 32;
      if (column > 80) column = 0;
    }
    return bytes;
  }

  #word(): Uint8Array {
    const length = 2 + Math.floor(this.#random() * 9);
    return Uint8Array.from({ length }, () => 97 + Math.floor(this.#random() ** 1.5 * 26));
  }
}
