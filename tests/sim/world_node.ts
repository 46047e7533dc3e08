/**
 * A node of a world: a volume over some make of store, and whoever writes it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { adoptImage, ImageStore, type Pieces } from "../../src/image/mod.ts";
import { type BlockStore, MemoryStore, OverlayStore, PackedStore } from "../../src/store/mod.ts";
import { trimMirror, type View, Volume } from "../../src/volume/mod.ts";
import { STRIPED } from "../helpers/arrangements.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import type { Random } from "../helpers/random.ts";
import type { FileModel } from "../models/file_model.ts";
import type { Truth } from "./truth.ts";

/** Makes of stores that nodes lie on. */
export type Make = "memory" | "packed" | "striped" | "overlay";

/** A store that is found again when its process has ended. */
export interface Place {
  readonly make: Make;
  readonly store: BlockStore;
  /** What it lies on. */
  readonly disks: readonly MemoryStore[];
  open(): BlockStore | Promise<BlockStore>;
}

/** A new store. */
export function newPlace(make: Exclude<Make, "overlay">, capacity: number): Place {
  if (make === "memory") {
    const store = new MemoryStore(capacity);
    return { make, store, disks: [store], open: () => store };
  }
  if (make === "packed") {
    const disk = new MemoryStore(capacity * 3);
    const store = PackedStore.create(disk, capacity);
    return { make, store, disks: [disk], open: () => PackedStore.open(disk) };
  }
  const { store, disks } = STRIPED.create(capacity);
  return { make, store, disks, open: () => STRIPED.open(disks) };
}

/** A new file of what is newer than a base image. */
export async function newOverlay(base: Pieces): Promise<Place> {
  const { capacity } = base.header;
  const disk = new MemoryStore(capacity * 3);
  const over = async (upper: PackedStore) => new OverlayStore(await ImageStore.open([base]), upper);
  return {
    make: "overlay",
    store: await over(PackedStore.create(disk, capacity)),
    disks: [disk],
    open: () => over(PackedStore.open(disk)),
  };
}

/** The disks take so many blocks more, then none. @returns Makes them well again. */
export function failAfter({ disks }: Place, blockCount: number): () => void {
  let left = blockCount;
  for (const disk of disks) {
    disk.write = (vbn, source) => {
      left -= source.length / 4096;
      if (left < 0) throw new VolcastError("io", "Cannot write: Input/output error (os error 5)");
      MemoryStore.prototype.write.call(disk, vbn, source);
    };
  }
  return () => {
    // The method of the class is found again.
    for (const disk of disks) Reflect.deleteProperty(disk, "write");
  };
}

/** Nothing happens by the clock: a history comes again with its seed. */
export const OPEN = {
  localWrites: true,
  cacheBytes: 2 ** 18,
  checkpointMs: 2 ** 31 - 1,
} as const;

/** See the module. */
export class WorldNode {
  readonly name: string;
  place: Place;
  /** Whoever writes it: an origin's, or that of local changes. */
  writes: History | undefined;
  #volume: Volume;
  #reader: { view: View; all: readonly string[] } | undefined;
  #prefixes = 0;

  constructor(name: string, place: Place, volume: Volume) {
    this.name = name;
    this.place = place;
    this.#volume = volume;
  }

  get volume(): Volume {
    return this.#volume;
  }

  get isOrigin(): boolean {
    return this.#volume.role === "origin";
  }

  /** Begins to write from where the model says it is. */
  write(model: FileModel, random: Random): History {
    assert(this.writes === undefined, "one writes");
    // The first change waits for readers of roots that no list has any more: here that is time lost.
    this.endReader();
    // The history opens nothing by itself: `reopen` below does, whatever the store is.
    const store = this.place.store as unknown as MemoryStore;
    this.writes = History.resume({ store, volume: this.#volume, model }, random, {
      volume: OPEN,
      writeBytes: 20_000,
      prefix: `${this.name}-${++this.#prefixes}-`,
    });
    return this.writes;
  }

  /** The process ends, in order or as in a crash, and another one finds what is on disk. */
  async reopen(how: "in order" | "crash", random: Random): Promise<void> {
    const { writes } = this;
    if (how === "crash") this.#volume.abandon();
    else await this.#volume.close();
    const store = await this.place.open();
    this.place = { ...this.place, store };
    this.#volume = Volume.open(store, { ...OPEN, now: tickingClock() });
    this.#reader = undefined;
    this.writes = undefined;
    if (writes === undefined) return;
    // Local changes of which nothing was durable are none.
    const isWritten = this.isOrigin || this.#volume.superblock.branch !== undefined;
    if (isWritten) this.write(how === "crash" ? writes.committed : writes.model, random);
  }

  /** The volume lies elsewhere from now on, and nobody writes it. */
  replace(place: Place, volume: Volume): void {
    this.#volume.abandon();
    this.place = place;
    this.#volume = volume;
    this.#reader = undefined;
    this.writes = undefined;
  }

  /** An image has come in. */
  async received(): Promise<void> {
    this.writes = undefined;
    if (this.place.make !== "overlay") return;
    // What only older roots reach goes, once nobody reads it.
    this.endReader();
    await trimMirror(this.#volume);
  }

  /** Somebody reads a snapshot from now on. */
  read(id: string, all: readonly string[]): void {
    this.endReader();
    this.#reader = { view: this.#volume.view(id), all };
  }

  /** Whoever reads here has done. */
  endReader(): void {
    this.#reader?.view.release();
    this.#reader = undefined;
  }

  /** Whoever reads sees what it saw at first, or is told that it has to end. */
  #checkReader(): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    try {
      assertEquals(describe(reader.view.fs, { all: true }), reader.all, `${this.name}: a reader`);
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind !== "busy") throw error;
      this.endReader();
    }
  }

  /** The current snapshot, the last consistency point and the reader. */
  checkCurrent(truth: Truth): void {
    const { volume } = this;
    assert(volume.poisoned === undefined, `${this.name}: ${volume.poisoned?.message}`);
    if (!this.isOrigin) truth.checkShows(volume, volume.current);
    this.writes?.checkCommitted();
    if (this.writes === undefined) assertEquals(volume.superblock.branch, undefined);
    this.#checkReader();
  }

  /** Everything that it holds, and fsck. */
  async checkAll(truth: Truth): Promise<void> {
    this.checkCurrent(truth);
    for (const snapshot of this.volume.keptSnapshots()) {
      truth.checkShows(this.volume, snapshot);
      truth.checkBlocks(this.volume, snapshot);
    }
    // Where nothing of local changes is durable yet, asking for them would begin some.
    const isBegun = this.isOrigin || this.volume.superblock.branch !== undefined;
    if (isBegun) await this.writes?.checkLive();
    assertClean(this.volume);
  }
}

/** The volume of a base image, with nothing newer. */
export async function adopted(place: Place, base: Pieces): Promise<Volume> {
  const { volumeId } = base.header;
  const volume = Volume.incoming(place.store, volumeId, { ...OPEN, now: tickingClock() });
  const top = await adoptImage(volume, base);
  await volume.updateLocal((state) => {
    state.base = { top, path: "base" };
  });
  return volume;
}
