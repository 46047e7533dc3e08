/**
 * Bytes in pieces of another size.
 *
 * @module
 */

/** The same bytes in chunks of `size`, the last one shorter; each chunk is its receiver's own. */
export async function* inChunks(
  parts: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let chunk = new Uint8Array(size);
  let used = 0;
  for await (const part of parts) {
    for (let at = 0; at < part.length;) {
      const count = Math.min(part.length - at, size - used);
      chunk.set(part.subarray(at, at + count), used);
      at += count;
      used += count;
      if (used < size) continue;
      yield chunk;
      chunk = new Uint8Array(size);
      used = 0;
    }
  }
  if (used > 0) yield chunk.subarray(0, used);
}
