/**
 * Nothing may be stuck for ever: a stream on which nothing comes fails after a while.
 *
 * @module
 */

import {
  type BytesReader,
  messageOf,
  PATIENCE,
  type Patience,
  readerOf,
  UnansweredError,
  VolcastError,
} from "../core/mod.ts";

/** What is read at once at most: the host hands over in fewer, larger pieces than by itself. */
const PIECE_BYTES = 256 * 1024;

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
  const reader = new PieceReader(stream);
  let abort = () => {};
  const end = () => signal?.removeEventListener("abort", abort);
  return new ReadableStream({
    type: "bytes",
    autoAllocateChunkSize: PIECE_BYTES,
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
        const isMore = await Promise.race([reader.handOn(controller), silence]);
        if (!isMore) end();
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

/** Reads a stream into the memory that another one's reader gave, where it lets its reader do so. */
class PieceReader {
  readonly #reader: BytesReader;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = readerOf(stream);
  }

  /** Hands on what comes next. @returns Whether there was any. */
  async handOn(controller: ReadableByteStreamController): Promise<boolean> {
    const request = controller.byobRequest!;
    if (this.#reader instanceof ReadableStreamDefaultReader) {
      const { value } = await this.#reader.read();
      if (value !== undefined) controller.enqueue(Uint8Array.from(value));
      else {
        controller.close();
        request.respond(0);
      }
      return value !== undefined;
    }
    const { buffer, byteOffset, byteLength } = request.view!;
    const memory = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    const { value, done } = await this.#reader.read(memory);
    if (done) controller.close();
    request.respondWithNewView(value ?? new Uint8Array(0));
    return !done;
  }

  cancel(reason: unknown): Promise<void> {
    return this.#reader.cancel(reason);
  }
}
