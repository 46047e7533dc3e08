/**
 * The network of the simulation: requests and answers between nodes take time, get lost, come twice and
 * late; bytes come in pieces, stop, break off, end early and change.
 *
 * The real client asks through {@linkcode SimNet.fetchFor}, and the real application of the node answers.
 *
 * @module
 */

import type { Random } from "../helpers/random.ts";
import type { ProcessClock, SimTime } from "./tree_time.ts";

/** A node as the network sees it. */
export interface Endpoint {
  readonly name: string;
  readonly clock: ProcessClock;
  readonly answer: (request: Request) => Response | Promise<Response>;
}

/** One in so many of what is carried goes wrong, by kind. */
export interface NetFaults {
  /** A request does not come. */
  readonly lostRequest: number;
  /** An answer does not come, after what was asked has been done. */
  readonly lostAnswer: number;
  /** A request that changes something comes again, later. */
  readonly duplicate: number;
  /** A body breaks off, ends early, stops for ever, or has a wrong bit. */
  readonly cut: number;
  readonly truncate: number;
  readonly stall: number;
  readonly flip: number;
}

/** A network on which nothing goes wrong. */
export const GOOD_NET: NetFaults = {
  lostRequest: Infinity,
  lostAnswer: Infinity,
  duplicate: Infinity,
  cut: Infinity,
  truncate: Infinity,
  stall: Infinity,
  flip: Infinity,
};

/** A network on which much goes wrong. */
export const BAD_NET: NetFaults = {
  lostRequest: 30,
  lostAnswer: 30,
  duplicate: 12,
  cut: 8,
  truncate: 16,
  stall: 24,
  flip: 16,
};

/** Who listens to what is carried. */
export interface NetWatcher {
  /** A request leaves a node. */
  readonly asks: (from: string, to: string, request: Request, body: Uint8Array | undefined) => void;
  /** A piece of an answer, as its node has made it. */
  readonly sends: (response: Response, offset: number, bytes: Uint8Array) => void;
}

/** Who reads files. What comes to it has no wrong bits: nothing in it would tell. */
export const READER = "reader";

type Fault = "cut" | "truncate" | "stall" | "flip";

/** See the module. */
export class SimNet {
  readonly #time: SimTime;
  readonly #random: Random;
  readonly #count: (what: string) => void;
  readonly #endpoints = new Map<string, Endpoint>();
  /** Directions in which nothing comes through, as `from>to`. */
  readonly #blocked = new Set<string>();
  readonly #watcher: NetWatcher;
  faults: NetFaults = GOOD_NET;

  constructor(
    time: SimTime,
    random: Random,
    options: { count: (what: string) => void; watcher: NetWatcher },
  ) {
    this.#time = time;
    this.#random = random;
    this.#count = options.count;
    this.#watcher = options.watcher;
  }

  /** A process begins to listen. */
  listen(endpoint: Endpoint): void {
    this.#endpoints.set(endpoint.name, endpoint);
  }

  /** Nothing comes through in one direction from now on, until {@linkcode heal}. */
  block(from: string, to: string): void {
    this.#blocked.add(`${from}>${to}`);
  }

  /** Everything comes through again. */
  heal(): void {
    this.#blocked.clear();
  }

  isBlocked(from: string, to: string): boolean {
    return this.#blocked.has(`${from}>${to}`);
  }

  /** What a process asks others with. */
  fetchFor(name: string, clock: ProcessClock): typeof fetch {
    return (input, init = {}) => {
      const { signal, ...rest } = init;
      return new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
        this.#carry({ name, clock }, String(input), rest).then(
          (response) => clock.isDead ? undefined : resolve(response),
          (error) => clock.isDead ? undefined : reject(error),
        );
      });
    };
  }

  async #carry(
    from: { name: string; clock: ProcessClock },
    url: string,
    init: RequestInit,
  ): Promise<Response> {
    const to = new URL(url).hostname;
    const body = init.body === undefined || init.body === null ? undefined : bytesOf(init.body);
    const make = (bytes = body) =>
      new Request(url, bytes === undefined ? init : { ...init, body: bytes });
    this.#watcher.asks(from.name, to, make(), body);
    await this.#latency();
    if (this.#isUnlucky("lostRequest") || this.isBlocked(from.name, to)) {
      this.#count(this.isBlocked(from.name, to) ? "blocked requests" : "lost requests");
      return await this.#silence();
    }
    const target = this.#endpoints.get(to);
    if (target === undefined || target.clock.isDead) throw refused(to);
    if (init.method === "PUT" && this.#isUnlucky("duplicate")) {
      this.#count(url.endsWith("/plane") ? "duplicated planes" : "duplicated confirmations");
      const request = make();
      // Soon, or when nobody thinks of it any more.
      this.#time.timer(this.#random.below(this.#random.oneIn(2) ? 200 : 600_000), () => {
        const now = this.#endpoints.get(to);
        if (now === undefined || now.clock.isDead || this.faults === GOOD_NET) return;
        Promise.resolve(now.answer(request)).then((answer) => answer.body?.cancel(), () => {});
      });
    }
    let sent = body;
    if (body !== undefined && this.#isUnlucky("flip")) {
      this.#count("corrupted requests");
      sent = body.slice();
      flip(sent, this.#random);
    }
    const response = await target.answer(make(sent));
    if (target.clock.isDead) throw reset(to);
    await this.#latency();
    if (this.#isUnlucky("lostAnswer") || this.isBlocked(to, from.name)) {
      await response.body?.cancel();
      this.#count(init.method === "PUT" ? "lost confirmations" : "lost answers");
      return await this.#silence();
    }
    if (target.clock.isDead) throw reset(to);
    if (response.body === null) return response;
    const { status, headers } = response;
    return new Response(this.#link(response, { from, target }), { status, headers });
  }

  /** A body on its way. */
  #link(
    response: Response,
    { from, target }: { from: { name: string; clock: ProcessClock }; target: Endpoint },
  ): ReadableStream<Uint8Array> {
    const reader = response.body!.getReader();
    const length = Number(response.headers.get("content-length") ?? 2000);
    const fault = this.#faultOf(from.name);
    const faultAt = fault === undefined ? Infinity : this.#random.below(Math.max(1, length));
    const pieceBytes = this.#random.pick([500, 4096, 40_000, 200_000]);
    let rest: Uint8Array = new Uint8Array(0);
    let position = 0;
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      reader.cancel().catch(() => {});
    };
    // Whoever serves one that lost power is told of it after a while.
    const look = () => {
      if (isOver) return;
      if (from.clock.isDead) end();
      else this.#time.timer(60_000, look);
    };
    look();
    return new ReadableStream<Uint8Array>({
      pull: async (controller): Promise<void> => {
        try {
          if (rest.length === 0) {
            const { value, done } = await reader.read();
            if (target.clock.isDead) throw reset(target.name);
            if (done) {
              isOver = true;
              return controller.close();
            }
            this.#watcher.sends(response, position, value);
            rest = value;
          }
          let piece = rest.subarray(0, pieceBytes);
          await this.#latency();
          if (isOver) return;
          if (target.clock.isDead) throw reset(target.name);
          if (this.isBlocked(target.name, from.name)) this.#count("stalls by partition");
          // What was sent comes when the way is free again, if anybody waits for it still.
          while (this.isBlocked(target.name, from.name)) {
            await this.#time.pause(1000);
            if (isOver) return;
            if (target.clock.isDead) throw reset(target.name);
          }
          rest = rest.subarray(piece.length);
          const isHere = fault !== undefined && position + piece.length > faultAt &&
            position <= faultAt;
          if (isHere) {
            const before = faultAt - position;
            this.#count(NAMES[fault]);
            if (fault === "flip") {
              piece = piece.slice();
              piece[before] ^= 1 << this.#random.below(8);
            } else {
              if (before > 0) controller.enqueue(piece.slice(0, before));
              position += before;
              if (fault === "stall") return await new Promise<void>(() => {});
              end();
              if (fault === "truncate") return controller.close();
              throw reset(target.name);
            }
          }
          position += piece.length;
          controller.enqueue(piece.slice());
        } catch (error) {
          end();
          controller.error(error);
        }
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  #faultOf(name: string): Fault | undefined {
    const kinds = [
      "cut",
      "truncate",
      "stall",
      ...(name === READER ? [] : ["flip"] as const),
    ] as const;
    return kinds.find((kind) => this.#isUnlucky(kind));
  }

  #isUnlucky(kind: keyof NetFaults): boolean {
    const times = this.faults[kind];
    return times !== Infinity && this.#random.oneIn(times);
  }

  #latency(): Promise<void> {
    const { faults } = this;
    const isSlow = faults !== GOOD_NET && this.#random.oneIn(15);
    if (isSlow) this.#count("delays");
    return this.#time.pause(isSlow ? this.#random.below(20_000) : 1 + this.#random.below(40));
  }

  /** Nothing comes: an error after a while, or never. */
  async #silence(): Promise<never> {
    if (this.#random.oneIn(2)) return await new Promise<never>(() => {});
    await this.#time.pause(this.#random.below(5000));
    throw new TypeError("error sending request", { cause: new Error("connection reset by peer") });
  }
}

const NAMES = {
  cut: "cut bodies",
  truncate: "truncated bodies",
  stall: "stalled bodies",
  flip: "corrupted bodies",
} as const;

function flip(bytes: Uint8Array, random: Random): void {
  if (bytes.length > 0) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
}

function bytesOf(body: BodyInit): Uint8Array<ArrayBuffer> {
  if (typeof body === "string") return new TextEncoder().encode(body);
  if (body instanceof Uint8Array) return body.slice() as Uint8Array<ArrayBuffer>;
  throw new Error("the simulation carries strings and bytes");
}

function refused(name: string): TypeError {
  return new TypeError(`error sending request for ${name}`, {
    cause: new Error("tcp connect error: Connection refused"),
  });
}

function reset(name: string): TypeError {
  return new TypeError(`error reading a body from ${name}`, {
    cause: new Error("connection reset by peer"),
  });
}
