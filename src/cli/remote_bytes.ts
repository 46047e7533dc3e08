/**
 * Bytes behind a URL, from any place on: answers that are cut off are gone on with.
 *
 * @module
 */

import {
  isPassing,
  messageOf,
  PATIENCE,
  type Patience,
  UnansweredError,
  VolcastError,
  waitMsOf,
} from "../core/mod.ts";
import { SEGMENT_HEADER_LAYOUT } from "../format/mod.ts";
import { bodyOf, nameOf, requestFrom, type ServerOptionsOfClient } from "../http/mod.ts";
import type { PieceBytes, RangedImage } from "../image/mod.ts";

/** The first bytes are asked for at once, to know what it is and how long. */
const HEAD_BYTES = SEGMENT_HEADER_LAYOUT.size;

/** How {@linkcode RemoteBytes} are opened. */
export interface RemoteOptions extends ServerOptionsOfClient {
  /** Bearer token. None for a URL that may be of any host. */
  readonly token?: string | undefined;
  readonly signal: AbortSignal;
}

/** See the module. */
export class RemoteBytes implements PieceBytes, RangedImage {
  readonly name: string;
  byteCount = Infinity;
  #url: URL;
  readonly #signal: AbortSignal;
  readonly #options: RemoteOptions;
  readonly #patience: Patience;
  #etag: string | undefined;
  #head: Uint8Array = new Uint8Array(0);

  private constructor(url: string, options: RemoteOptions) {
    this.name = nameOf(url);
    const parsed = URL.parse(url);
    if (parsed === null) throw new VolcastError("usage", `Cannot read ${this.name}: it is no URL`);
    this.#url = parsed;
    this.#signal = options.signal;
    this.#options = options;
    this.#patience = options.patience ?? PATIENCE;
  }

  /**
   * Asks for the first bytes.
   * @throws {VolcastError} What the server answers; `io` when it cannot be reached.
   */
  static async open(url: string, options: RemoteOptions): Promise<RemoteBytes> {
    const bytes = new RemoteBytes(url, options);
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of bytes.stream(0, HEAD_BYTES)) {
      parts.push(chunk);
      length += chunk.length;
    }
    bytes.#head = new Uint8Array(length);
    for (let at = 0; parts.length > 0;) {
      const part = parts.shift()!;
      bytes.#head.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  stream(from: number, to: number): ReadableStream<Uint8Array> {
    return ReadableStream.from(this.#chunks(from, Math.min(to, this.byteCount)));
  }

  async *#chunks(from: number, to: number): AsyncGenerator<Uint8Array> {
    let position = from;
    if (to <= this.#head.length) {
      if (from < to) yield this.#head.subarray(from, to);
      return;
    }
    for (let failures = 0; position < Math.min(to, this.byteCount);) {
      const before = position;
      let failure: unknown;
      try {
        const { body, start } = await this.#fetch(position, to);
        // Whoever answers without ranges sends it from the beginning.
        let skip = position - start;
        for await (const chunk of body) {
          const part = chunk.subarray(Math.min(skip, chunk.length)).subarray(0, to - position);
          skip -= Math.min(skip, chunk.length);
          if (part.length === 0) continue;
          position += part.length;
          yield part;
          if (position === to) return;
        }
        if (this.byteCount === Infinity || position >= this.byteCount) return;
      } catch (error) {
        this.#signal.throwIfAborted();
        if (error instanceof VolcastError && !isPassing(error)) throw this.#failed(error);
        failure = error;
      }
      failures = position > before ? 1 : failures + 1;
      if (failures >= this.#patience.attempts) throw this.#failed(failure, position);
      await this.#patience.pause(waitMsOf(this.#patience, failures, failure), this.#signal);
      this.#signal.throwIfAborted();
    }
  }

  /** @param position Where it breaks off, where it did. */
  #failed(error: unknown, position = 0): VolcastError {
    if (error instanceof VolcastError && !(error instanceof UnansweredError)) return error;
    if (position === 0) {
      const hint = error instanceof VolcastError ? error.hint : "";
      const reason = error === undefined ? "nothing comes" : messageOf(error);
      return new VolcastError("io", `Cannot read ${this.name}: ${reason}`, hint, { cause: error });
    }
    const reason = error === undefined ? "" : `: ${messageOf(error)}`;
    return new VolcastError(
      "io",
      `Cannot read ${this.name}: it breaks off at byte ${position}${reason}`,
      "Check the server, and run it again: what has come is kept",
      { cause: error },
    );
  }

  async #fetch(
    from: number,
    to: number,
  ): Promise<{ body: ReadableStream<Uint8Array>; start: number }> {
    const response = await this.#request(from, to);
    const body = bodyOf(response, this.name, {
      signal: this.#signal,
      patience: this.#patience,
    });
    const refuse = async (reason: string): Promise<never> => {
      await body.cancel();
      throw new VolcastError("io", `Cannot read ${this.name}: ${reason}`);
    };
    const location = new URL(response.headers.get("content-location") ?? this.#url, this.#url);
    // The name whose answers never change: what follows is of the same image, whatever is published.
    if (location.origin === this.#url.origin) this.#url = location;
    const etag = response.headers.get("etag") ?? undefined;
    if (this.#etag !== undefined && etag === undefined) {
      await body.cancel();
      const text = `Cannot go on reading ${this.name}: the answer does not say of what it is`;
      throw new UnansweredError(text, "", { isPassing: true });
    }
    if (this.#etag !== undefined && etag !== this.#etag) {
      return await refuse("another image is there now");
    }
    this.#etag = etag;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    const isPart = response.status === 206;
    const total = isPart ? range?.[2] : response.headers.get("content-length");
    if (/^\d+$/.test(total ?? "")) {
      if (![Infinity, Number(total)].includes(this.byteCount)) {
        return await refuse(`it had ${this.byteCount} bytes, and has ${total} now`);
      }
      this.byteCount = Number(total);
    }
    const start = isPart ? Number(range?.[1] ?? Infinity) : 0;
    return start > from ? await refuse("the answer is not the range asked for") : { body, start };
  }

  async #request(from: number, to: number): Promise<Response> {
    const headers: Record<string, string> = {};
    if (from > 0 || to !== Infinity) {
      headers.range = `bytes=${from}-${to === Infinity ? "" : to - 1}`;
      if (this.#etag !== undefined) headers["if-range"] = this.#etag;
    }
    const { token, credentials } = this.#options;
    const server = {
      name: this.#url.origin,
      token: token ?? credentials?.tokenFor(this.#url.href),
      client: credentials?.client,
      patience: this.#patience,
    };
    return await requestFrom(server, this.#url, {
      headers,
      once: true,
      anybody: true,
      signal: this.#signal,
    });
  }
}
