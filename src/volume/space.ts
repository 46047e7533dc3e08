/**
 * Which blocks are free, and giving them out.
 *
 * Invariants:
 * 1. A block is given out only if it is in no plane of a regular snapshot, not in the block map of
 *    the active file system, not in that of the last consistency point, and not readable through
 *    a lease (I2).
 * 2. `freeCount` is exactly the number of such blocks.
 * 3. What a consistency point freed becomes free when it is durable and the last lease that could
 *    read it is gone.
 * 4. What is given out loses its bit in every shadow, so that a shadow never forbids a block and never
 *    says of other content that it is its own (see `shadows.ts`).
 *
 * @module
 */

import {
  BitPlane,
  damaged,
  nextClearBit,
  PAGE_BITS,
  PAGE_WORDS,
  popcountWord,
  type Run,
  VolcastError,
  ZERO_PAGE,
} from "../core/mod.ts";
import type { Extent, Inode } from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import type { Allocator, BlockTree } from "./block_tree.ts";
import type { Marks } from "./marks.ts";
import { wordsOf } from "./plane_file.ts";
import { ShadowFile } from "./shadows.ts";

interface Quarantine {
  readonly cp: number;
  readonly plane: BitPlane;
  readonly count: number;
}

/** The page that is given out from. */
interface WorkingPage {
  readonly index: number;
  /** What may not be given out. */
  readonly used: Uint32Array;
  /** The page of the block map, there once something on it was given out. */
  map: Uint32Array | undefined;
  /** Blocks of the page that any shadow has; absent where none has. */
  readonly shadowed: Uint32Array | undefined;
}

/** What helps when a volume is full. */
export const FULL_HINT =
  "Delete snapshots (volcast plan VOLUME --delete a,b says what that frees), make shadows of them, or " +
  "delete files; a volume does not grow: publish into a larger one";

/** See the module. */
export class Space implements Allocator {
  /** The block map of the active file system. */
  map!: BlockTree;
  /** The sum of the planes of all regular snapshots. */
  summary!: BlockTree;
  /** Blocks in the block map. */
  mapCount = 0;
  /** Blocks that can be given out now. */
  freeCount = 0;
  /** Blocks of metadata kept in memory. */
  dirtyCount = 0;
  readonly #data: Extent;
  readonly #pageCount: number;
  /** Freed since the last consistency point, which still uses them. */
  #pending: BitPlane;
  /** Given out since the last consistency point. */
  readonly #fresh: BitPlane;
  #quarantines: Quarantine[] = [];
  /** Called when space is short and leases keep some: ends them. */
  reclaim: () => void = () => {};
  /** Called when the block map is found to be wrong: nothing may be written after it. */
  contradicted: (error: VolcastError) => void = () => {};
  /** Inodes changed in memory: each may ask for a block at the consistency point. */
  waitingInodes: () => number = () => 0;
  /** Blocks of the tables of snapshots and pointers: to delete one may write all of them anew. */
  tableBlocks: () => number = () => 0;
  #shadows: ShadowFile | undefined;
  /** Who is told of every block that is given out or back. */
  readonly marks: Set<Marks> = new Set();
  #cursor: number;
  #work: WorkingPage | undefined;

  constructor(data: Extent, pageCount: number) {
    this.#data = data;
    this.#pageCount = pageCount;
    this.#pending = new BitPlane(pageCount);
    this.#fresh = new BitPlane(pageCount);
    this.#cursor = data.start;
  }

  /** Takes the trees of an opened file system and counts. */
  attach(map: BlockTree, summary: BlockTree): void {
    this.map = map;
    this.summary = summary;
    this.mapCount = 0;
    let used = 0;
    const pages = new Set<number>();
    for (const tree of [map, summary]) {
      tree.forEachPointer((_, level, index) => {
        if (level === 0) pages.add(index);
        return true;
      });
    }
    for (const index of pages) {
      const active = wordsOf(map.block(index));
      const kept = wordsOf(summary.block(index));
      for (let i = 0; i < PAGE_WORDS; i++) {
        this.mapCount += popcountWord(active[i]);
        used += popcountWord(active[i] | kept[i]);
      }
    }
    this.freeCount = this.#data.count - used;
  }

  /** The planes of shadows, where there are any. */
  get shadows(): ShadowFile | undefined {
    return this.#shadows;
  }

  /** Takes the file of shadow planes of an opened file system, or a new one. */
  attachShadows(io: BlockIo, inode: Inode): ShadowFile {
    this.#work = undefined;
    return this.#shadows = new ShadowFile(inode, {
      io,
      allocator: this,
      pageCount: this.#pageCount,
      // What a consistency point may need for anything else stays out of the shadows' reach.
      isShort: () =>
        this.freeCount - this.dirtyCount - this.waitingInodes() < Math.ceil(this.#floor * 3 / 4),
    });
  }

  /** The last shadow went, and its file with it. */
  detachShadows(): void {
    this.#shadows?.remove();
    this.#shadows = undefined;
    this.#work = undefined;
  }

  /** Blocks kept back for consistency points; half of them for those that delete snapshots. */
  get #floor(): number {
    return Math.min(8192, Math.max(32, Math.floor(this.#data.count / 64)));
  }

  /** Blocks that users' data may not take: consistency points need them, to delete above all. */
  get reserve(): number {
    // Old tables stay where a snapshot has them: one is written while another is given up.
    return this.#floor + this.dirtyCount * 2 + this.waitingInodes() + this.tableBlocks() * 2;
  }

  /** Whether `count` blocks are left for users' data. */
  has(count: number): boolean {
    if (this.freeCount - this.reserve >= count) return true;
    if (this.quarantined > 0) this.reclaim();
    return this.freeCount - this.reserve >= count;
  }

  /** Whether the next consistency point has room for one more change of a few blocks of metadata. */
  hasForChange(): boolean {
    const left = () =>
      this.freeCount - Math.floor(this.#floor / 2) - this.dirtyCount - this.waitingInodes();
    if (left() < 8 && this.quarantined > 0) this.reclaim();
    return left() >= 8;
  }

  /** Whether a consistency point soon would leave more room than it takes now. */
  get isShort(): boolean {
    const owed = this.dirtyCount + this.waitingInodes();
    return owed * 4 > this.#floor && this.freeCount - this.reserve < this.#floor;
  }

  /**
   * For what needs no room of its own: deleting, and changing attributes. Even that makes new blocks
   * of metadata; a consistency point that finds no place for them would be the end of the session.
   *
   * @throws {VolcastError} `full`.
   */
  requireForChange(): void {
    if (this.hasForChange()) return;
    throw new VolcastError(
      "full",
      `Cannot change more: ${this.freeCount} blocks are free, and the consistency point needs them ` +
        `for ${this.dirtyCount + this.waitingInodes()} changed blocks and inodes`,
      "Change less at a time, or delete a snapshot first",
    );
  }

  /**
   * For what gives room back in the end, and may take all of the reserve: deleting snapshots, shadows.
   *
   * @param count Blocks of tables and planes that it changes.
   * @throws {VolcastError} `full`, before anything is changed.
   */
  requireForRelease(count: number): void {
    // Pages of the block map that these lie in, and what every consistency point writes.
    const needed = count + Math.min(count, this.#pageCount) + 16;
    const left = () => this.freeCount - this.dirtyCount - this.waitingInodes();
    if (left() < needed && this.quarantined > 0) this.reclaim();
    if (left() >= needed) return;
    throw new VolcastError(
      "full",
      `Cannot delete from a full volume: ${needed} blocks are needed to write it down, ${
        Math.max(0, left())
      } are free`,
      "Begin with the newest snapshots, or make shadows of them: that takes less",
    );
  }

  /** Looks for room. @throws {VolcastError} `full` unless `count` blocks are left for users' data. */
  require(count: number): void {
    if (this.has(count)) return;
    throw new VolcastError(
      "full",
      `Cannot write ${count} more blocks: the volume has ${this.#data.count} blocks, ` +
        `${Math.max(0, this.freeCount - this.reserve)} of them free for data`,
      FULL_HINT,
    );
  }

  allocate(): number {
    return this.allocateRun(1).start;
  }

  /**
   * Gives out 1 to `most` consecutive blocks, the next free ones behind those given out last.
   * @throws {VolcastError} `full`.
   */
  allocateRun(most: number): Run {
    const end = this.#data.start + this.#data.count;
    // One turn around the volume, and the first page again for the part before the cursor.
    for (let turn = 0; turn <= this.#pageCount; turn++) {
      if (this.#cursor >= end) this.#cursor = this.#data.start;
      const index = Math.floor(this.#cursor / PAGE_BITS);
      const work = this.#workOn(index);
      const limit = Math.min(PAGE_BITS, end - index * PAGE_BITS);
      const start = nextClearBit(work.used, this.#cursor % PAGE_BITS, limit);
      if (start === limit) {
        this.#cursor = (index + 1) * PAGE_BITS;
        continue;
      }
      // Pages that are only looked through stay clean: each changed one needs a new place itself.
      work.map ??= wordsOf(this.map.writableBlock(index));
      let count = 0;
      while (count < most && start + count < limit && !isSet(work.used, start + count)) {
        mark(work.used, start + count);
        mark(work.map, start + count);
        count++;
      }
      this.#takeFromShadows(work, start, count);
      const run = { start: index * PAGE_BITS + start, count };
      this.#fresh.setRun(run.start, count);
      this.#cursor = run.start + count;
      this.mapCount += count;
      this.freeCount -= count;
      if (this.marks.size > 0) { for (const marks of this.marks) marks.allocated(run); }
      return run;
    }
    throw new VolcastError(
      "full",
      `Cannot write: none of the volume's ${this.#data.count} blocks is free`,
      FULL_HINT,
    );
  }

  /** Blocks of the working page were given out: the shadows that have them lose them. */
  #takeFromShadows({ index, shadowed }: WorkingPage, start: number, count: number): void {
    if (shadowed === undefined) return;
    let any = false;
    for (let bit = start; bit < start + count; bit++) {
      if (!isSet(shadowed, bit)) continue;
      unmark(shadowed, bit);
      any = true;
    }
    if (any) this.#shadows?.clear(index, start, count);
  }

  /**
   * Gives a block back.
   * @throws {VolcastError} `damaged` when the block map says that it is free, or has no bit for it.
   */
  free(vbn: number): void {
    if (vbn < this.#data.start || vbn >= this.#data.start + this.#data.count) {
      throw this.#contradicted(vbn);
    }
    const index = Math.floor(vbn / PAGE_BITS);
    const bit = vbn % PAGE_BITS;
    const words = (index === this.#work?.index ? this.#work.map : undefined) ??
      wordsOf(this.map.writableBlock(index));
    if (!isSet(words, bit)) throw this.#contradicted(vbn);
    unmark(words, bit);
    this.mapCount--;
    if (this.marks.size > 0) { for (const marks of this.marks) marks.freed(vbn); }
    if (!this.#fresh.has(vbn)) {
      this.#pending.set(vbn);
      return;
    }
    // Given out since the last consistency point: no root on disk has it.
    this.#fresh.clear(vbn);
    this.freeCount++;
    if (index === this.#work?.index) unmark(this.#work.used, bit);
  }

  /**
   * A file has a block that the block map says is free: one of the two is wrong, and what else was given
   * out may have been in use as well.
   */
  #contradicted(vbn: number): VolcastError {
    const error = damaged(
      `Cannot free VBN ${vbn}: by the block map it is freed and not in use, and a file has it`,
      "Run: volcast fsck. Nothing more is written to this volume until it is opened again",
    );
    this.contradicted(error);
    return error;
  }

  dirtied(count: number): void {
    this.dirtyCount += count;
  }

  /** The planes in the file of shadows were changed: the working page has an old picture of them. */
  shadowsChanged(): void {
    this.#work = undefined;
  }

  /** Blocks `words` of page `index` left the summary; those not in use stay away until the next CP. */
  released(index: number, words: Uint32Array): void {
    const page = this.#pending.writablePage(index);
    for (let i = 0; i < PAGE_WORDS; i++) page[i] |= words[i];
    this.#work = undefined;
  }

  /** The trees are about to be written: the working page may not be changed through old views. */
  detachWorkingPage(): void {
    this.#work = undefined;
  }

  /**
   * Consistency point `cp` is durable. `oldestLease` is the least CP that a lease reads at,
   * `Infinity` when there is none.
   */
  committed(cp: number, oldestLease: number): void {
    this.#fresh.reset();
    this.#work = undefined;
    let count = 0;
    for (const index of this.#pending.pages()) {
      const pending = this.#pending.page(index);
      const active = wordsOf(this.map.block(index));
      const kept = wordsOf(this.summary.block(index));
      for (let i = 0; i < PAGE_WORDS; i++) {
        count += popcountWord(pending[i] & ~active[i] & ~kept[i]);
      }
    }
    this.#quarantines.push({ cp, plane: this.#pending, count });
    this.#pending = new BitPlane(this.#pageCount);
    this.expire(oldestLease);
  }

  /** Leases went: frees what only they could read. */
  expire(oldestLease: number): void {
    const kept = this.#quarantines.filter((quarantine) => quarantine.cp > oldestLease);
    if (kept.length === this.#quarantines.length) return;
    for (const quarantine of this.#quarantines) {
      if (quarantine.cp <= oldestLease) this.freeCount += quarantine.count;
    }
    this.#quarantines = kept;
    this.#work = undefined;
  }

  /** Goes on after another one, of the same root: what only leases keep from being used stays so. */
  takeQuarantines(from: Space): void {
    this.#quarantines = from.#quarantines;
    this.freeCount -= this.quarantined;
    this.#work = undefined;
  }

  /** Blocks that only leases keep from being used. */
  get quarantined(): number {
    return this.#quarantines.reduce((sum, quarantine) => sum + quarantine.count, 0);
  }

  #workOn(index: number): WorkingPage {
    if (this.#work?.index === index) return this.#work;
    const used = wordsOf(this.map.block(index)).slice();
    const planes = [
      wordsOf(this.summary.block(index)),
      this.#pending.page(index),
      ...this.#quarantines.map((quarantine) => quarantine.plane.page(index)),
    ];
    for (const page of planes) {
      if (page === ZERO_PAGE) continue;
      for (let i = 0; i < PAGE_WORDS; i++) used[i] |= page[i];
    }
    this.#work = { index, used, map: undefined, shadowed: this.#shadows?.union(index) };
    return this.#work;
  }
}

function isSet(words: Uint32Array, bit: number): boolean {
  return (words[bit >>> 5] >>> (bit & 31) & 1) === 1;
}

function mark(words: Uint32Array, bit: number): void {
  words[bit >>> 5] |= 1 << (bit & 31);
}

function unmark(words: Uint32Array, bit: number): void {
  words[bit >>> 5] &= ~(1 << (bit & 31));
}
