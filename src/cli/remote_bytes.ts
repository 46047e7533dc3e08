/**
 * Bytes behind a URL, from any place on: answers that are cut off are gone on with.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { SEGMENT_HEADER_LAYOUT } from "../format/mod.ts";
import { authorizationOf, errorOf, nameOf, type ServerOptionsOfClient } from "../http/mod.ts";
import type { PieceBytes, RangedImage } from "../image/mod.ts";

/** Attempts in a row that bring nothing before a URL is given up. */
const ATTEMPTS = 5;
/** The first bytes are asked for at once, to know what it is and how long. */
const HEAD_BYTES = SEGMENT_HEADER_LAYOUT.size;

/** See the module. */
export class RemoteBytes implements PieceBytes, RangedImage {
  readonly name: string;
  byteCount = Infinity;
  #url: URL;
  readonly #signal: AbortSignal;
  readonly #options: ServerOptionsOfClient;
  #etag: string | undefined;
  #head: Uint8Array = new Uint8Array(0);

  private constructor(url: string, signal: AbortSignal, options: ServerOptionsOfClient) {
    this.name = nameOf(url);
    this.#url = new URL(url);
    this.#signal = signal;
    this.#options = options;
  }

  /**
   * Asks for the first bytes.
   *
   * @param options.token Bearer token. None for a URL that may be of any host.
   * @param options.credentials Know which server gets which token.
   * @throws {VolcastError} What the server answers; `io` when it cannot be reached.
   */
  static async open(
    url: string,
    options: ServerOptionsOfClient & { signal: AbortSignal },
  ): Promise<RemoteBytes> {
    const bytes = new RemoteBytes(url, options.signal, options);
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
      const { body, start } = await this.#fetch(position, to);
      // Whoever answers without ranges sends it from the beginning.
      let skip = position - start;
      try {
        for await (const chunk of body) {
          const part = chunk.subarray(Math.min(skip, chunk.length)).subarray(0, to - position);
          skip -= Math.min(skip, chunk.length);
          if (part.length === 0) continue;
          position += part.length;
          yield part;
          if (position === to) return;
        }
        if (this.byteCount === Infinity) return;
      } catch (error) {
        failure = error;
      }
      this.#signal.throwIfAborted();
      failures = position > before ? 0 : failures + 1;
      if (failures >= ATTEMPTS) {
        throw new VolcastError(
          "io",
          `Cannot read ${this.name}: it breaks off at byte ${position}`,
          "Check the server, and run it again: what has come is kept",
          { cause: failure },
        );
      }
      if (position < Math.min(to, this.byteCount)) {
        await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** failures));
      }
    }
  }

  async #fetch(
    from: number,
    to: number,
  ): Promise<{ body: ReadableStream<Uint8Array>; start: number }> {
    const response = await this.#request(from, to);
    const body = response.body ?? new Blob([]).stream();
    const refuse = async (reason: string): Promise<never> => {
      await body.cancel();
      throw new VolcastError("io", `Cannot read ${this.name}: ${reason}`);
    };
    const location = new URL(response.headers.get("content-location") ?? this.#url, this.#url);
    // The name whose answers never change: what follows is of the same image, whatever is published.
    if (location.origin === this.#url.origin) this.#url = location;
    const etag = response.headers.get("etag") ?? undefined;
    if (this.#etag !== undefined && etag !== this.#etag) {
      return await refuse("another image is there now");
    }
    this.#etag = etag;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    const isPart = response.status === 206;
    const total = isPart ? range?.[2] : response.headers.get("content-length");
    if (/^\d+$/.test(total ?? "")) this.byteCount = Number(total);
    const start = isPart ? Number(range?.[1] ?? Infinity) : 0;
    return start > from ? await refuse("the answer is not the range asked for") : { body, start };
  }

  async #request(from: number, to: number): Promise<Response> {
    const { credentials } = this.#options;
    const token = this.#options.token ?? credentials?.tokenFor(this.#url.href);
    const headers: Record<string, string> = {
      "accept-encoding": "identity",
      ...authorizationOf(token),
    };
    if (from > 0 || to !== Infinity) {
      headers.range = `bytes=${from}-${to === Infinity ? "" : to - 1}`;
      if (this.#etag !== undefined) headers["if-range"] = this.#etag;
    }
    let response: Response;
    try {
      response = await fetch(this.#url, {
        headers,
        signal: this.#signal,
        ...(credentials?.client === undefined ? {} : { client: credentials.client }),
      });
    } catch (error) {
      this.#signal.throwIfAborted();
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      throw new VolcastError("io", `Cannot read ${this.#url}: ${messageOf(cause)}`);
    }
    if (response.ok) return response;
    throw await errorOf(response, this.#url.origin, token);
  }
}
