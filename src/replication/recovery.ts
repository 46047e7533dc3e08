/**
 * Going on after a write error: a server whose disk was full, or read-only for a time, writes again when
 * it can, without a restart. Readers are served meanwhile.
 *
 * @module
 */

import { pause } from "../core/mod.ts";
import type { Volume } from "../volume/mod.ts";
import type { Node } from "./node.ts";

/** Time between two looks, and between two attempts, ms. */
const LOOK_MS = 1_000;

/** Looks until `signal` fires whether the volume can be written, and tries again while it cannot. */
export async function keepWritable(
  node: Node,
  options: { readonly log: (text: string) => void; readonly lookMs?: number },
  signal: AbortSignal,
): Promise<void> {
  let told: Volume | undefined;
  while (!signal.aborted) {
    await pause(options.lookMs ?? LOOK_MS, signal);
    const volume = node.volumeIfAny;
    if (volume === undefined || volume.isClosed || signal.aborted) continue;
    const { poisoned } = volume;
    if (poisoned !== undefined && told !== volume) {
      told = volume;
      const hint = poisoned.hint === "" ? "" : `. ${poisoned.hint}`;
      options.log(`Reading goes on, writing does not: ${poisoned.message}${hint}`);
    }
    // What is wrong is told by the volume, to whoever asks: only the change is worth a line.
    if (poisoned !== undefined) await volume.recover().catch(() => {});
    if (told === volume && volume.poisoned === undefined) {
      told = undefined;
      options.log(`Writing goes on, from ${volume.active.name} (${volume.active.id})`);
      // What failed meanwhile is done now: sealing, keeping the pin budget.
      node.changed();
    }
  }
}
