/**
 * Nothing may be stuck for ever: a stream on which nothing comes fails after a while.
 *
 * @module
 */

/** Time to the first byte of an answer, and between two chunks of a stream, ms. */
export const PATIENCE_MS = 30_000;

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
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
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
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${name} sent nothing for ${PATIENCE_MS / 1000} s`)),
          PATIENCE_MS,
        );
      });
      try {
        const { value, done } = await Promise.race([reader.read(), silence]);
        if (signal?.aborted) return;
        if (!done) return controller.enqueue(value);
        end();
        controller.close();
      } catch (error) {
        end();
        controller.error(error);
        reader.cancel(error).catch(() => {});
      } finally {
        clearTimeout(timer);
      }
    },
    cancel(reason): Promise<void> {
      end();
      return reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
