/**
 * A random life of a small volume in which blocks are used again all the time, with shadows. For every
 * snapshot that ever was, the content of each of its blocks is kept outside of the volume; from that,
 * and from nothing the volume says of itself, follows what a shadow's plane may have.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { hasBit, runsOf, VolcastError } from "../../src/core/mod.ts";
import { equalBytes } from "../../src/format/mod.ts";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import type { Shadow, Snapshot, Volume } from "../../src/volume/mod.ts";
import { History, type HistoryOptions, type KeptSnapshot } from "./history.ts";
import type { Random } from "./random.ts";

/** Blocks by VBN. */
export type Contents = ReadonlyMap<number, Uint8Array>;

/** What the blocks of a snapshot hold now. */
export function contentsOf(store: BlockStore, volume: Volume, snapshot: Snapshot): Contents {
  const contents = new Map<number, Uint8Array>();
  for (const { start, count } of runsOf(volume.plane(snapshot))) {
    for (let vbn = start; vbn < start + count; vbn++) {
      // A MemoryStore never changes a block: equal blocks are mostly one object.
      const bytes = store instanceof MemoryStore ? store.blocks.get(vbn) : undefined;
      contents.set(vbn, bytes ?? readBlock(store, vbn));
    }
  }
  return contents;
}

function readBlock(store: BlockStore, vbn: number): Uint8Array {
  const block = new Uint8Array(4096);
  store.read(vbn, block);
  return block;
}

/** What a look at all shadows of a volume found. */
export interface ShadowCheck {
  /** Blocks that were used again and must not be in a shadow. They are not. */
  reused: number;
  /** Blocks that a shadow saves an image from. */
  saved: number;
  /** Blocks that are as they were and have lost their bit: allowed, and a waste. */
  extra: number;
  /** Pairs of a shadow and a snapshot that was taken before the shadow became one. */
  earlier: number;
}

/**
 * For every shadow S, everything newer T that can be read, and every root U that is not older than T
 * and knows S as a shadow: whatever block of T is not what it was in S must not be in S's plane as of U.
 *
 * @param had What each snapshot's blocks held when it was taken, by id.
 * @throws For the first block that an image `T - S` would lack.
 */
export function checkShadows(
  store: BlockStore,
  volume: Volume,
  had: ReadonlyMap<string, Contents>,
): ShadowCheck {
  const found: ShadowCheck = { reused: 0, saved: 0, extra: 0, earlier: 0 };
  const roots = [...volume.snapshots(), volume.current];
  for (const shadow of volume.shadows()) {
    const before = had.get(shadow.id);
    if (before === undefined) throw new Error(`nobody took ${shadow.id}`);
    for (const top of roots.filter(({ cp }) => cp > shadow.cp)) {
      const now = contentsOf(store, volume, top);
      const states = roots.filter(({ cp }) => cp >= top.cp)
        .flatMap((state) => planeAsOf(volume, shadow, state) ?? []);
      assert(states.length > 0, "the current root knows its own shadows");
      if (planeAsOf(volume, shadow, top) === undefined) found.earlier++;
      for (const [vbn, content] of now) {
        const old = before.get(vbn);
        const isSame = old !== undefined && (old === content || equalBytes(old, content));
        if (old !== undefined && !isSame) found.reused++;
        for (const plane of states) {
          if (!hasBit(plane, vbn)) {
            if (isSame) found.extra++;
            continue;
          }
          assert(isSame, `VBN ${vbn} would be missing in '${top.name} - ${shadow.name}'`);
          found.saved++;
        }
      }
    }
  }
  return found;
}

/** `undefined` while it was a regular snapshot still. */
function planeAsOf(volume: Volume, shadow: Shadow, state: Snapshot) {
  try {
    return volume.shadowPlane(shadow.id, state);
  } catch (error) {
    if (error instanceof VolcastError && error.kind === "not-found") return undefined;
    throw error;
  }
}

/** See the module. */
export class ShadowHistory {
  readonly history: History;
  /** By id of every snapshot that ever was. */
  readonly had = new Map<string, Contents>();
  readonly totals: ShadowCheck = { reused: 0, saved: 0, extra: 0, earlier: 0 };
  shadows: KeptSnapshot[] = [];

  constructor(history: History) {
    this.history = history;
  }

  /** Begins with a new volume. */
  static async begin(
    store: MemoryStore,
    random: Random,
    options: HistoryOptions = {},
  ): Promise<ShadowHistory> {
    return new ShadowHistory(await History.begin(store, random, options));
  }

  get volume(): Volume {
    return this.history.volume;
  }

  /** Makes a shadow of a snapshot: it always can, full or not. */
  async makeShadow(kept: KeptSnapshot): Promise<number> {
    const { history } = this;
    const { released } = await this.volume.exclusive((writer) => writer.shadowSnapshot(kept.id));
    history.committed = history.model.clone();
    history.kept = history.kept.filter(({ id }) => id !== kept.id);
    this.shadows.push(kept);
    return released;
  }

  async deleteShadow(kept: KeptSnapshot): Promise<void> {
    const { history } = this;
    await this.volume.exclusive((writer) => writer.deleteSnapshot(kept.id));
    history.committed = history.model.clone();
    this.shadows = this.shadows.filter(({ id }) => id !== kept.id);
  }

  /** A random step of any kind, then what it did to shadows is looked at. */
  async step(): Promise<void> {
    const { history } = this;
    const { random } = history;
    const [kind, kept] = [random.below(10), history.kept];
    if (kind <= 1 && kept.length > 0) await this.makeShadow(random.pick(kept));
    else if (kind === 2 && this.shadows.length > 4) {
      await this.deleteShadow(random.pick(this.shadows));
    } else if (kind === 3) await history.skip(random.below(20_000));
    else if (kind === 4 && this.#canChurn()) {
      await history.churn(2, random.between(4096, 120_000));
    } else await history.step();
    this.check();
  }

  /** Something else may have been renamed to the name of the file that is churned. */
  #canChurn(): boolean {
    const node = this.history.model.root.children.get("churn");
    return node === undefined || node.type === "file";
  }

  /** Looks at every shadow, and counts. */
  check(): void {
    const { store, kept } = this.history;
    for (const { id } of kept) {
      if (!this.had.has(id)) {
        this.had.set(id, contentsOf(store, this.volume, this.volume.resolve(id)));
      }
    }
    assertEquals(
      this.volume.shadows().map(({ name }) => name).sort(),
      this.shadows.map(({ name }) => name).sort(),
    );
    const found = checkShadows(store, this.volume, this.had);
    for (const key of ["reused", "saved", "extra", "earlier"] as const) {
      this.totals[key] += found[key];
    }
  }
}
