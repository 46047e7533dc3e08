/**
 * The checksums of an image's blocks, from the pointers to them: what is sent is checked like anything
 * else that is read (I1), so that a block that rotted on this disk is not passed on.
 *
 * A table covers a window of VBNs, so that memory stays bounded whatever the image's size; for each
 * window the metadata of the tops that lies in the image is walked once. A few tables are kept, since many
 * sites ask for one image at a time.
 *
 * @module
 */

import { assert, BitPlane, PAGE_BITS, pageCountOf, type Plane } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, FRAME_BLOCKS, type Pointer } from "../format/mod.ts";
import { type BlockIo, walkSteps } from "../volume/mod.ts";

/** VBNs of a window: 16 GiB of volume, a table of 16 MiB. */
const WINDOW_BLOCKS = 2 ** 22;
const MAX_TABLES = 4;

const tables = new Map<string, Uint32Array>();

/** Where the pointers to an image's blocks are. */
export interface ImagePointers {
  /** Equal for streams of the same image. */
  readonly name: string;
  /** Roots from which every block of the image is reached. */
  readonly roots: readonly Pointer[];
  /** Blocks below which there is none of the image. */
  readonly excluded?: Plane;
}

/** See the module. For one stream. */
export class Checksums {
  readonly #io: BlockIo;
  readonly #image: ImagePointers;
  readonly #windowBlocks: number;
  #window = -1;
  #table: Uint32Array = new Uint32Array(0);

  /**
   * @param windowBlocks VBNs of a window, a multiple of 256: no frame lies in two.
   */
  constructor(
    io: BlockIo,
    image: ImagePointers,
    windowBlocks: number = WINDOW_BLOCKS,
  ) {
    assert(windowBlocks % FRAME_BLOCKS === 0, `a window of ${windowBlocks} blocks`);
    this.#io = io;
    this.#image = image;
    this.#windowBlocks = windowBlocks;
  }

  /** Makes ready for the blocks from `vbn` to the end of its frame; yields to let others run. */
  *prepare(vbn: number): Generator<undefined> {
    const window = Math.floor(vbn / this.#windowBlocks);
    if (window === this.#window) return;
    const key = `${this.#image.name} ${window} ${this.#windowBlocks}`;
    let table = tables.get(key);
    if (table === undefined) {
      const first = window * this.#windowBlocks;
      const filled = new Uint32Array(Math.min(this.#windowBlocks, this.#io.store.capacity - first));
      yield* this.#fill(filled, first);
      table = filled;
      if (tables.size >= MAX_TABLES) tables.delete(tables.keys().next().value!);
      tables.set(key, table);
    }
    this.#window = window;
    this.#table = table;
  }

  /** Walks the image's metadata and notes the checksums of the blocks from VBN `first` on. */
  *#fill(table: Uint32Array, first: number): Generator<undefined> {
    const { roots, excluded } = this.#image;
    const isExcluded = excluded === undefined ? () => false : membership(excluded);
    // Of one root no block is reached twice; several share most of what they reach.
    const seen = roots.length === 1
      ? undefined
      : new BitPlane(pageCountOf(this.#io.store.capacity));
    let steps = 0;
    for (const root of roots) {
      const walk = walkSteps(this.#io, root, ({ vbn, crc }) => {
        if (isExcluded(vbn) || seen?.has(vbn)) return false;
        seen?.set(vbn);
        const at = vbn - first;
        if (at >= 0 && at < table.length) table[at] = crc;
        return true;
      });
      for (const _ of walk) if (++steps % 16_384 === 0) yield undefined;
    }
  }

  /**
   * Checks consecutive blocks of one frame, whose window is at hand.
   * @throws {VolcastError} `damaged`, naming the block.
   */
  check(vbn: number, blocks: Uint8Array): void {
    const first = vbn - this.#window * this.#windowBlocks;
    for (let at = 0; at < blocks.length; at += BLOCK_SIZE) {
      const expected = this.#table[first + at / BLOCK_SIZE];
      const found = checksum(blocks.subarray(at, at + BLOCK_SIZE));
      if (found === expected) continue;
      const pointer = { vbn: vbn + at / BLOCK_SIZE, crc: expected };
      this.#io.noted?.(pointer, this.#io);
      throw this.#io.mismatch(
        "Cannot send",
        pointer,
        found,
        "Run: volcast fsck. Sites can pull from another parent meanwhile",
      );
    }
  }
}

/** Whether a block is in a plane whose pages are computed when read: neighbours share a page. */
export function membership(plane: Plane): (vbn: number) => boolean {
  let index = -1;
  let page: Uint32Array;
  return (vbn) => {
    const wanted = Math.floor(vbn / PAGE_BITS);
    if (wanted !== index) {
      // A page that cannot be read leaves nothing behind.
      index = -1;
      page = plane.page(wanted);
      index = wanted;
    }
    return (page[(vbn % PAGE_BITS) >>> 5] >>> (vbn & 31) & 1) === 1;
  };
}
