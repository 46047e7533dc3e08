/**
 * Blocks that are looked at once and in order, as those of the inode file are when every file of a tree
 * is: some are read at once, into memory that is used again.
 *
 * Invariants:
 * 1. What is handed out has the checksum that its pointer says (I1), whatever was read when.
 * 2. A block that cannot be read, or is not what its pointer says, hinders nobody who does not ask for it.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, type Pointer } from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";

/** Blocks that are read at once. */
const WINDOW_BLOCKS = 16;

/** See the module. */
export class BlockWindow {
  readonly #io: BlockIo;
  readonly #blocks: Uint8Array[] = [];
  #bytes: Uint8Array | undefined;
  #start = 0;
  #count = 0;
  /** What the blocks were found to be, where that was looked at. */
  readonly #crcs: (number | undefined)[] = [];
  #last = -1;

  constructor(io: BlockIo) {
    this.#io = io;
  }

  /**
   * The block behind a pointer, as {@linkcode BlockIo.read} gives it; valid until the next call.
   * @throws {VolcastError} `damaged` when its checksum does not match.
   */
  read(pointer: Pointer): Uint8Array {
    const { vbn, crc } = pointer;
    const slot = vbn - this.#start;
    if (slot >= 0 && slot < this.#count && this.#crcs[slot] === crc) {
      this.#last = vbn;
      return this.#blocks[slot];
    }
    const follows = vbn === this.#last + 1;
    this.#last = vbn;
    const cached = this.#io.cache.get(vbn, crc);
    if (cached !== undefined) return cached;
    if (slot >= 0 && slot < this.#count) return this.#checked(slot, pointer);
    return follows && this.#fill(vbn) ? this.#checked(0, pointer) : this.#io.read(pointer);
  }

  #checked(slot: number, pointer: Pointer): Uint8Array {
    this.#crcs[slot] ??= checksum(this.#blocks[slot]);
    return this.#crcs[slot] === pointer.crc ? this.#blocks[slot] : this.#io.read(pointer);
  }

  /** Reads blocks from `vbn` on. @returns Whether that could be done. */
  #fill(vbn: number): boolean {
    const { store } = this.#io;
    this.#count = 0;
    const count = Math.min(WINDOW_BLOCKS, store.capacity - vbn);
    if (count < 1) return false;
    const bytes = this.#bytes ??= new Uint8Array(WINDOW_BLOCKS * BLOCK_SIZE);
    try {
      store.read(vbn, bytes.subarray(0, count * BLOCK_SIZE));
    } catch (error) {
      // Alone, a block beside a bad one can be read.
      if (error instanceof VolcastError) return false;
      throw error;
    }
    for (let i = this.#blocks.length; i < WINDOW_BLOCKS; i++) {
      this.#blocks.push(bytes.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
    }
    this.#crcs.length = 0;
    this.#start = vbn;
    this.#count = count;
    return true;
  }
}
