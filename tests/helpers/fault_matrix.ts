/**
 * Operations of a client against faults of a line: each fault at an operation's first, a middle and its last
 * request, once or for as long as the operation lasts.
 *
 * By default each fault is met once, at a place that the seed (VOLCAST_SEED) chooses; with
 * VOLCAST_FAULTS=all at every place.
 *
 * @module
 */

import { assert, messageOf, VolcastError } from "../../src/core/mod.ts";
import { type Fault, FAULTS, FaultyProxy } from "./faulty_proxy.ts";
import { TestPatience } from "./patience.ts";
import { Random } from "./random.ts";
import { until } from "./until.ts";

/** Most requests that an operation may send, whatever happens: nothing goes on for ever. */
const MOST_REQUESTS = 80;
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const IS_ALL = Deno.env.get("VOLCAST_FAULTS") === "all";

/** How an operation ended. */
export interface Outcome {
  readonly result?: unknown;
  readonly error?: VolcastError;
}

/** Something a client does, again and again. */
export interface Operation {
  readonly name: string;
  /** Faults that can do nothing here. */
  readonly without?: readonly Fault[];
  /** Faults, and numbers of the requests that they are met at, which are never left out. */
  readonly always?: readonly (readonly [Fault, number])[];
  /** Makes something to be done. */
  prepare?(): Promise<void>;
  run(): Promise<unknown>;
  /** Looks at what there is after a run; `fault` is absent where nothing went wrong. */
  check(outcome: Outcome, fault: Fault | undefined): void | Promise<void>;
}

/** A client's line to a server. */
export class Line implements AsyncDisposable {
  readonly proxy: FaultyProxy;
  readonly patience = new TestPatience({ seed: SEED });
  readonly directory = Deno.makeTempDirSync({ prefix: "volcast-faults-" });

  /** @param upstream URL of the server. */
  constructor(upstream: string) {
    this.proxy = new FaultyProxy(upstream);
    this.patience.watch(this.proxy);
  }

  /** Runs an operation through all faults. */
  async throughAll(operation: Operation): Promise<void> {
    await operation.prepare?.();
    await this.#runWell(operation);
    const count = this.proxy.seen.length;
    const places = [...new Set([0, Math.floor(count / 2), count - 1])];
    const cases = FAULTS.filter((fault) => !operation.without?.includes(fault)).flatMap((fault) =>
      places.flatMap((at) => [{ fault, at, isOnce: true }, { fault, at, isOnce: false }])
    );
    for (const [fault, at] of operation.always ?? []) {
      for (const isOnce of [true, false]) await this.#meet(operation, { fault, at, isOnce });
    }
    const random = new Random(SEED);
    for (const group of Map.groupBy(cases, ({ fault }) => fault).values()) {
      const chosen = IS_ALL ? group : [group[random.below(group.length)]];
      for (const one of chosen) await this.#meet(operation, one);
    }
  }

  /** The fault, then the same without it. */
  async #meet(
    operation: Operation,
    { fault, at, isOnce }: { fault: Fault; at: number; isOnce: boolean },
  ): Promise<void> {
    try {
      await operation.prepare?.();
      this.proxy.begin((index) => index === at || (index > at && !isOnce) ? fault : undefined);
      await operation.check(await outcomeOf(operation), fault);
      assert(this.proxy.seen.length <= MOST_REQUESTS, `${this.proxy.seen.length} requests`);
      await this.#runWell(operation);
    } catch (error) {
      const requests = this.proxy.seen.map((seen) =>
        `${seen.method} ${seen.path} ${seen.range ?? ""} ${seen.fault ?? ""}`
      );
      throw new Error(
        `${operation.name}: '${fault}' ${isOnce ? "at" : "from"} request ${at}` +
          `${isOnce ? "" : " on"}, VOLCAST_SEED=${SEED}: ${messageOf(error)}\n${
            requests.join("\n")
          }`,
        { cause: error },
      );
    }
  }

  async #runWell(operation: Operation): Promise<void> {
    // The proxy has seen that whoever waited in vain went: time stands still again.
    await until("nobody waits", () => !this.patience.isStalled);
    this.proxy.begin();
    await operation.check({ result: await operation.run() }, undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/** What an operation did; an error has to be one for users. */
async function outcomeOf(operation: Operation): Promise<Outcome> {
  try {
    return { result: await operation.run() };
  } catch (error) {
    if (!(error instanceof VolcastError)) throw error;
    assert(/^(http\S+: )?Cannot /.test(error.message), error.message);
    return { error };
  }
}
