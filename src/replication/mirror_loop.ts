/**
 * Mirroring by the clock: round after round, with pauses that grow while they fail, and nothing that can
 * be stuck without being told.
 *
 * @module
 */

import { messageOf, PATIENCE, type Patience, pause, VolcastError, waitMsOf } from "../core/mod.ts";
import type { Mirror } from "./mirror.ts";
import type { MirrorResult } from "./mirror_status.ts";
import { guarded } from "./watchdog.ts";

/** Settings of {@linkcode keepMirrored}. */
export interface MirrorLoopOptions {
  /** Time from the begin of a round to that of the next, ms; a tenth is added or taken by chance. */
  readonly everyMs: number;
  /** Told of each round that did something, and of what failed when that is news. */
  readonly log: (text: string) => void;
  /** Longest time in which nothing happens before a round is ended, ms; 120,000 by default. */
  readonly stuckMs?: number;
}

/** What does rounds. */
export type Rounds = Pick<Mirror, "round" | "status">;

/** Runs until `signal` fires; failures are told and tried again. */
export async function keepMirrored(
  mirror: Rounds,
  options: MirrorLoopOptions,
  signal: AbortSignal,
): Promise<void> {
  const { everyMs, log } = options;
  let failures = 0;
  let told: string | undefined;
  while (!signal.aborted) {
    const begin = performance.now();
    let waitMs: number;
    try {
      const result = await watchedRound(mirror, options, signal);
      if (result.kind !== "nothing") log(describeRound(mirror, result));
      else if (told !== undefined) log(`${mirror.status.to} has all of it`);
      failures = 0;
      told = undefined;
      waitMs = everyMs * (0.9 + Math.random() / 5) - (performance.now() - begin);
    } catch (error) {
      if (signal.aborted) break;
      const hint = error instanceof VolcastError && error.hint !== "" ? `. ${error.hint}` : "";
      const text = `${messageOf(error)}${hint}`;
      if (text !== told) log(text);
      told = text;
      waitMs = waitMsOf(patienceBetween(everyMs), ++failures, error);
    }
    await pause(Math.max(0, waitMs), signal);
  }
}

/** What a round did, in a sentence. */
export function describeRound(mirror: Rounds, result: MirrorResult): string {
  const { to } = mirror.status;
  if (result.kind === "nothing") return `Nothing new for ${to}: it stands on '${result.name}'`;
  return `Mirrored '${result.name}' (${result.top}) to ${to}: ` +
    `${result.kind === "full" ? "full image" : "increment"}, ${result.blocks} blocks, ` +
    `${result.bytes} bytes, ${(result.ms / 1000).toFixed(2)} s`;
}

/** Pauses after failures: short ones first, then about as long as between rounds that go well. */
export function patienceBetween(everyMs: number): Patience {
  return {
    ...PATIENCE,
    firstMs: Math.min(everyMs, 1_000),
    limitMs: Math.max(everyMs, 10_000),
  };
}

/** A round that is ended when nothing happens in it for too long. */
function watchedRound(
  mirror: Rounds,
  { log, stuckMs = 120_000 }: MirrorLoopOptions,
  signal: AbortSignal,
): Promise<MirrorResult> {
  return guarded((ending) => mirror.round(ending), {
    beat: () => `${mirror.status.phase} ${mirror.status.aliveAt}`,
    limitMs: () => stuckMs,
    stuck: (silentMs) => {
      const { phase, to } = mirror.status;
      return new VolcastError(
        "io",
        `Cannot go on mirroring to ${to}: nothing has happened for ${
          Math.round(silentMs / 1000)
        } s (${phase})`,
        phase === "snapshot" ? "Somebody else has the volume, say a long import" : "",
      );
    },
    // Waiting for the volume itself cannot be cut short; the rest ends with the signal.
    log,
  }, signal);
}
