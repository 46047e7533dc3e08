/**
 * Readers of streams of bytes.
 *
 * @module
 */

/** A reader of bytes, with memory of its own or without. */
export type BytesReader =
  | ReadableStreamDefaultReader<Uint8Array>
  | ReadableStreamBYOBReader;

/** A reader that says into which memory is read, where the stream lets it; any other elsewhere. */
export function readerOf(stream: ReadableStream<Uint8Array>): BytesReader {
  try {
    return stream.getReader({ mode: "byob" });
  } catch {
    return stream.getReader();
  }
}
