/**
 * The pin budget: how much a site's base may keep from being used again. A site that falls behind
 * keeps more with each release; over the budget its base becomes a shadow, which keeps nothing, instead
 * of filling the volume.
 *
 * Invariants:
 * 1. A snapshot that a pointer names stays what it is.
 * 2. Afterwards no site keeps more than the budget by snapshots that no pointer names, and all sites
 *    together (who share what they keep) not more than the budget for each of them.
 * 3. Shadows made here go when no site stands on them; those that somebody else made stay.
 *
 * @module
 */

import { messageOf } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import { pinnedBlocks, sitePins, type Snapshot, type Volume } from "../volume/mod.ts";
import { isMirrorSnapshot } from "./mirror_sites.ts";
import type { Node } from "./node.ts";

/** Time between two looks when nothing is heard to have changed, ms. */
const LOOK_MS = 60_000;

/** Settings of {@linkcode keepPinBudget}. */
export interface PinBudgetOptions {
  /** Bytes that a site may keep. */
  readonly bytes: number;
  /** Told of each base that becomes a shadow, and once of each that may not. */
  readonly log: (text: string) => void;
}

/** A base that keeps too much. */
interface Excess {
  readonly snapshot: Snapshot;
  /** Who keeps how much, for the log. */
  readonly reason: string;
}

/** Keeps the budget until `signal` fires: after each change at the node, and now and then. */
export async function keepPinBudget(
  node: Node,
  options: PinBudgetOptions,
  signal: AbortSignal,
): Promise<void> {
  const budget = new PinBudget(node, options);
  let wake = () => {};
  let changed = false;
  const forget = node.onChange(() => {
    changed = true;
    wake();
  });
  signal.addEventListener("abort", () => wake());
  while (!signal.aborted) {
    changed = false;
    await budget.enforce().catch((error) => {
      options.log(`Cannot keep the pin budget: ${messageOf(error)}`);
    });
    if (changed) continue;
    await new Promise<void>((resolve) => {
      const forgetTimer = node.clock.timer(LOOK_MS, resolve);
      wake = () => {
        forgetTimer();
        resolve();
      };
      if (signal.aborted) wake();
    });
  }
  forget();
}

/** See the module. */
export class PinBudget {
  readonly #node: Node;
  readonly #options: PinBudgetOptions;
  /** Sites and bases whose excess was told of already. */
  readonly #told = new Set<string>();

  constructor(node: Node, options: PinBudgetOptions) {
    this.#node = node;
    this.#options = options;
  }

  /** Makes shadows until the budget is kept. Does nothing at a replica. */
  async enforce(): Promise<void> {
    const volume = this.#node.volumeIfAny;
    if (volume === undefined || volume.role !== "origin") return;
    this.#tellOfPointers(volume);
    while (this.#excess(volume) !== undefined) await this.#makeOne(volume);
    await this.#dropUnneeded(volume);
  }

  async #makeOne(volume: Volume): Promise<void> {
    await volume.exclusive(async (writer) => {
      // Sites and pointers may have moved while others had the volume.
      const excess = this.#excess(volume);
      if (excess === undefined) return;
      const { snapshot, reason } = excess;
      // Noted before: a crash between leaves a note of a shadow that is none, which is dropped. Without
      // room for the note the shadow stays until somebody deletes it.
      await volume.updateLocal((local) => {
        local.shadowed = [...new Set([...local.shadowed ?? [], snapshot.id])];
      }).catch((error) => this.#options.log(messageOf(error)));
      const { released } = await writer.shadowSnapshot(snapshot.id);
      this.#options.log(
        `Made '${snapshot.name}' (${snapshot.id}) a shadow: ${reason}, the budget is ` +
          `${this.#options.bytes}; ${released} blocks (${
            released * BLOCK_SIZE
          } bytes) may be used again`,
      );
    });
  }

  /** The snapshot that is to become a shadow next, the oldest of those that keep too much. */
  #excess(volume: Volume): Excess | undefined {
    const { bytes } = this.#options;
    const isPointed = pointed(volume);
    const all = new Set<Snapshot>();
    const sites = sitePins(volume);
    for (const { site, snapshots } of sites) {
      const bases = snapshots.filter((one) => !isPointed(one) && !isMirrorSnapshot(one.name));
      const kept = keptBytes(volume, bases);
      if (kept > bytes) {
        return { snapshot: bases[0], reason: `the site '${site}' keeps ${kept} bytes by it` };
      }
      for (const base of bases) all.add(base);
    }
    const bases = [...all].sort((a, b) => a.cp - b.cp);
    const kept = keptBytes(volume, bases);
    if (kept <= bytes * sites.length) return undefined;
    return {
      snapshot: bases[0],
      reason: `${sites.length} sites together keep ${kept} bytes by their bases`,
    };
  }

  #tellOfPointers(volume: Volume): void {
    const isPointed = pointed(volume);
    for (const { site, snapshots } of sitePins(volume)) {
      for (const snapshot of snapshots.filter(isPointed)) {
        const key = `${site} ${snapshot.id}`;
        const kept = keptBytes(volume, [snapshot]);
        if (kept <= this.#options.bytes || this.#told.has(key)) continue;
        this.#told.add(key);
        this.#options.log(
          `The site '${site}' keeps ${kept} bytes by '${snapshot.name}' (${snapshot.id}), the budget ` +
            `is ${this.#options.bytes}; it stays a snapshot, since a pointer names it`,
        );
      }
    }
  }

  /** Deletes shadows that were made here and that nobody stands on any more. */
  async #dropUnneeded(volume: Volume): Promise<void> {
    const noted = volume.local.shadowed ?? [];
    if (noted.length === 0) return;
    const needed = new Set(
      Object.values(volume.local.sites).flatMap(({ snapshot, needs }) => [snapshot, ...needs]),
    );
    const shadows = new Set(volume.shadows().map(({ id }) => id));
    const unneeded = noted.filter((id) => !needed.has(id));
    for (const id of unneeded.filter((one) => shadows.has(one))) {
      await volume.exclusive((writer) => writer.deleteSnapshot(id));
      this.#options.log(`Deleted the shadow ${id}: no site stands on it any more`);
    }
    const kept = noted.filter((id) => needed.has(id) && shadows.has(id));
    if (kept.length === noted.length) return;
    await volume.updateLocal((local) => {
      local.shadowed = kept;
    });
  }
}

function pointed(volume: Volume): (snapshot: Snapshot) => boolean {
  const ids = new Set(volume.pointers().map(({ snapshot }) => snapshot));
  return ({ id }) => ids.has(id);
}

function keptBytes(volume: Volume, snapshots: readonly Snapshot[]): number {
  return pinnedBlocks(volume, snapshots.map(({ id }) => id)) * BLOCK_SIZE;
}
