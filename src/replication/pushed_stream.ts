/**
 * An image stream that somebody else sends, in one body or in many: to whoever applies it, it is one
 * source of bytes. A body that ends or breaks is followed by another one that goes on where it ended.
 *
 * Invariants:
 * 1. One body at a time is read; its bytes have their places in the stream.
 * 2. `wanted` is told only while nothing but that byte helps to go on.
 * 3. Nobody waits for ever: without another body the stream ends after a while.
 *
 * @module
 */

import { assert, VolcastError } from "../core/mod.ts";
import type { ImageSource } from "../image/mod.ts";

/** A part of a stream: from a byte on, to the end or not. */
export interface PushedBody {
  /** Byte of the stream at which it begins. */
  readonly start: number;
  readonly stream: ReadableStream<Uint8Array>;
}

/** Times a wrong part is asked for again. */
const MAX_WRONG = 3;

/** See the module. */
export class PushedStream implements ImageSource {
  readonly #waitMs: number;
  /** The first bytes, kept: the header is looked at before the stream is opened. */
  #head = new Uint8Array(0);
  #total = Infinity;
  #body: OpenBody | undefined;
  #wanted: number | undefined;
  #wake = () => {};
  #ended: VolcastError | undefined;
  #wrong = 0;

  /** @param waitMs Longest wait for another body. */
  constructor(waitMs: number) {
    this.#waitMs = waitMs;
  }

  /** The next byte that is wanted, while nothing else helps. */
  get wanted(): number | undefined {
    return this.#wanted;
  }

  /** Whether a body is being read. */
  get isAttached(): boolean {
    return this.#body !== undefined;
  }

  /** Why it was ended, if it was. */
  get ended(): VolcastError | undefined {
    return this.#ended;
  }

  /** Reads from a body from now on. @returns Settled when all of it that is of use was used. */
  attach(body: PushedBody): Promise<void> {
    assert(this.#body === undefined, "one body at a time");
    const opened = new OpenBody(body);
    this.#body = opened;
    this.#wanted = undefined;
    this.#wake();
    return opened.used;
  }

  /** The first `count` bytes, for a look before {@linkcode open}. */
  async head(count: number): Promise<Uint8Array> {
    while (this.#head.length < count) {
      const more = await this.#next(this.#head.length);
      if (more === undefined) break;
      const joined = new Uint8Array(this.#head.length + more.length);
      joined.set(this.#head);
      joined.set(more, this.#head.length);
      this.#head = joined;
    }
    return this.#head.subarray(0, count);
  }

  /** The stream ends at byte `total`. */
  endsAt(total: number): void {
    this.#total = total;
  }

  open(offset: number): Promise<ReadableStream<Uint8Array>> {
    let position = offset;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const bytes = await this.#next(position);
      if (bytes === undefined) return controller.close();
      position += bytes.length;
      controller.enqueue(bytes);
    };
    return Promise.resolve(new ReadableStream({ pull }, { highWaterMark: 0 }));
  }

  retry(_error: unknown, progressed: boolean): Promise<boolean> {
    this.#wrong = progressed ? 0 : this.#wrong + 1;
    if (this.#ended !== undefined || this.#wrong >= MAX_WRONG) return Promise.resolve(false);
    // What came was not what was sent: it is asked for again.
    this.#head = new Uint8Array(0);
    this.#body?.spoil();
    return Promise.resolve(true);
  }

  /** Ends it: whoever reads gets `reason`. */
  end(reason: VolcastError): void {
    this.#ended ??= reason;
    this.#wake();
    this.#detach();
  }

  /** Bytes from `position` on, `undefined` at the end of the stream. */
  async #next(position: number): Promise<Uint8Array | undefined> {
    if (position < this.#head.length) return this.#head.subarray(position);
    for (;;) {
      if (this.#ended !== undefined) throw this.#ended;
      const bytes = await this.#body?.from(position);
      if (bytes !== undefined) return bytes;
      if (position >= this.#total) return undefined;
      await this.#another(position);
    }
  }

  /** Waits for a body that goes on at `position`. */
  async #another(position: number): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    this.#wanted = position;
    this.#detach();
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(() => {
        this.#ended ??= new VolcastError(
          "io",
          `Cannot go on: nothing has come for ${this.#waitMs / 1000} s after byte ${position}`,
          "Send the image again; what has come is kept",
        );
        resolve();
      }, this.#waitMs);
    });
    clearTimeout(timer);
    this.#wanted = undefined;
  }

  #detach(): void {
    const body = this.#body;
    this.#body = undefined;
    body?.release();
  }
}

/** A body with its place in the stream. What was read last is kept: it may be asked for again. */
class OpenBody {
  readonly used: Promise<void>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #start: number;
  #chunk: Uint8Array = new Uint8Array(0);
  #release = () => {};
  #isSpoilt = false;

  constructor({ start, stream }: PushedBody) {
    this.#start = start;
    this.#reader = stream.getReader();
    this.used = new Promise((resolve) => this.#release = resolve);
  }

  /** Bytes from `position` on; `undefined` when it has none: it ended, broke, or is further on. */
  async from(position: number): Promise<Uint8Array | undefined> {
    for (;;) {
      if (position < this.#start || this.#isSpoilt) return undefined;
      const rest = this.#chunk.subarray(Math.min(position - this.#start, this.#chunk.length));
      if (rest.length > 0) return rest;
      try {
        const { value, done } = await this.#reader.read();
        if (done) return undefined;
        this.#start += this.#chunk.length;
        this.#chunk = value;
      } catch {
        // The line broke: the sender knows it too, and comes again.
        return undefined;
      }
    }
  }

  /** What it has is wrong: none of it is used any more. */
  spoil(): void {
    this.#isSpoilt = true;
  }

  /** Gives it up. */
  release(): void {
    this.#release();
    this.#reader.cancel().catch(() => {});
  }
}
