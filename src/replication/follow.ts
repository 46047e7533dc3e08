/**
 * Following parents: a pull at the start, every so often, and as soon as a parent announces a master.
 *
 * @module
 */

import { messageOf, shortList, VolcastError } from "../core/mod.ts";
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

/** Runs until `signal` fires; failures are told and tried again. */
export async function follow(
  node: Node,
  puller: Puller,
  options: FollowOptions,
  signal: AbortSignal,
): Promise<void> {
  let wake = () => {};
  let announced = false;
  signal.addEventListener("abort", () => wake());
  const listener = listen(options, signal, () => {
    announced = true;
    wake();
  });
  while (!signal.aborted) {
    announced = false;
    await pullOnce(node, puller, options, signal);
    if (announced) continue;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, options.everyMs * (0.9 + Math.random() / 5));
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (signal.aborted) wake();
    });
  }
  await listener;
}

async function pullOnce(
  node: Node,
  puller: Puller,
  options: FollowOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    const result = await puller.pull(signal);
    if (result.unconfirmed !== node.unconfirmed && result.unconfirmed !== undefined) {
      options.log(`The parent does not know where this node stands: ${result.unconfirmed}`);
    }
    node.unconfirmed = result.unconfirmed;
    if (result.kind === "current") return;
    options.log(describe(result));
    node.events.emit({ type: "pull", result: result.kind, message: describe(result) });
  } catch (error) {
    if (signal.aborted) return;
    const hint = error instanceof VolcastError && error.hint !== "" ? `. ${error.hint}` : "";
    options.log(`${messageOf(error)}${hint}`);
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

/** Hears the first parent that lets itself be heard; the next one when it falls silent. */
async function listen(
  options: FollowOptions,
  signal: AbortSignal,
  announced: () => void,
): Promise<void> {
  for (let turn = 0; !signal.aborted; turn++) {
    const peer = options.parents[turn % options.parents.length];
    try {
      for await (const event of peer.events(signal)) if (event.type === "master") announced();
    } catch {
      // Pulls go on by the clock meanwhile; they report what is wrong with the parent.
    }
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 1000 + Math.random() * 1000);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      }, { once: true });
    });
  }
}
