/**
 * Streams through compressors and decompressors of the runtime.
 *
 * Invariants:
 * 1. No more is taken from the source than its reader asks for, but for the buffers between: what unpacks to
 *    very much is never unpacked whole.
 * 2. When one end breaks or goes, so does the other.
 *
 * @module
 */

import { once } from "node:events";
import type { Transform } from "node:stream";

/** The stream, as a codec makes it. The codec is used up. */
export function recoded(
  source: ReadableStream<Uint8Array>,
  codec: Transform,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  void feed(source, codec);
  return ReadableStream.from(codec as AsyncIterable<Uint8Array<ArrayBuffer>>);
}

async function feed(source: ReadableStream<Uint8Array>, codec: Transform): Promise<void> {
  const reader = source.getReader();
  const closed = new Promise<void>((resolve) => codec.once("close", resolve));
  void closed.then(() => reader.cancel()).catch(() => {});
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (codec.destroyed) return;
      if (done) return void codec.end();
      if (!codec.write(value)) await Promise.race([once(codec, "drain"), closed]);
    }
  } catch (error) {
    codec.destroy(error instanceof Error ? error : new Error(String(error)));
  }
}
