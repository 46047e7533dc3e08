/**
 * Streams through compressors and decompressors of the runtime.
 *
 * Invariants:
 * 1. Nothing is taken from the source before somebody reads, and no more than its reader asks for but for the
 *    buffers between: what unpacks to very much is never unpacked whole.
 * 2. When one end breaks or goes, so does the other.
 *
 * @module
 */

import { once } from "node:events";
import type { Transform } from "node:stream";
import { constants, createZstdDecompress } from "node:zlib";

/** Memory that whoever compressed may ask for, as a power of 2: 8 MiB; what volcast sends needs 2 MiB. */
const WINDOW_LOG = 23;

/** What was compressed by zstd, as it was. Fails for what would take more memory than it should. */
export function unzstd(
  source: ReadableStream<Uint8Array>,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const params = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG };
  return recoded(source, createZstdDecompress({ params }));
}

/** The stream, as a codec makes it. The codec is used up. */
export function recoded(
  source: ReadableStream<Uint8Array>,
  codec: Transform,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunks = codec[Symbol.asyncIterator]() as AsyncIterator<Uint8Array<ArrayBuffer>>;
  let isBegun = false;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      // Not before: nobody would hear what is wrong with the first bytes, and that ends the process.
      if (!isBegun) void feed(source, codec);
      isBegun = true;
      const { value, done } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel(reason): Promise<void> {
      codec.destroy();
      if (!isBegun) await source.cancel(reason);
    },
  }, { highWaterMark: 0 });
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
