/**
 * Taking exact numbers of bytes from a stream of chunks.
 *
 * @module
 */

import { type BytesReader, readerOf, VolcastError } from "../core/mod.ts";

/** A stream ended or broke before it should have. Whoever has another way to the bytes may go on there. */
export class CutError extends Error {
  override readonly name = "CutError";
}

/** For whoever has no other way to the bytes: a stream that was cut is damaged. */
export function cutIsDamage(error: unknown): unknown {
  if (!(error instanceof CutError)) return error;
  // Whoever made the stream says better why it broke.
  if (error.cause instanceof VolcastError) return error.cause;
  return new VolcastError(
    "damaged",
    `Cannot read the image: it is incomplete (${error.message})`,
    "Fetch or send it again",
    { cause: error },
  );
}

/** Bytes that are asked for at once of a stream that lets its reader choose. */
const MEMORY_BYTES = 256 * 1024;

/**
 * See the module. Where a stream takes memory to read into, it gets the same memory again and again: new
 * memory for each chunk makes the host stop everything, now and then, to find what is not used any more.
 */
export class ByteReader {
  readonly #reader: BytesReader;
  #memory: ArrayBuffer | undefined;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = readerOf(stream);
  }

  /**
   * Fills `target`.
   * @throws {CutError} When the stream ends or fails before.
   */
  async fill(target: Uint8Array): Promise<void> {
    let done = 0;
    while (done < target.length) {
      if (this.#chunk.length === 0) await this.#next();
      const count = Math.min(this.#chunk.length, target.length - done);
      target.set(this.#chunk.subarray(0, count), done);
      this.#chunk = this.#chunk.subarray(count);
      done += count;
    }
  }

  /** The next `count` bytes; for small counts. */
  async take(count: number): Promise<Uint8Array> {
    const target = new Uint8Array(count);
    await this.fill(target);
    return target;
  }

  /** Whether nothing follows. */
  async atEnd(): Promise<boolean> {
    while (this.#chunk.length === 0) if (!await this.#read()) return true;
    return false;
  }

  /** What is at hand, at least a byte; `undefined` where nothing follows. */
  async some(): Promise<Uint8Array | undefined> {
    if (await this.atEnd()) return undefined;
    const chunk = this.#chunk;
    this.#chunk = new Uint8Array(0);
    // Whoever takes it may keep it.
    this.#memory = undefined;
    return chunk;
  }

  /** Gives the stream up. */
  async cancel(): Promise<void> {
    try {
      await this.#reader.cancel();
    } catch {
      // It has failed already; whoever read from it was told.
    }
  }

  async #next(): Promise<void> {
    let isMore: boolean;
    try {
      isMore = await this.#read();
    } catch (error) {
      throw new CutError("The stream broke", { cause: error });
    }
    if (!isMore) throw new CutError("The stream ended before its end record");
  }

  /** Takes the next chunk. @returns Whether there was one. */
  async #read(): Promise<boolean> {
    if (this.#reader instanceof ReadableStreamDefaultReader) {
      const { value } = await this.#reader.read();
      this.#chunk = value ?? this.#chunk;
      return value !== undefined;
    }
    const memory = this.#memory ?? new ArrayBuffer(MEMORY_BYTES);
    this.#memory = undefined;
    const { value, done } = await this.#reader.read(new Uint8Array(memory));
    this.#memory = value?.buffer;
    if (done) return false;
    this.#chunk = value;
    return true;
  }
}
