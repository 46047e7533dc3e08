/**
 * The disks that may be found after a loss of power at one moment of something that was recorded.
 *
 * The model: a sync makes durable what was written before it was called. Of everything else each sector
 * of 512 bytes on its own is as it was, or as any of the writes since made it, in whatever order they
 * reach the disk; a sector that was being written may also be garbage. Most sectors of a block go
 * together, as they do on real disks, and some blocks are torn.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import type { Random } from "../helpers/random.ts";
import type { CrashStore } from "../helpers/stores.ts";

const BLOCK_SIZE = 4096;
const SECTOR_SIZE = 512;

/** A disk before the work, and what was done to it. */
export interface RecordedDisk {
  readonly initial: MemoryStore;
  readonly recorded: CrashStore;
}

/** Disks that may be found. */
export interface FoundDisks {
  readonly disks: MemoryStore[];
  /** Equal for equal content. */
  readonly hash: string;
}

/** Goes through the moments of a recording, from the first to the last. */
export class CrashStates {
  readonly #disks: DiskStates[];

  constructor(disks: readonly RecordedDisk[]) {
    this.#disks = disks.map((disk) => new DiskStates(disk));
  }

  /** Goes on to a moment, which is not before the one it is at. */
  advance(moment: number): void {
    for (const disk of this.#disks) disk.advance(moment);
  }

  /** Blocks that were written and are not durable. */
  get unsynced(): number {
    return this.#disks.reduce((sum, disk) => sum + disk.unsynced, 0);
  }

  /** The disks with everything written, in order. */
  whole(): FoundDisks {
    return this.#found((disk) => disk.found("all"));
  }

  /** State `number` of this moment: the first has all writes, the second none, others some of them. */
  state(number: number, random: Random): FoundDisks {
    if (number < 2) return this.#found((disk) => disk.found(number === 0 ? "all" : "none"));
    return this.#found((disk) => disk.found(random));
  }

  #found(each: (disk: DiskStates) => { store: MemoryStore; hash: Digest }): FoundDisks {
    const found = this.#disks.map(each);
    return {
      disks: found.map(({ store }) => store),
      hash: found.map(({ hash }) => `${hash[0].toString(16)}.${hash[1].toString(16)}`).join(),
    };
  }
}

type Digest = [number, number];

class DiskStates {
  readonly #recorded: CrashStore;
  readonly #durable: MemoryStore;
  readonly #hash: Digest = [0, 0];
  /** Writes that are not durable, in order. */
  #pending: { event: number; vbn: number; block: Uint8Array }[] = [];
  #position = 0;

  constructor({ initial, recorded }: RecordedDisk) {
    this.#recorded = recorded;
    this.#durable = new MemoryStore(initial.capacity);
    for (const [vbn, block] of initial.blocks) this.#put(vbn, block);
  }

  get unsynced(): number {
    return this.#pending.length;
  }

  advance(moment: number): void {
    const count = this.#recorded.countAt(moment);
    for (; this.#position < count; this.#position++) {
      const event = this.#recorded.events[this.#position];
      if (event.kind === "write") {
        for (let at = 0; at < event.bytes.length; at += BLOCK_SIZE) {
          const block = event.bytes.subarray(at, at + BLOCK_SIZE);
          this.#pending.push({ event: this.#position, vbn: event.vbn + at / BLOCK_SIZE, block });
        }
        continue;
      }
      const isDurable = (write: { event: number }) => write.event < event.upTo;
      for (const { vbn, block } of this.#pending.filter(isDurable)) this.#put(vbn, block);
      this.#pending = this.#pending.filter((write) => !isDurable(write));
    }
  }

  found(chosen: Random | "all" | "none"): { store: MemoryStore; hash: Digest } {
    const store = new MemoryStore(this.#durable.capacity);
    for (const [vbn, block] of this.#durable.blocks) store.blocks.set(vbn, block);
    const hash: Digest = [...this.#hash];
    const put = (vbn: number, block: Uint8Array) => {
      mix(hash, vbn, store.blocks.get(vbn));
      mix(hash, vbn, block);
      store.blocks.set(vbn, block);
    };
    if (chosen === "none") return { store, hash };
    const versions = Map.groupBy(this.#pending, ({ vbn }) => vbn);
    if (chosen === "all") { for (const [vbn, writes] of versions) put(vbn, writes.at(-1)!.block); }
    else this.#choose(chosen, versions, put);
    return { store, hash };
  }

  #choose(
    random: Random,
    versions: ReadonlyMap<number, readonly { block: Uint8Array }[]>,
    put: (vbn: number, block: Uint8Array) => void,
  ): void {
    const vbns = [...versions.keys()];
    if (vbns.length === 0) return;
    // One block that is another way than all others finds what a general loss does not.
    const odd = random.oneIn(3) ? random.pick(vbns) : undefined;
    const keptInTen = odd === undefined ? random.pick([1, 3, 5, 7, 9]) : random.pick([0, 10]);
    for (const vbn of vbns) {
      const blocks = versions.get(vbn)!.map(({ block }) => block);
      const isKept = (random.below(10) < keptInTen) !== (vbn === odd);
      if (isKept) put(vbn, random.oneIn(4) ? random.pick(blocks) : blocks.at(-1)!);
      else if (vbn === odd || random.oneIn(3)) {
        const before = this.#durable.blocks.get(vbn) ?? ZEROS;
        put(vbn, torn([before, ...blocks], random));
      }
    }
  }

  #put(vbn: number, block: Uint8Array): void {
    mix(this.#hash, vbn, this.#durable.blocks.get(vbn));
    mix(this.#hash, vbn, block);
    this.#durable.blocks.set(vbn, block);
  }
}

const ZEROS = new Uint8Array(BLOCK_SIZE);

/** A block of which each sector is of any version; now and then one of them is garbage. */
function torn(versions: readonly Uint8Array[], random: Random): Uint8Array {
  const result = new Uint8Array(BLOCK_SIZE);
  for (let at = 0; at < BLOCK_SIZE; at += SECTOR_SIZE) {
    result.set(random.pick(versions).subarray(at, at + SECTOR_SIZE), at);
  }
  if (random.oneIn(4)) {
    result.set(random.bytes(SECTOR_SIZE), random.below(BLOCK_SIZE / SECTOR_SIZE) * SECTOR_SIZE);
  }
  return result;
}

/** Digests of blocks: most are in many states. */
const digests = new WeakMap<Uint8Array, Digest>();

/** Takes a block into the digest of a disk, or out of it: the order of blocks does not matter. */
function mix(hash: Digest, vbn: number, block: Uint8Array | undefined): void {
  if (block === undefined) return;
  let digest = digests.get(block);
  if (digest === undefined) {
    // A block of zeros is the same as none.
    const isZero = Buffer.compare(block, ZEROS) === 0;
    const bytes = createHash("sha256").update(block).digest();
    digest = isZero ? [0, 0] : [bytes.readUInt32LE(0) | 1, bytes.readUInt32LE(4) | 1];
    digests.set(block, digest);
  }
  if (digest[0] === 0) return;
  hash[0] = (hash[0] ^ Math.imul(digest[0] ^ Math.imul(vbn + 1, 0x9e3779b1), 0x85ebca6b)) >>> 0;
  hash[1] = (hash[1] ^ Math.imul(digest[1] ^ Math.imul(vbn + 7, 0xc2b2ae35), 0x27d4eb2f)) >>> 0;
}

/** A block of a store; shared where the store is memory. */
export function blockOf(store: BlockStore, vbn: number): Uint8Array {
  if (store instanceof MemoryStore) return store.blocks.get(vbn) ?? ZEROS;
  const block = new Uint8Array(BLOCK_SIZE);
  store.read(vbn, block);
  return block;
}
