/**
 * Image streams as byte strings, and byte strings as sources of images.
 *
 * @module
 */

import type { Image, ImageSource } from "../../src/image/mod.ts";

/** All bytes of a stream. */
export async function collect(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of stream) {
    parts.push(part);
    length += part.length;
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** All bytes of an image. */
export function bytesOf(image: Image): Promise<Uint8Array<ArrayBuffer>> {
  return collect(image.stream());
}

/** A stream of bytes in chunks of a given size. */
export function streamOf(bytes: Uint8Array, chunkBytes = 10_000): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + chunkBytes));
      at += chunkBytes;
    },
  }, { highWaterMark: 0 });
}

/** A source that gives these bytes once. */
export function sourceOf(bytes: Uint8Array): ImageSource {
  return {
    open: (offset) => Promise.resolve(streamOf(bytes.subarray(offset))),
    retry: () => Promise.resolve(false),
  };
}

/** A source that produces an image. */
export function sourceOfImage(image: Image): ImageSource {
  return {
    open: (offset) => Promise.resolve(image.stream({ from: offset })),
    retry: () => Promise.resolve(false),
  };
}
