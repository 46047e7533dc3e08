/**
 * Limits of a server: how much a request may ask, and how many may ask at once. What the runtime below
 * bounds already (a request's head: 64 KiB and 128 headers) or lets nobody bound (slow heads, idle
 * connections) stands in the README.
 *
 * Invariants:
 * 1. Every refusal is counted once, under the name of its limit.
 * 2. Whatever was begun is ended once: a request when its answer is complete or its client has gone, a
 *    transfer when its stream has ended in any way, or its reader stalled.
 *
 * @module
 */

import { RateLimit } from "./rate_limit.ts";
import { LIMIT_NAMES, type LimitName, Refusal, type RefusalOptions } from "./refusal.ts";
import { type Throttle, throttled } from "./throttle.ts";

/** Limits of a server. */
export interface Limits {
  /** Bytes of a request's address. Together with the headers the 64 KiB that the runtime takes. */
  readonly addressBytes: number;
  /** Bytes of a request's headers. */
  readonly headerBytes: number;
  /** Bytes of the body of an import or a publish; the volume's room bounds what is kept of it. */
  readonly bodyBytes: number;
  /** Longest time in which nothing comes of a body, ms. */
  readonly bodySilenceMs: number;
  /** Longest time that a JSON body takes, ms. */
  readonly jsonMs: number;
  /** Requests at once, those that listen for events included. */
  readonly requests: number;
  /** Requests a second of one client address. */
  readonly clientRate: number;
  /** Images that are sent at once. */
  readonly transfers: number;
  /** When a site that was refused may come again, s: between these, by chance. */
  readonly transferRetryS: readonly [least: number, most: number];
  /** Longest time in which a reader takes nothing, ms; then what it holds is let go. */
  readonly readerMs: number;
}

/** Limits that nobody notices who does not mean harm. */
export const DEFAULT_LIMITS: Limits = {
  addressBytes: 48 * 1024,
  headerBytes: 16 * 1024,
  bodyBytes: Infinity,
  bodySilenceMs: 30_000,
  jsonMs: 60_000,
  requests: 4096,
  clientRate: Infinity,
  transfers: 256,
  transferRetryS: [5, 20],
  readerMs: 600_000,
};

/** When to come again after too many requests, s. */
const REQUEST_RETRY_S = [2, 6] as const;
/** What is asked of a server to see how it does: answered even when it has all it can do. */
const HEALTH_PATHS: readonly string[] = ["/healthz", "/readyz", "/metrics"];

/** Counts what is under way and what was refused, and lets in what may come. */
export class Traffic {
  readonly limits: Limits;
  /** Shared by all images that are sent; `undefined` without a limit. */
  readonly throttle: Throttle | undefined;
  /** The same for files, where the limit is for them too. */
  readonly fileThrottle: Throttle | undefined;
  readonly #clients: RateLimit | undefined;
  readonly #refused = new Map<LimitName, number>(LIMIT_NAMES.map((name) => [name, 0]));
  #requests = 0;
  #transfers = 0;

  constructor(
    limits: Partial<Limits> = {},
    options: { throttle?: Throttle | undefined; throttleFiles?: boolean | undefined } = {},
  ) {
    this.limits = { ...DEFAULT_LIMITS, ...limits };
    this.throttle = options.throttle;
    this.fileThrottle = options.throttleFiles ? options.throttle : undefined;
    const { clientRate } = this.limits;
    this.#clients = clientRate === Infinity ? undefined : new RateLimit(clientRate);
  }

  /** Requests under way. */
  get requests(): number {
    return this.#requests;
  }

  /** Images that are being sent. */
  get transfers(): number {
    return this.#transfers;
  }

  /** How often each limit was met. */
  get refused(): ReadonlyMap<LimitName, number> {
    return this.#refused;
  }

  /** Counts a refusal. @returns It, to be thrown or answered. */
  refusal(message: string, options: RefusalOptions): Refusal {
    this.count(options.limit);
    return new Refusal(message, options);
  }

  /** Counts what a limit ended. */
  count(limit: LimitName): void {
    this.#refused.set(limit, this.#refused.get(limit)! + 1);
  }

  /**
   * Lets a request in. @param address Of the client. @returns Called when its answer has ended.
   * @throws {Refusal}
   */
  admit(request: Request, address: string): () => void {
    this.#checkHead(request);
    const waitS = this.#clients?.take(address) ?? 0;
    if (waitS > 0) {
      throw this.refusal(
        `Cannot answer: more than ${this.limits.clientRate} requests a second come from your address`,
        { limit: "rate", status: 429, kind: "busy", retryAfter: Math.ceil(waitS) },
      );
    }
    if (this.#requests >= this.limits.requests && !HEALTH_PATHS.includes(pathAsSent(request.url))) {
      throw this.refusal(
        `Cannot answer now: ${this.limits.requests} requests at once is the limit, and there are so many`,
        { limit: "requests", status: 503, kind: "busy", retryAfter: someTime(REQUEST_RETRY_S) },
      );
    }
    this.#requests++;
    return once(() => this.#requests--);
  }

  #checkHead(request: Request): void {
    const { addressBytes, headerBytes } = this.limits;
    const { url, headers } = request;
    if (url.length > addressBytes) {
      throw this.refusal(
        `Cannot use the address: it has ${url.length} bytes, the limit is ${addressBytes}`,
        { limit: "address", status: 414, kind: "usage" },
      );
    }
    let bytes = 0;
    for (const [name, value] of headers) bytes += name.length + value.length + 4;
    if (bytes > headerBytes) {
      throw this.refusal(
        `Cannot use the request's headers: they have ${bytes} bytes, the limit is ${headerBytes}`,
        { limit: "headers", status: 431, kind: "usage" },
      );
    }
    if (URL.canParse(url)) return;
    throw this.refusal("Cannot use the request: its Host is none", {
      limit: "headers",
      status: 400,
      kind: "usage",
    });
  }

  /** Begins to send an image. @returns Called when that has ended. @throws {Refusal} */
  beginTransfer(): () => void {
    if (this.#transfers >= this.limits.transfers) {
      throw this.refusal(
        `Cannot send the image now: ${this.limits.transfers} at once is the limit, and so many are being sent`,
        {
          limit: "transfers",
          status: 503,
          kind: "busy",
          hint: "Try again later, or ask another parent: it has the same bytes",
          retryAfter: someTime(this.limits.transferRetryS),
        },
      );
    }
    this.#transfers++;
    return once(() => this.#transfers--);
  }

  /** An answer with content of the volume, as fast as files may go. */
  paced(response: Response): Response {
    if (this.fileThrottle === undefined || response.body === null) return response;
    return new Response(throttled(response.body, this.fileThrottle), response);
  }
}

/** The path of a URL as it was sent. */
export function pathAsSent(url: string): string {
  const begin = url.indexOf("/", url.indexOf("//") + 2);
  return begin < 0 ? "/" : url.slice(begin).split(/[?#]/, 1)[0];
}

function someTime([least, most]: readonly [number, number]): number {
  return least + Math.floor(Math.random() * (most - least + 1));
}

function once(end: () => void): () => void {
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    end();
  };
}
