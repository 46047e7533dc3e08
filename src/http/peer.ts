/**
 * A parent reached over HTTP.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { TextLineStream } from "@std/streams/text-line-stream";
import { z } from "zod";
import { messageOf, UnansweredError, VolcastError } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import { type Image, listOfBlocks } from "../image/mod.ts";
import {
  type Peer,
  type PeerEvent,
  type PeerPlan,
  type PeerRequest,
  type SitePosition,
  SLOW_BYTES_PER_MS,
} from "../replication/mod.ts";
import {
  AskedServer,
  bodyOf,
  FRESH,
  fresh,
  requestFrom,
  requestJson,
  understood,
} from "./client.ts";
import type { ServerOptionsOfClient } from "./credentials.ts";
import { parseHistory } from "./history_header.ts";
import { encodedEtag } from "./image_response.ts";
import { unzstd } from "./recoded.ts";
import { HEADERS } from "./state_headers.ts";
import { type Throttle, throttled } from "./throttle.ts";

const IMAGE_TYPE = "application/vnd.volcast.image";

/** What a header says that is encoded as in URLs; as it is where it is no such encoding. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const id = z.string().regex(SNAPSHOT_ID_PATTERN);
const count = z.coerce.number().int().nonnegative();
const PLAN_HEADERS = z.object({
  volumeId: z.string().regex(/^[0-9a-f]{32}$/),
  capacity: count,
  top: id,
  topName: z.string().transform(decoded),
  base: z.string().refine((text) => text.split("~").every((part) => SNAPSHOT_ID_PATTERN.test(part)))
    .optional(),
  snapshots: z.string().regex(/^[0-9.,]+$/).optional(),
  byteCount: count,
  blockCount: count,
  image: z.string().optional(),
  etag: z.string().optional(),
  chain: z.string().transform((text) => text.split(",").map(decoded)),
  wantsPlane: id.optional(),
  moved: z.string().regex(/^\d{1,15}\.\d{1,15}$/).transform((text) => {
    const [epoch, cp] = text.split(".").map(Number);
    return { epoch, cp };
  }).optional(),
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

/** How a parent is asked. */
export interface HttpPeerOptions extends ServerOptionsOfClient {
  /** How fast images come from there. */
  readonly throttle?: Throttle | undefined;
  /** Whether images come compressed by zstd: for lines that are slower than a processor. */
  readonly compress?: boolean | undefined;
}

/** See the module. */
export class HttpPeer extends AskedServer implements Peer {
  readonly #throttle: Throttle | undefined;
  readonly #compress: boolean;

  /** @param url Where the parent listens. */
  constructor(url: string, options: HttpPeerOptions = {}) {
    super(url, options);
    this.#throttle = options.throttle;
    this.#compress = options.compress ?? false;
  }

  async plan(request: PeerRequest, signal?: AbortSignal): Promise<PeerPlan> {
    const query = new URLSearchParams({ ...request });
    const { headers } = await requestFrom(this, `/replicate?${query}`, {
      method: "HEAD",
      headers: FRESH,
      once: true,
      signal,
    });
    const get = (name: string) => headers.get(name) ?? undefined;
    const headersOfPlan = {
      volumeId: get(HEADERS.volume),
      capacity: get(HEADERS.capacity),
      top: get(HEADERS.top),
      topName: get(HEADERS.topName),
      base: get(HEADERS.base),
      snapshots: get(HEADERS.snapshots),
      byteCount: get("content-length"),
      blockCount: get(HEADERS.blocks),
      image: get(HEADERS.image),
      etag: get("etag"),
      chain: get(HEADERS.chain),
      wantsPlane: get(HEADERS.wantsPlane),
      moved: get(HEADERS.moved),
      seal: get(HEADERS.seal),
      history: get(HEADERS.epoch),
    };
    const told = understood(PLAN_HEADERS, headersOfPlan, this.name);
    const { base, history, moved, snapshots, wantsPlane, seal, image, etag, ...plan } = told;
    this.#checkAnswers(request, { base, image });
    return {
      ...plan,
      ...(base === undefined ? {} : { base }),
      ...(etag === undefined ? {} : { etag }),
      ...(history === undefined ? {} : { history }),
      ...(moved === undefined ? {} : { moved }),
      ...(snapshots === undefined ? {} : { snapshots }),
      ...(wantsPlane === undefined ? {} : { wantsPlane }),
      ...(seal === undefined ? {} : { seal }),
    };
  }

  /**
   * A full image in the place of an increment is what the parent says in so many words, not what is left of
   * an answer on its way: of an old one, or of one that lost a header.
   */
  #checkAnswers({ since }: PeerRequest, { base, image }: { base?: string; image?: string }): void {
    if (since === undefined) return;
    const isIncrement = base?.split("~")[0] === since;
    const isFull = base === undefined && image?.startsWith("full; because=") === true;
    if (isIncrement || isFull) return;
    throw this.#unanswered(
      `it was asked what came since ${since} and answers with ` +
        `${base === undefined ? "a full image without saying why" : `what came since ${base}`}`,
    );
  }

  #unanswered(reason: string): UnansweredError {
    return new UnansweredError(
      `Cannot use the answer of ${this.name}: ${reason}`,
      "A proxy may give old or changed answers: see that it keeps what volcast says of caching",
      { isPassing: true },
    );
  }

  async bringPlane(site: string, image: Image, signal?: AbortSignal): Promise<void> {
    const body = await new Response(image.stream()).bytes() as Uint8Array<ArrayBuffer>;
    const response = await requestFrom(this, `/sites/${encodeURIComponent(site)}/plane`, {
      method: "PUT",
      body,
      // A slow line takes its time for it, and no full image is taken since that was not waited for.
      answerMs: this.patience.answerMs + body.length / SLOW_BYTES_PER_MS,
      headers: { "content-type": IMAGE_TYPE },
      once: true,
      signal,
    });
    await response.body?.cancel();
  }

  /** Which volume the parent has, and the ids of what it can make increments from. */
  async snapshots(signal?: AbortSignal): Promise<{ volumeId: string; ids: Set<string> }> {
    const { snapshots, shadows } = await requestJson(this, `/snapshots?${fresh()}`, SNAPSHOTS, {
      signal,
    });
    const { volume } = await requestJson(this, "/status", STATUS_OF_VOLUME, { signal });
    return { volumeId: volume.id, ids: new Set([...snapshots, ...shadows].map((one) => one.id)) };
  }

  async open(
    plan: PeerPlan,
    offset: number,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const query = new URLSearchParams({
      ...(plan.snapshots === undefined ? {} : { snapshots: plan.snapshots }),
      ...(this.#compress ? { from: String(offset) } : {}),
    });
    const name = `/images/${plan.volumeId}/${plan.base ?? "full"}/${plan.top}`;
    const path = query.size === 0 ? name : `${name}?${query}`;
    const response = await requestFrom(this, path, {
      ...(this.#compress || offset === 0 ? {} : { headers: rangeFrom(offset, plan) }),
      encoding: this.#compress ? "zstd" : undefined,
      once: true,
      signal,
    });
    try {
      this.#checkType(response);
      if (response.headers.get("content-encoding") === "zstd") {
        return this.#unpacked(response, { plan, offset, signal });
      }
      if (this.#compress && offset > 0) {
        throw this.#unanswered("somebody between unpacked it, and it may begin anywhere");
      }
      const start = this.#startOf(response, plan);
      if (start > offset) throw this.#unanswered(`its bytes begin at ${start}, not at ${offset}`);
      const body = throttled(
        bodyOf(response, this.name, { signal, patience: this.patience }),
        this.#throttle,
      );
      // Something between here and there ignores ranges: what is not wanted is dropped.
      return start === offset ? body : body.pipeThrough(dropping(offset - start));
    } catch (error) {
      await response.body?.cancel();
      throw error;
    }
  }

  #checkType({ headers }: Response): void {
    const type = headers.get("content-type");
    if (type !== IMAGE_TYPE) throw this.#unanswered(`it gives ${type ?? "nothing"}, not an image`);
  }

  /** A planned image from a byte on, of an answer that is compressed. @throws {UnansweredError} If it is of another. */
  #unpacked(
    response: Response,
    { plan: { etag }, offset, signal }: {
      plan: PeerPlan;
      offset: number;
      signal: AbortSignal | undefined;
    },
  ): ReadableStream<Uint8Array> {
    const wanted = etag === undefined ? undefined : encodedEtag(etag, "zstd", offset);
    const theirs = tagOf(response);
    if (wanted !== undefined && theirs !== undefined && theirs !== wanted) {
      throw this.#unanswered(`it gives the image ${theirs}, not ${wanted} as planned`);
    }
    const body = bodyOf(response, this.name, { signal, patience: this.patience });
    return unzstd(throttled(body, this.#throttle));
  }

  /** The byte of a planned image with which an answer begins. @throws {UnansweredError} If it is of another. */
  #startOf(response: Response, { etag, byteCount }: PeerPlan): number {
    const { status, headers } = response;
    const theirs = tagOf(response);
    if (etag !== undefined && theirs !== undefined && theirs !== etag) {
      throw this.#unanswered(`it gives the image ${theirs}, not ${etag} as planned`);
    }
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "");
    if (status === 206 && range === null) {
      throw this.#unanswered("it does not say which part it gives");
    }
    const [, start, total] = range ?? ["", "0", headers.get("content-length") ?? byteCount];
    if (Number(total) !== byteCount) {
      throw this.#unanswered(`it gives an image of ${total} bytes, not of ${byteCount} as planned`);
    }
    return Number(start);
  }

  /** Chosen blocks of a snapshot, for healing. @throws {VolcastError} `not-found` when it has not got that. */
  async blocks(
    volumeId: string,
    top: string,
    vbns: readonly number[],
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const path = `/images/${volumeId}/full/${top}?blocks=${listOfBlocks(vbns)}`;
    const response = await requestFrom(this, path, { signal });
    return bodyOf(response, this.name, { signal, patience: this.patience });
  }

  async confirm(site: string, position: SitePosition, signal?: AbortSignal): Promise<void> {
    const response = await requestFrom(this, `/sites/${encodeURIComponent(site)}`, {
      method: "PUT",
      body: JSON.stringify(position),
      headers: { "content-type": "application/json" },
      once: true,
      signal,
    });
    await response.body?.cancel();
  }

  async *events(signal: AbortSignal): AsyncGenerator<PeerEvent> {
    const response = await requestFrom(this, "/events", { once: true, signal });
    const type = response.headers.get("content-type");
    if (!type?.startsWith("text/event-stream")) {
      await response.body?.cancel();
      throw this.#unanswered(`it gives ${type ?? "nothing"} for events`);
    }
    yield { type: "connected" };
    const lines = bodyOf(response, this.name, { signal, patience: this.patience })
      .pipeThrough(shortLines())
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .pipeThrough(new TextLineStream() as TransformStream<string, string>);
    try {
      for await (const line of lines) {
        if (line.startsWith("event: ")) yield { type: line.slice("event: ".length).trim() };
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof VolcastError) throw error;
      throw new VolcastError("io", `Cannot hear ${this.name} any more: ${messageOf(error)}`, "", {
        cause: error,
      });
    }
  }
}

/** Headers for a planned image from a byte on, as it is. */
function rangeFrom(offset: number, { etag }: PeerPlan): Record<string, string> {
  return { range: `bytes=${offset}-`, ...(etag === undefined ? {} : { "if-range": etag }) };
}

/** The entity tag of an answer, strong again where a proxy made it weak. */
function tagOf({ headers }: Response): string | undefined {
  return headers.get("etag")?.replace(/^W\//, "");
}

/** Longest line of an event, bytes. */
const MAX_LINE_BYTES = 64 * 1024;

/** Fails when a line does not end: whoever splits it keeps all of it in memory. */
function shortLines(): TransformStream<Uint8Array, Uint8Array> {
  let length = 0;
  return new TransformStream({
    transform(chunk, controller): void {
      const last = chunk.lastIndexOf(10);
      length = last < 0 ? length + chunk.length : chunk.length - last - 1;
      if (length > MAX_LINE_BYTES) {
        throw new VolcastError(
          "io",
          `Cannot read events: a line has more than ${MAX_LINE_BYTES} bytes`,
          "Check that the URL is that of a volcast server",
        );
      }
      controller.enqueue(chunk);
    },
  });
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
