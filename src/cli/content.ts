/**
 * Content on its way to the user.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";

/**
 * The chunks of a stream.
 *
 * @param what What is read, for the message: `the image`.
 * @throws {VolcastError} `io` when a server's answer broke off.
 */
export async function* chunksOf(
  stream: ReadableStream<Uint8Array>,
  what: string,
): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      let result: ReadableStreamReadResult<Uint8Array>;
      try {
        result = await reader.read();
      } catch (error) {
        if (error instanceof VolcastError) throw error;
        throw new VolcastError("io", `Cannot read ${what}: ${messageOf(error)}`, "", {
          cause: error,
        });
      }
      if (result.done) return;
      yield result.value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
