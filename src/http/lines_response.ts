/**
 * Lines of JSON as an HTTP answer, made when they are asked for.
 *
 * @module
 */

import type { Context } from "hono";
import type { View } from "../volume/mod.ts";

/** Characters that are handed over at once. */
const CHUNK = 64 * 1024;

/** The answer. Takes over the views: they are released when it has ended in any way. */
export function linesResponse(
  c: Context,
  lines: Iterator<string>,
  views: readonly View[],
): Response {
  const release = () => views.forEach((view) => view.release());
  const headers = { "content-type": "application/x-ndjson", "cache-control": "no-store" };
  if (c.req.raw.method === "HEAD") {
    release();
    return c.body(null, 200, headers);
  }
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller): void {
      try {
        // The blocks may be needed while a slow reader reads: its leases say so.
        for (const view of views) void view.fs;
        let text = "";
        while (text.length < CHUNK) {
          const next = lines.next();
          if (next.done) break;
          text += next.value;
        }
        if (text !== "") return controller.enqueue(encoder.encode(text));
        release();
        controller.close();
      } catch (error) {
        release();
        controller.error(error);
      }
    },
    cancel: release,
  });
  return c.body(body, 200, headers);
}
