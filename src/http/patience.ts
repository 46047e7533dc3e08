/**
 * Nothing may be stuck for ever: a stream on which nothing comes fails after a while.
 *
 * @module
 */

/** Time to the first byte of an answer, and between two chunks of a stream, ms. */
export const PATIENCE_MS = 30_000;

/** The same stream, failing when nothing comes for too long. `name` is whose stream it is. */
export function watched(
  stream: ReadableStream<Uint8Array>,
  name: string,
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  return new ReadableStream({
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
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        controller.error(error);
        reader.cancel(error).catch(() => {});
      } finally {
        clearTimeout(timer);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}
