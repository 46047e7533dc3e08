/**
 * Reading and writing single blocks of metadata through a cache, checksums checked (I1).
 *
 * @module
 */

import { damaged, type VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, type Pointer } from "../format/mod.ts";
import type { BlockStore } from "../store/mod.ts";

interface Entry {
  readonly crc: number;
  readonly bytes: Uint8Array;
}

/**
 * A cache in two generations: what is used moves to the young one; when that is full the old one is
 * forgotten. It keeps between half and all of its limit and costs one map look-up a hit.
 */
export class BlockCache {
  readonly #half: number;
  #young = new Map<number, Entry>();
  #old = new Map<number, Entry>();

  /** @param limitBytes Most bytes of blocks kept. */
  constructor(limitBytes: number) {
    this.#half = Math.max(16, Math.floor(limitBytes / BLOCK_SIZE / 2));
  }

  /** The block, when it is here with exactly this checksum. */
  get(vbn: number, crc: number): Uint8Array | undefined {
    let entry = this.#young.get(vbn);
    if (entry === undefined) {
      entry = this.#old.get(vbn);
      if (entry === undefined) return undefined;
      this.#old.delete(vbn);
      this.#insert(vbn, entry);
    }
    return entry.crc === crc ? entry.bytes : undefined;
  }

  /** Keeps a block; `bytes` must not change any more. */
  set(vbn: number, crc: number, bytes: Uint8Array): void {
    this.#old.delete(vbn);
    this.#insert(vbn, { crc, bytes });
  }

  /** Forgets blocks that are about to be overwritten. */
  forget(vbn: number, count: number): void {
    if (this.#young.size + this.#old.size === 0) return;
    for (let i = vbn; i < vbn + count; i++) {
      this.#young.delete(i);
      this.#old.delete(i);
    }
  }

  #insert(vbn: number, entry: Entry): void {
    if (this.#young.size >= this.#half) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(vbn, entry);
  }
}

/** Verified access to a store's blocks. */
export class BlockIo {
  readonly store: BlockStore;
  readonly cache: BlockCache;
  /** Told of each block that is not what the pointer to it says, before whoever reads it gets an error. */
  noted: ((pointer: Pointer, io: BlockIo) => void) | undefined;

  constructor(store: BlockStore, cache: BlockCache) {
    this.store = store;
    this.cache = cache;
  }

  /**
   * The block behind a pointer, read-only for the caller.
   * @throws {VolcastError} `damaged` when its checksum does not match.
   */
  read(pointer: Pointer): Uint8Array {
    const cached = this.cache.get(pointer.vbn, pointer.crc);
    if (cached !== undefined) return cached;
    this.#checkVbn(pointer.vbn, 1);
    const bytes = new Uint8Array(BLOCK_SIZE);
    this.store.read(pointer.vbn, bytes);
    this.#checkBlock(pointer, bytes);
    this.cache.set(pointer.vbn, pointer.crc, bytes);
    return bytes;
  }

  /** Reads the blocks of consecutive VBNs past the cache, each checked against its own checksum. */
  readRun(vbn: number, crcs: readonly number[], target: Uint8Array): void {
    this.#checkVbn(vbn, crcs.length);
    this.store.read(vbn, target);
    for (let i = 0; i < crcs.length; i++) {
      this.#checkBlock(
        { vbn: vbn + i, crc: crcs[i] },
        target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE),
      );
    }
  }

  /** Writes a block of metadata and keeps it; `bytes` must not change any more. */
  write(vbn: number, crc: number, bytes: Uint8Array): void {
    this.store.write(vbn, bytes);
    this.cache.set(vbn, crc, bytes);
  }

  /** Writes blocks past the cache. */
  writeRun(vbn: number, bytes: Uint8Array): void {
    this.cache.forget(vbn, bytes.length / BLOCK_SIZE);
    this.store.write(vbn, bytes);
  }

  /**
   * What to say of a block that is not what the pointer to it says.
   * @param what What cannot be done, its VBN behind it.
   * @param hint What to do where it lies in the volume itself.
   */
  mismatch(what: string, pointer: Pointer, found: number, hint: string): VolcastError {
    const { vbn, crc } = pointer;
    const file = this.store.fileOf?.(vbn);
    return damaged(
      `${what} VBN ${vbn}${file === undefined ? "" : ` in ${file}`}: its checksum is ${
        hex(found)
      }, the pointer to it says ${hex(crc)}`,
      file === undefined
        ? hint
        : `Put a copy of ${file} back in its place that is as it was written`,
    );
  }

  #checkVbn(vbn: number, count: number): void {
    if (vbn + count > this.store.capacity) {
      throw damaged(
        `Cannot read VBN ${vbn}: the volume has ${this.store.capacity} blocks`,
        "Run: volcast fsck",
      );
    }
  }

  #checkBlock(pointer: Pointer, bytes: Uint8Array): void {
    const crc = checksum(bytes);
    if (crc !== pointer.crc) {
      this.noted?.({ vbn: pointer.vbn, crc: pointer.crc }, this);
      throw this.mismatch("Cannot read", pointer, crc, "Run: volcast fsck");
    }
  }
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, "0");
}
