/**
 * A parent reached over HTTP.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { TextLineStream } from "@std/streams/text-line-stream";
import { z } from "zod";
import { VolcastError } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import { type Image, listOfBlocks } from "../image/mod.ts";
import type { Peer, PeerEvent, PeerPlan, PeerRequest, SitePosition } from "../replication/mod.ts";
import { nameOf, requestFrom } from "./client.ts";
import type { ServerOptionsOfClient } from "./credentials.ts";
import { parseHistory } from "./history_header.ts";
import { watched } from "./patience.ts";
import { HEADERS } from "./state_headers.ts";
import { type Throttle, throttled } from "./throttle.ts";

const id = z.string().regex(SNAPSHOT_ID_PATTERN);
const count = z.coerce.number().int().nonnegative();
const PLAN_HEADERS = z.object({
  volumeId: z.string().regex(/^[0-9a-f]{32}$/),
  capacity: count,
  top: id,
  topName: z.string().transform(decodeURIComponent),
  base: z.string().refine((text) => text.split("~").every((part) => SNAPSHOT_ID_PATTERN.test(part)))
    .optional(),
  snapshots: z.string().regex(/^[0-9.,]+$/).optional(),
  byteCount: count,
  blockCount: count,
  chain: z.string().transform((text) => text.split(",").map(decodeURIComponent)),
  wantsPlane: id.optional(),
  seal: z.base64().max(2048).transform((text) => new Uint8Array(Buffer.from(text, "base64")))
    .optional(),
  history: z.string().optional().transform((text) =>
    text === undefined ? undefined : parseHistory(text)
  ),
});
/** Shadows can be bases too: nodes that have them list them beside the snapshots. */
const SNAPSHOTS = z.object({
  snapshots: z.array(z.object({ id })),
  shadows: z.array(z.object({ id })).default([]),
});
const STATUS_OF_VOLUME = z.object({ volume: z.object({ id: z.string() }) });

/** See the module. */
export class HttpPeer implements Peer {
  readonly name: string;
  readonly #options: ServerOptionsOfClient;

  readonly #throttle: Throttle | undefined;

  /**
   * @param url Where the parent listens.
   * @param options.throttle How fast images come from there.
   */
  constructor(
    url: string,
    options: ServerOptionsOfClient & { throttle?: Throttle | undefined } = {},
  ) {
    this.name = nameOf(url);
    this.#options = options;
    this.#throttle = options.throttle;
  }

  /** What it is shown. Credentials may change while this lives. */
  get token(): string | undefined {
    return this.#options.token ?? this.#options.credentials?.tokenFor(this.name);
  }

  /** Whose certificates are believed. */
  get client(): Deno.HttpClient | undefined {
    return this.#options.credentials?.client;
  }

  async plan(request: PeerRequest, signal?: AbortSignal): Promise<PeerPlan> {
    const query = new URLSearchParams({ ...request });
    const response = await requestFrom(this, `/replicate?${query}`, { method: "HEAD", signal });
    const { headers } = response;
    const get = (name: string) => headers.get(name) ?? undefined;
    const parsed = PLAN_HEADERS.safeParse({
      volumeId: get(HEADERS.volume),
      capacity: get(HEADERS.capacity),
      top: get(HEADERS.top),
      topName: get(HEADERS.topName),
      base: get(HEADERS.base),
      snapshots: get(HEADERS.snapshots),
      byteCount: get("content-length"),
      blockCount: get(HEADERS.blocks),
      chain: get(HEADERS.chain),
      wantsPlane: get(HEADERS.wantsPlane),
      seal: get(HEADERS.seal),
      history: get(HEADERS.epoch),
    });
    if (!parsed.success) throw this.#notUnderstood(parsed.error);
    const { base, history, snapshots, wantsPlane, seal, ...plan } = parsed.data;
    return {
      ...plan,
      ...(base === undefined ? {} : { base }),
      ...(history === undefined ? {} : { history }),
      ...(snapshots === undefined ? {} : { snapshots }),
      ...(wantsPlane === undefined ? {} : { wantsPlane }),
      ...(seal === undefined ? {} : { seal }),
    };
  }

  async bringPlane(site: string, image: Image, signal?: AbortSignal): Promise<void> {
    const response = await requestFrom(this, `/sites/${encodeURIComponent(site)}/plane`, {
      method: "PUT",
      body: await new Response(image.stream()).bytes() as Uint8Array<ArrayBuffer>,
      headers: { "content-type": "application/vnd.volcast.image" },
      signal,
    });
    await response.body?.cancel();
  }

  /** Which volume the parent has, and the ids of what it can make increments from. */
  async snapshots(signal?: AbortSignal): Promise<{ volumeId: string; ids: Set<string> }> {
    const get = async <T>(path: string, schema: z.ZodType<T>): Promise<T> => {
      const parsed = schema.safeParse(await (await requestFrom(this, path, { signal })).json());
      if (!parsed.success) throw this.#notUnderstood(parsed.error);
      return parsed.data;
    };
    const { snapshots, shadows } = await get("/snapshots", SNAPSHOTS);
    const { volume } = await get("/status", STATUS_OF_VOLUME);
    return { volumeId: volume.id, ids: new Set([...snapshots, ...shadows].map((one) => one.id)) };
  }

  #notUnderstood(error: z.ZodError): VolcastError {
    return new VolcastError(
      "io",
      `Cannot understand ${this.name}: ${z.prettifyError(error)}`,
      "Check that the URL is that of a volcast server",
    );
  }

  async open(
    plan: PeerPlan,
    offset: number,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const along = plan.snapshots === undefined ? "" : `?snapshots=${plan.snapshots}`;
    const path = `/images/${plan.volumeId}/${plan.base ?? "full"}/${plan.top}${along}`;
    // Compressed answers have no ranges; the client here would ask for one by itself.
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (offset > 0) headers.range = `bytes=${offset}-`;
    const response = await requestFrom(this, path, { headers, signal });
    const body = throttled(
      watched(response.body ?? new Blob([]).stream(), this.name, signal),
      this.#throttle,
    );
    if (offset === 0 || response.status === 206) {
      const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (offset === 0 || Number(start) === offset) return body;
    }
    // Something between here and there ignores ranges: what is not wanted is dropped.
    return body.pipeThrough(dropping(offset));
  }

  /** Chosen blocks of a snapshot, for healing. @throws {VolcastError} `not-found` when it has not got that. */
  async blocks(
    volumeId: string,
    top: string,
    vbns: readonly number[],
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const path = `/images/${volumeId}/full/${top}?blocks=${listOfBlocks(vbns)}`;
    const headers = { "accept-encoding": "identity" };
    const response = await requestFrom(this, path, { headers, signal });
    return watched(response.body ?? new Blob([]).stream(), this.name, signal);
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
    yield { type: "connected" };
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
