/**
 * A parent reached over HTTP.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { z } from "zod";
import { VolcastError } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import type { Peer, PeerEvent, PeerPlan, SitePosition } from "../replication/mod.ts";
import { nameOf, requestFrom } from "./client.ts";
import { watched } from "./patience.ts";
import { HEADERS } from "./state_headers.ts";

const id = z.string().regex(SNAPSHOT_ID_PATTERN);
const count = z.coerce.number().int().nonnegative();
const PLAN_HEADERS = z.object({
  volumeId: z.string().regex(/^[0-9a-f]{32}$/),
  capacity: count,
  top: id,
  topName: z.string().transform(decodeURIComponent),
  base: id.optional(),
  byteCount: count,
  blockCount: count,
  chain: z.string().transform((text) => text.split(",").map(decodeURIComponent)),
});

/** See the module. */
export class HttpPeer implements Peer {
  readonly name: string;
  readonly token: string | undefined;

  /** @param url Where the parent listens. */
  constructor(url: string, options: { token?: string | undefined } = {}) {
    this.name = nameOf(url);
    this.token = options.token;
  }

  async plan(
    request: { since?: string; site: string },
    signal?: AbortSignal,
  ): Promise<PeerPlan> {
    const query = new URLSearchParams(request);
    const response = await requestFrom(this, `/replicate?${query}`, { method: "HEAD", signal });
    const { headers } = response;
    const get = (name: string) => headers.get(name) ?? undefined;
    const parsed = PLAN_HEADERS.safeParse({
      volumeId: get(HEADERS.volume),
      capacity: get(HEADERS.capacity),
      top: get(HEADERS.top),
      topName: get(HEADERS.topName),
      base: get(HEADERS.base),
      byteCount: get("content-length"),
      blockCount: get(HEADERS.blocks),
      chain: get(HEADERS.chain),
    });
    if (!parsed.success) {
      throw new VolcastError(
        "io",
        `Cannot understand ${this.name}: ${z.prettifyError(parsed.error)}`,
        "Check that the URL is that of a volcast server",
      );
    }
    const { base, ...plan } = parsed.data;
    return base === undefined ? plan : { ...plan, base };
  }

  async open(
    plan: PeerPlan,
    offset: number,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const path = `/images/${plan.volumeId}/${plan.base ?? "full"}/${plan.top}`;
    // Compressed answers have no ranges; the client here would ask for one by itself.
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (offset > 0) headers.range = `bytes=${offset}-`;
    const response = await requestFrom(this, path, { headers, signal });
    const body = response.body ?? new Blob([]).stream();
    if (offset === 0 || response.status === 206) {
      const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (offset === 0 || Number(start) === offset) return watched(body, this.name, signal);
    }
    // Something between here and there ignores ranges: what is not wanted is dropped.
    return watched(body, this.name, signal).pipeThrough(dropping(offset));
  }

  async confirm(site: string, position: SitePosition, signal?: AbortSignal): Promise<void> {
    const response = await requestFrom(this, `/sites/${encodeURIComponent(site)}`, {
      method: "PUT",
      body: JSON.stringify(position),
      headers: { "content-type": "application/json" },
      signal,
    });
    await response.body?.cancel();
  }

  async *events(signal: AbortSignal): AsyncGenerator<PeerEvent> {
    const response = await requestFrom(this, "/events", { signal });
    if (response.body === null) return;
    const lines = watched(response.body, this.name, signal)
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .pipeThrough(new TextLineStream() as TransformStream<string, string>);
    for await (const line of lines) {
      if (line.startsWith("event: ")) yield { type: line.slice("event: ".length).trim() };
    }
  }
}

function dropping(count: number): TransformStream<Uint8Array, Uint8Array> {
  let rest = count;
  return new TransformStream({
    transform(chunk, controller): void {
      const kept = chunk.subarray(Math.min(rest, chunk.length));
      rest -= chunk.length - kept.length;
      if (kept.length > 0) controller.enqueue(kept);
    },
  });
}
