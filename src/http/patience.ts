/**
 * Nothing may be stuck for ever: a stream on which nothing comes fails after a while.
 *
 * @module
 */

import { messageOf, PATIENCE, type Patience, UnansweredError, VolcastError } from "../core/mod.ts";

/** Bytes that are asked for at once: what the host has is handed over in fewer, larger pieces. */
const READ_BYTES = 256 * 1024;

/** Reads a stream in large pieces, where it lets its reader choose how large they are. */
function largeReads(stream: ReadableStream<Uint8Array>): {
  reader: ReadableStreamDefaultReader<Uint8Array> | ReadableStreamBYOBReader;
  read: () => Promise<{ value?: Uint8Array | undefined; done: boolean }>;
} {
  try {
    const reader = stream.getReader({ mode: "byob" });
    return { reader, read: () => reader.read(new Uint8Array(READ_BYTES)) };
  } catch {
    const reader = stream.getReader();
    return { reader, read: () => reader.read() };
  }
}

/**
 * The same stream, failing when nothing comes for too long, or at once when `signal` fires: a signal that
 * was given to `fetch` does not reach the body for sure once the answer's head is there.
 *
 * @param name Whose stream it is, for the message.
 */
export function watched(
  stream: ReadableStream<Uint8Array>,
  name: string,
  signal?: AbortSignal,
  { silenceMs, timer }: Pick<Patience, "silenceMs" | "timer"> = PATIENCE,
): ReadableStream<Uint8Array> {
  const { reader, read } = largeReads(stream);
  let abort = () => {};
  const end = () => signal?.removeEventListener("abort", abort);
  return new ReadableStream({
    start(controller): void {
      abort = () => {
        end();
        controller.error(signal?.reason);
        reader.cancel(signal?.reason).catch(() => {});
      };
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort);
    },
    async pull(controller): Promise<void> {
      let callOff = () => {};
      const silence = new Promise<never>((_, reject) => {
        const text = `Cannot go on: ${name} sent nothing for ${silenceMs / 1000} s`;
        callOff = timer(
          silenceMs,
          () => reject(new UnansweredError(text, "", { isPassing: true })),
        );
      });
      try {
        const { value, done } = await Promise.race([read(), silence]);
        if (signal?.aborted) return;
        if (!done) return controller.enqueue(value!);
        end();
        controller.close();
      } catch (error) {
        end();
        const text = `Cannot go on: ${name} broke off: ${messageOf(error)}`;
        controller.error(
          error instanceof VolcastError
            ? error
            : new UnansweredError(text, "", { isPassing: true, cause: error }),
        );
        reader.cancel(error).catch(() => {});
      } finally {
        callOff();
      }
    },
    cancel(reason): Promise<void> {
      end();
      return reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
