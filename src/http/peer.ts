/**
 * A parent reached over HTTP.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { z } from "zod";
import { type ErrorKind, messageOf, VolcastError } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import type { Peer, PeerEvent, PeerPlan, SitePosition } from "../replication/mod.ts";
import { parseHistory } from "./history_header.ts";
import { PATIENCE_MS, watched } from "./patience.ts";
import { STATUS } from "./problem.ts";
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
  readonly #token: string | undefined;

  /** @param url Where the parent listens. */
  constructor(url: string, options: { token?: string } = {}) {
    this.name = url.replace(/\/+$/, "");
    this.#token = options.token;
  }

  async plan(
    request: { since?: string; site: string },
    signal?: AbortSignal,
  ): Promise<PeerPlan> {
    const query = new URLSearchParams(request);
    const response = await this.#fetch(`/replicate?${query}`, { method: "HEAD", signal });
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
      history: get(HEADERS.epoch),
    });
    if (!parsed.success) throw this.#notUnderstood(parsed.error);
    const { base, history, ...plan } = parsed.data;
    return {
      ...plan,
      ...(base === undefined ? {} : { base }),
      ...(history === undefined ? {} : { history }),
    };
  }

  /** Which volume the parent has, and the ids of what it can make increments from. */
  async snapshots(signal?: AbortSignal): Promise<{ volumeId: string; ids: Set<string> }> {
    const get = async <T>(path: string, schema: z.ZodType<T>): Promise<T> => {
      const parsed = schema.safeParse(await (await this.#fetch(path, { signal })).json());
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
    const path = `/images/${plan.volumeId}/${plan.base ?? "full"}/${plan.top}`;
    // Compressed answers have no ranges; the client here would ask for one by itself.
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (offset > 0) headers.range = `bytes=${offset}-`;
    const response = await this.#fetch(path, { headers, signal });
    const body = response.body ?? new Blob([]).stream();
    if (offset === 0 || response.status === 206) {
      const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (offset === 0 || Number(start) === offset) return watched(body, this.name, signal);
    }
    // Something between here and there ignores ranges: what is not wanted is dropped.
    return watched(body, this.name, signal).pipeThrough(dropping(offset));
  }

  async confirm(site: string, position: SitePosition, signal?: AbortSignal): Promise<void> {
    const response = await this.#fetch(`/sites/${encodeURIComponent(site)}`, {
      method: "PUT",
      body: JSON.stringify(position),
      headers: { "content-type": "application/json" },
      signal,
    });
    await response.body?.cancel();
  }

  async *events(signal: AbortSignal): AsyncGenerator<PeerEvent> {
    const response = await this.#fetch("/events", { signal });
    if (response.body === null) return;
    yield { type: "connected" };
    const lines = watched(response.body, this.name, signal)
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .pipeThrough(new TextLineStream() as TransformStream<string, string>);
    for await (const line of lines) {
      if (line.startsWith("event: ")) yield { type: line.slice("event: ".length).trim() };
    }
  }

  async #fetch(
    path: string,
    init: {
      method?: string;
      body?: string;
      headers?: Record<string, string>;
      signal?: AbortSignal | undefined;
    },
  ): Promise<Response> {
    const { signal, headers = {}, ...rest } = init;
    signal?.throwIfAborted();
    // A controller of its own: a signal made of others may be collected, and then never fires.
    const ending = new AbortController();
    const abort = () => ending.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    const timer = setTimeout(
      () => ending.abort(new Error(`no answer within ${PATIENCE_MS / 1000} s`)),
      PATIENCE_MS,
    );
    let response: Response;
    try {
      response = await fetch(this.name + path, {
        ...rest,
        headers: {
          ...headers,
          ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        },
        signal: ending.signal,
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new VolcastError(
        "io",
        `Cannot reach ${this.name}: ${causeOf(error)}`,
        "Check that it runs and that the URL is right",
        { cause: error },
      );
    } finally {
      clearTimeout(timer);
      // From here on whoever reads the body watches the signal.
      signal?.removeEventListener("abort", abort);
    }
    if (response.ok) return response;
    throw await errorOf(response, this.name);
  }
}

const PROBLEM = z.object({
  title: z.string(),
  kind: z.string().refine((kind) => kind in STATUS),
  hint: z.string().default(""),
});

/** The error that a refusal means. `name` is whose refusal it is. */
export async function errorOf(response: Response, name: string): Promise<VolcastError> {
  const text = await response.text();
  const header = (name: string) => response.headers.get(`volcast-problem${name}`) ?? "";
  const [title, hint] = ["-title", "-hint"].map((name) => decodeURIComponent(header(name)));
  const problem = PROBLEM.safeParse(
    text === "" ? { kind: header(""), title, hint } : parseJson(text),
  );
  if (problem.success) {
    const { title, hint } = problem.data;
    return new VolcastError(problem.data.kind as ErrorKind, `${title} (says ${name})`, hint);
  }
  const shown = text === "" ? "" : `, ${text.slice(0, 200).trim()}`;
  return new VolcastError(
    response.status === 404 ? "not-found" : "io",
    `Cannot use the answer of ${name}: status ${response.status}${shown}`,
    "Check that the URL is that of a volcast server",
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
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

function causeOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error ? cause.message : messageOf(error);
}
