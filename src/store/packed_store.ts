/**
 * A block store that gives room only to blocks that were written: they lie anywhere in a file, or on a
 * device, that may be smaller than the volume, and a map says where.
 *
 * Source: WO 00/07104, copies to targets of another size or layout, and incremental mirrors.
 *
 * Invariants:
 * 1. The header in force names a map whose blocks are durable, and so are the blocks that it says are
 *    there: both are synced before the header is written. The two header slots are written in turn.
 * 2. No block that the header in force, or the one before it until the next is durable, says is in use
 *    is written over, but by a write to the VBN that it belongs to: that is as on any disk.
 * 3. The map is a log. Syncing after a few new blocks appends a block to it; the whole table is written
 *    when the log says more than twice as much as a table would.
 * 4. After the first failed write or sync nothing is written until `retry`, which goes back to the header
 *    in force.
 *
 * A crash leaves each block that was written since the last sync as it was, as it is, or torn; one that
 * was not there before may not be there.
 *
 * @module
 */

import { divCeil, type Run, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  encodePackedHeader,
  MAP_ENTRIES,
  type MapEntry,
  MAX_BLOCKS,
  type PackedHeader,
} from "../format/mod.ts";
import { type BlockStore, checkRun, type SparseStore } from "./block_store.ts";
import { MapLog, readPackedHeader } from "./map_log.ts";
import { SlotMap } from "./slot_map.ts";
import { noRoom, SlotSpace } from "./slot_space.ts";

const HEADER_SLOTS: Run = { start: 0, count: 2 };

/** See the module. */
export class PackedStore implements SparseStore {
  readonly capacity: number;
  readonly #under: BlockStore;
  #map: SlotMap;
  #space: SlotSpace;
  #log: MapLog;
  #sequence: number;
  /** Since the last sync: what was put where, and dropped, oldest first. */
  #changes: MapEntry[] = [];
  /** Blocks of VBNs that were dropped since the last sync. */
  #dropped: Run[] = [];
  #syncing: Promise<void> = Promise.resolve();
  #failure: unknown;

  private constructor(
    under: BlockStore,
    parts: { capacity: number; sequence: number; map: SlotMap; space: SlotSpace; log: MapLog },
  ) {
    this.#under = under;
    this.capacity = parts.capacity;
    this.#sequence = parts.sequence;
    this.#map = parts.map;
    this.#space = parts.space;
    this.#log = parts.log;
  }

  /** Makes an empty one over whatever is there; durable after the first `sync`. */
  static create(under: BlockStore, capacity: number): PackedStore {
    const space = spaceOf(under, HEADER_SLOTS.count);
    const log = new MapLog(under, space);
    const header = { capacity, sequence: 0, end: space.end, ...log.head };
    under.write(0, encodePackedHeader(header));
    under.write(1, new Uint8Array(BLOCK_SIZE));
    return new PackedStore(under, { capacity, sequence: 0, map: new SlotMap(), space, log });
  }

  /**
   * Opens one.
   *
   * @param blocks Blocks that the file has, where it may grow; by default all that `under` has.
   * @throws {VolcastError} `damaged`, `unsupported`, `io`.
   */
  static open(under: BlockStore, blocks: number = under.capacity): PackedStore {
    const header = readPackedHeader(under, blocks);
    const { capacity, sequence } = header;
    return new PackedStore(under, { capacity, sequence, ...loadMap(under, header) });
  }

  get readOnly(): VolcastError | undefined {
    return this.#under.readOnly;
  }

  /** Blocks of the volume that are there. */
  get liveBlocks(): number {
    return this.#map.size;
  }

  /** How many of `count` blocks from `vbn` on are there. */
  countIn(vbn: number, count: number): number {
    let found = 0;
    for (const run of this.#map.runs(vbn, count)) found += run.count;
    return found;
  }

  /** Blocks that can still be given out before the file, or the device, is full. */
  get freeBlocks(): number {
    return this.#space.limit - this.#space.usedCount;
  }

  /** Blocks of the file up to the last one in use. */
  get fileBlocks(): number {
    return this.#space.end;
  }

  has(vbn: number): boolean {
    return this.#map.get(vbn) !== 0;
  }

  read(vbn: number, target: Uint8Array): void {
    checkRun(this.capacity, vbn, target.length);
    const total = target.length / BLOCK_SIZE;
    for (let done = 0; done < total;) {
      const { slot, count } = this.#map.run(vbn + done, total - done);
      const part = target.subarray(done * BLOCK_SIZE, (done + count) * BLOCK_SIZE);
      if (slot === 0) part.fill(0);
      else this.#under.read(slot, part);
      done += count;
    }
  }

  write(vbn: number, source: Uint8Array): void {
    checkRun(this.capacity, vbn, source.length);
    this.#checkHealth();
    const total = source.length / BLOCK_SIZE;
    for (let done = 0; done < total;) {
      const { slot, count } = this.#place(vbn + done, total - done);
      const part = source.subarray(done * BLOCK_SIZE, (done + count) * BLOCK_SIZE);
      this.#guarded(() => this.#under.write(slot, part));
      done += count;
    }
  }

  discard(vbn: number, count: number): void {
    this.#checkHealth();
    for (const run of [...this.#map.runs(vbn, count)]) {
      this.#dropped.push({ start: run.slot, count: run.count });
      this.#change({ ...run, slot: 0 });
    }
  }

  sync(): Promise<void> {
    const turn = this.#syncing.then(() => this.#syncNow());
    this.#syncing = turn.catch(() => {});
    return turn;
  }

  /** As after a crash: what was not synced is gone. */
  async retry(): Promise<void> {
    await this.#syncing;
    await this.#under.retry?.();
    const header = readPackedHeader(this.#under, Infinity);
    const loaded = loadMap(this.#under, header);
    // Its sync may have failed: then only the host's cache has it, and the next one goes over the older.
    this.#under.write(header.sequence % 2, encodePackedHeader(header));
    await this.#under.sync();
    this.#map = loaded.map;
    this.#space = loaded.space;
    this.#log = loaded.log;
    this.#sequence = header.sequence;
    this.#changes = [];
    this.#dropped = [];
    this.#failure = undefined;
  }

  close(): void {
    this.#under.close();
  }

  /** Where a run, or its beginning, is to be written. */
  #place(vbn: number, most: number): MapEntry {
    const present = this.#map.run(vbn, most);
    if (present.slot !== 0) return present;
    const free = this.freeBlocks - this.#log.reserve(this.#changes.length + 1);
    if (free <= 0) throw noRoom(this.#space.limit);
    const { start, count } = this.#space.allocate(Math.min(free, present.count));
    const placed = { vbn, count, slot: start };
    this.#change(placed);
    return placed;
  }

  #change(entry: MapEntry): void {
    this.#map.set(entry);
    const last = this.#changes.at(-1);
    const joins = last !== undefined && entry.vbn === last.vbn + last.count &&
      entry.slot === (last.slot === 0 ? 0 : last.slot + last.count);
    if (!joins) this.#changes.push(entry);
    else this.#changes[this.#changes.length - 1] = { ...last, count: last.count + entry.count };
  }

  async #syncNow(): Promise<void> {
    this.#checkHealth();
    if (this.#changes.length === 0) return await this.#syncUnder();
    const changes = this.#changes;
    const released = this.#dropped;
    this.#changes = [];
    this.#dropped = [];
    // What the new map does not use any more is free when nobody can come back to the old one.
    released.push(...this.#guarded(() => this.#log.append(changes, this.#map)));
    const sequence = this.#sequence + 1;
    // As of now: what is written from here on may not be there after a crash.
    const { capacity, fileBlocks: end } = this;
    const header = { capacity, sequence, end, ...this.#log.head };
    await this.#syncUnder();
    this.#guarded(() => this.#under.write(sequence % 2, encodePackedHeader(header)));
    await this.#syncUnder();
    this.#sequence = sequence;
    for (const run of released) this.#space.release(run);
  }

  async #syncUnder(): Promise<void> {
    try {
      await this.#under.sync();
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  #checkHealth(): void {
    if (this.#failure === undefined) return;
    if (this.#failure instanceof VolcastError) throw this.#failure;
    throw new VolcastError("io", "Cannot write: an earlier write failed", "", {
      cause: this.#failure,
    });
  }
}

/** Blocks to which the packed file of a volume may grow: all its blocks, and the map of them. */
export function packedLimit(capacity: number): number {
  return Math.min(MAX_BLOCKS - 1, packedBlocks(capacity));
}

/** Blocks that a packed file of `count` blocks takes at most, the map of them included. */
export function packedBlocks(count: number): number {
  // A log of twice the table, and a new table beside it.
  return HEADER_SLOTS.count + count + 3 * divCeil(count, MAP_ENTRIES) + 16;
}

/** The map that a header names. */
function loadMap(
  under: BlockStore,
  header: PackedHeader,
): { map: SlotMap; space: SlotSpace; log: MapLog } {
  const map = new SlotMap();
  const space = spaceOf(under, header.end);
  const log = new MapLog(under, space);
  log.load(header, map);
  return { map, space, log };
}

function spaceOf(under: BlockStore, end: number): SlotSpace {
  const space = new SlotSpace(under.capacity, end);
  space.take(HEADER_SLOTS);
  return space;
}
