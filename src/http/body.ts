/**
 * Bodies of requests: never more than a route takes, and never waited for without an end.
 *
 * @module
 */

import type { RouteContext } from "./env.ts";

/** What a route takes. */
export interface BodyLimits {
  /** Most bytes. */
  readonly maxBytes: number;
  /** Longest time for all of it, ms; without an end by default. */
  readonly totalMs?: number;
}

/**
 * The body of a request. What says beforehand that it is too long is refused before a byte is taken.
 * @returns A stream that fails with a `Refusal` where a limit is met.
 * @throws {Refusal} 413.
 */
export function bodyOf(c: RouteContext, limits: BodyLimits): ReadableStream<Uint8Array> {
  const { traffic } = c.get("options");
  const { maxBytes, totalMs = Infinity } = limits;
  const { bodySilenceMs } = traffic.limits;
  const tooLarge = (has: string) =>
    traffic.refusal(
      `Cannot take the request's body: it has ${has} bytes, the limit is ${maxBytes}`,
      { limit: "body", status: 413, kind: "usage" },
    );
  const told = Number(c.req.raw.headers.get("content-length") ?? 0);
  if (told > maxBytes) throw tooLarge(String(told));
  const begin = performance.now();
  const reader = (c.req.raw.body ?? new Blob([]).stream()).getReader();
  let taken = 0;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      const leftMs = begin + totalMs - performance.now();
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<never>((_, reject) => {
        const reason = leftMs < bodySilenceMs
          ? `it is not here after ${totalMs / 1000} s`
          : `nothing came for ${bodySilenceMs / 1000} s`;
        timer = setTimeout(() =>
          reject(
            traffic.refusal(`Cannot take the request's body: ${reason}`, {
              limit: "body-time",
              status: 408,
              kind: "busy",
            }),
          ), Math.max(0, Math.min(leftMs, bodySilenceMs)));
      });
      try {
        const { value, done } = await Promise.race([reader.read(), late]);
        if (done) return controller.close();
        taken += value.length;
        if (taken <= maxBytes) return controller.enqueue(value);
        // Whoever answers takes the rest, so that the sender gets to know why.
        reader.releaseLock();
        controller.error(tooLarge(`more than ${maxBytes}`));
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
