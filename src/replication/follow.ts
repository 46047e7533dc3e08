/**
 * Following parents: a pull at the start, every so often, and as soon as a parent announces a master.
 *
 * @module
 */

import {
  messageOf,
  PATIENCE,
  type Patience,
  pause,
  shortList,
  VolcastError,
  waitMsOf,
} from "../core/mod.ts";
import type { Flushed } from "../volume/mod.ts";
import { patienceBetween } from "./mirror_loop.ts";
import type { Node } from "./node.ts";
import type { Peer } from "./peer.ts";
import type { Puller, PullResult } from "./pull.ts";

/** Settings of {@linkcode follow}. */
export interface FollowOptions {
  /** Time between two pulls, ms; a tenth is added or taken by chance. */
  readonly everyMs: number;
  readonly parents: readonly Peer[];
  /** Told of each pull that did something or failed. */
  readonly log: (text: string) => void;
}

/** Pauses before a parent is listened to again. */
const LISTENING: Patience = { ...PATIENCE, firstMs: 2_000, limitMs: 60_000 };
/** A connection that lasted this long is no failure when it ends, ms. */
const LASTED_MS = 10_000;

/** Runs until `signal` fires or the node is promoted; failures are told and tried again. */
export async function follow(
  node: Node,
  puller: Puller,
  options: FollowOptions,
  signal: AbortSignal,
): Promise<void> {
  let wake = () => {};
  let announced = false;
  const ending = new AbortController();
  const end = () => {
    ending.abort();
    wake();
  };
  signal.addEventListener("abort", end);
  if (signal.aborted) end();
  const unsubscribe = node.events.subscribe((event) => {
    if (event.type === "flush") options.log(describeFlush(event));
    if (event.type !== "role") return;
    options.log(`Promoted: this node is the origin of epoch ${event.epoch}, and follows nobody`);
    end();
  });
  const listener = listen(node, options, ending.signal, () => {
    announced = true;
    wake();
  });
  const { clock } = node;
  const failed: Failed = { count: 0 };
  while (!ending.signal.aborted) {
    announced = false;
    await pullOnce(node, puller, { ...options, failed }, ending.signal);
    if (announced) continue;
    const { everyMs } = options;
    const waitMs = failed.count === 0 ? everyMs * (0.9 + clock.chance() / 5) : waitMsOf(
      { ...patienceBetween(everyMs), random: () => clock.chance() },
      failed.count,
      failed.last,
    );
    await new Promise<void>((resolve) => {
      const forget = clock.timer(waitMs, resolve);
      wake = () => {
        forget();
        resolve();
      };
      if (ending.signal.aborted) wake();
    });
  }
  await listener;
  unsubscribe();
  signal.removeEventListener("abort", end);
}

/** Pulls that failed in a row. */
interface Failed {
  count: number;
  last?: unknown;
  /** What was said of it: the same is not said again. */
  told?: string;
}

async function pullOnce(
  node: Node,
  puller: Puller,
  { failed, log }: FollowOptions & { failed: Failed },
  signal: AbortSignal,
): Promise<void> {
  try {
    const result = await puller.pull(signal);
    failed.count = 0;
    delete failed.told;
    if (result.unconfirmed !== node.unconfirmed && result.unconfirmed !== undefined) {
      log(`The parent does not know where this node stands: ${result.unconfirmed}`);
    }
    node.unconfirmed = result.unconfirmed;
    if (result.kind === "current") return;
    log(describe(result));
    node.events.emit({ type: "pull", result: result.kind, message: describe(result) });
  } catch (error) {
    if (signal.aborted) return;
    failed.count++;
    failed.last = error;
    const hint = error instanceof VolcastError && error.hint !== "" ? `. ${error.hint}` : "";
    const text = `${messageOf(error)}${hint}`;
    if (text !== failed.told) log(text);
    failed.told = text;
    node.events.emit({ type: "pull", result: "failed", message: messageOf(error) });
  }
}

/** What a pull did, in a sentence. */
export function describe(result: PullResult): string {
  if (result.kind === "current") return `Nothing new: '${result.name}' (${result.snapshot})`;
  const along = result.along === undefined ? "" : `; with ${shortList(result.along)}`;
  return `Pulled '${result.name}' (${result.top}) from ${result.parent}: ` +
    `${
      result.kind === "full" ? "full image" : "increment"
    }, ${result.blocks} blocks, ${result.bytes} bytes${along}`;
}

/** Which local changes went, in a sentence. */
export function describeFlush({ files, snapshots }: Flushed): string {
  const taken = snapshots.length === 0 ? "" : `, with the snapshots ${snapshots.join(", ")}`;
  return `Local changes were flushed: ${files} changed ${files === 1 ? "file" : "files"}${taken}`;
}

/** Hears the first parent that lets itself be heard; the next one when it falls silent. */
async function listen(
  { clock }: Node,
  options: FollowOptions,
  signal: AbortSignal,
  announced: () => void,
): Promise<void> {
  let failures = 0;
  for (let turn = 0; !signal.aborted; turn++) {
    const peer = options.parents[turn % options.parents.length];
    const begin = clock.elapsed();
    let reason: unknown;
    try {
      // What was announced before it could be heard, at a restart of the parent above all, is asked for.
      for await (const { type } of peer.events(signal)) {
        if (type === "master" || type === "connected") announced();
      }
    } catch (error) {
      // Pulls go on by the clock meanwhile; they report what is wrong with the parent.
      reason = error;
    }
    failures = clock.elapsed() - begin < LASTED_MS ? failures + 1 : 1;
    await pause(
      waitMsOf({ ...LISTENING, random: () => clock.chance() }, failures, reason),
      signal,
      clock,
    );
  }
}
