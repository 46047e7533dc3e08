/**
 * A standby reached over HTTP. An image goes in parts, each a request of its own with a range of bytes:
 * a cut costs a part, the standby says where to go on, and no request takes so long that a proxy or a
 * silent line could keep it for ever.
 *
 * @module
 */

import { z } from "zod";
import { isPassing, UnansweredError, VolcastError, waitMsOf } from "../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../format/mod.ts";
import { framesOffset, type Image } from "../image/mod.ts";
import type { Standby, StandbyPosition, TakeOptions } from "../replication/mod.ts";
import { AskedServer, ERROR_KIND, fresh, requestJson } from "./client.ts";
import type { ServerOptionsOfClient } from "./credentials.ts";
import { canonicalPath } from "./image_response.ts";
import { HEADERS } from "./state_headers.ts";
import type { Throttle } from "./throttle.ts";

/** Bytes of a part: the first, the least after slow ones, and the most. */
const PART_BYTES = { first: 2 ** 20, least: 2 ** 17, most: 2 ** 24 } as const;
/** A part that takes less time (ms) is followed by a larger one, one that takes more by a smaller one. */
const PART_MS = { quick: 500, slow: 5_000 } as const;
/** Longest wait for the answer to a part, ms. */
const PART_ANSWER_MS = 60_000;
/** Time between two questions how far the standby is, ms. */
const POLL_MS = 250;
/** Longest time that a standby may look at an image without saying anything new: this, and its bytes' time. */
const WORK_MS = 600_000;
const WORK_BYTES_PER_MS = 10_000;
/** Parts in a row that bring nothing before the transfer is given up. */
const MAX_STALLED = 3;

const id = z.string().regex(SNAPSHOT_ID_PATTERN);
const count = z.number().int().nonnegative();
const POSITION = z.object({
  node: z.string().max(255),
  role: z.enum(["origin", "replica"]),
  volumeId: z.string().regex(/^[0-9a-f]{32}$/).optional(),
  current: z.object({ id, name: z.string(), cp: count }).optional(),
  epoch: count.optional(),
  coming: z.object({
    top: id,
    base: id.optional(),
    state: z.enum(["wants", "works", "kept"]),
    offset: count.optional(),
  }).optional(),
  failed: z.object({ top: id, kind: ERROR_KIND, message: z.string() }).optional(),
});

const OUTCOME = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("applied") }),
  z.object({ kind: z.literal("current") }),
  z.object({ kind: z.literal("more"), offset: count }),
  z.object({ kind: z.literal("working") }),
]);
type Outcome = z.output<typeof OUTCOME>;

/** See the module. */
export class HttpStandby extends AskedServer implements Standby {
  /** Bytes of the next part. Kept from one transfer to the next: the line is the same. */
  #partBytes: number = PART_BYTES.first;
  readonly #throttle: Throttle | undefined;

  /**
   * @param url Where the standby listens.
   * @param options.throttle How fast images go there.
   */
  constructor(
    url: string,
    options: ServerOptionsOfClient & { throttle?: Throttle | undefined } = {},
  ) {
    super(url, options);
    this.#throttle = options.throttle;
  }

  async position(signal?: AbortSignal): Promise<StandbyPosition> {
    try {
      return await requestJson(this, `/standby?${fresh()}`, POSITION, { signal });
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind !== "not-found") throw error;
      throw new VolcastError(
        "not-found",
        `Cannot mirror to ${this.name}: it is no standby`,
        "Start it with: volcast serve VOLUME --standby --site NAME",
      );
    }
  }

  async take(image: Image, options: TakeOptions): Promise<void> {
    let sent = 0;
    for (let failures = 0;;) {
      try {
        const offset = await this.#begin(image, options.signal);
        if (offset !== undefined) await this.#sendFrom(offset, image, options, (at) => sent = at);
        options.progress?.(image.byteCount, image.byteCount);
        return;
      } catch (error) {
        options.signal?.throwIfAborted();
        // A line that breaks now and then brings a large image nevertheless.
        failures = sent > 0 ? 1 : failures + 1;
        sent = 0;
        const isTransient = isPassing(error) ||
          error instanceof VolcastError && error.kind === "io" &&
            !(error instanceof UnansweredError);
        if (!isTransient || failures >= this.patience.attempts) throw error;
        await this.patience.pause(waitMsOf(this.patience, failures, error), options.signal);
      }
    }
  }

  /** Sends part after part until the standby wants no more. */
  async #sendFrom(
    first: number,
    image: Image,
    options: TakeOptions,
    sent: (offset: number) => void,
  ): Promise<void> {
    let stalled = 0;
    for (let offset: number | undefined = first; offset !== undefined;) {
      options.progress?.(offset, image.byteCount);
      const outcome: Outcome = await this.#send(image, offset, options);
      const next: number | undefined = outcome.kind === "more"
        ? outcome.offset
        : outcome.kind === "working"
        ? await this.#result(image, options)
        : undefined;
      stalled = next === undefined || next > offset ? 0 : stalled + 1;
      if (stalled >= MAX_STALLED) {
        throw new VolcastError(
          "io",
          `Cannot send the image to ${this.name}: it asks for byte ${next} again and again`,
          "Look at its log",
        );
      }
      if (stalled === 0) sent(next ?? image.byteCount);
      offset = next;
    }
  }

  /** The byte to begin with; `undefined` when nothing is to be sent any more. */
  async #begin(image: Image, signal?: AbortSignal): Promise<number | undefined> {
    const { current, coming } = await this.position(signal);
    if (current?.id === image.top.id) return undefined;
    const isThis = coming?.top === image.top.id && coming.base === image.base?.id;
    return isThis && coming.state === "wants" ? coming.offset : 0;
  }

  async #send(image: Image, offset: number, options: TakeOptions): Promise<Outcome> {
    const front = framesOffset(image.header);
    const whole = image.byteCount <= PART_BYTES.first;
    // What is kept there of the frames is told only after the front, so that is sent alone.
    const end = offset < front && !whole ? front : image.byteCount;
    const rate = this.#throttle?.bytesPerSecond ?? Infinity;
    // A part goes at once: none is more than a second of what may go.
    const partBytes = Math.min(this.#partBytes, Math.max(PART_BYTES.least, Math.floor(rate)));
    const to = Math.min(end, offset + partBytes);
    await this.#throttle?.take(to - offset, options.signal);
    const part = await new Response(image.stream({ from: offset, to })).bytes();
    const begin = performance.now();
    try {
      const outcome = await requestJson(this, canonicalPath(image), OUTCOME, {
        method: "PUT",
        body: part as Uint8Array<ArrayBuffer>,
        headers: {
          "content-type": "application/vnd.volcast.image",
          "content-range": `bytes ${offset}-${to - 1}/${image.byteCount}`,
          [HEADERS.imageEpoch]: String(options.epoch),
        },
        signal: options.signal,
        answerMs: PART_ANSWER_MS,
        once: true,
      });
      this.#adapt(performance.now() - begin, part.length);
      return outcome;
    } catch (error) {
      options.signal?.throwIfAborted();
      this.#adapt(Infinity, part.length);
      throw error;
    }
  }

  #adapt(ms: number, byteCount: number): void {
    if (ms > PART_MS.slow) this.#partBytes = Math.max(PART_BYTES.least, this.#partBytes / 2);
    else if (ms < PART_MS.quick && byteCount >= this.#partBytes) {
      this.#partBytes = Math.min(PART_BYTES.most, this.#partBytes * 2);
    }
  }

  /** Asks until the standby is through with what it has. @returns Where to go on; `undefined`: applied. */
  async #result(image: Image, options: TakeOptions): Promise<number | undefined> {
    const { signal, progress } = options;
    const limitMs = WORK_MS + image.byteCount / WORK_BYTES_PER_MS;
    const begin = performance.now();
    for (;;) {
      await this.patience.pause(POLL_MS, signal);
      signal?.throwIfAborted();
      const { current, coming, failed } = await this.position(signal);
      if (current?.id === image.top.id) return undefined;
      if (failed?.top === image.top.id) {
        throw new VolcastError(failed.kind, `${failed.message} (says ${this.name})`);
      }
      if (coming?.top !== image.top.id) {
        throw new VolcastError("io", `Cannot send the image to ${this.name}: it has begun anew`);
      }
      if (coming.state === "wants") return coming.offset;
      if (performance.now() - begin > limitMs) {
        throw new VolcastError(
          "io",
          `Cannot send the image to ${this.name}: it has looked at it for ${
            Math.round(limitMs / 1000)
          } s`,
          "Look at its log",
        );
      }
      progress?.(image.byteCount, image.byteCount);
    }
  }
}
