/**
 * Staging: where the blocks of an image are kept that would come to lie on live ones.
 *
 * An increment since a shadow snapshot may hold VBNs that the base has too, because they were used
 * again since. Such a block is put into a free place (it is *staged*), and a map says so. The new root
 * becomes current with the map; readers of the old root go on without it. When they have ended, the
 * *replay* copies the staged blocks to their places, and the map goes. Source: WO 00/07104, master
 * shadow snapshots, where the destination is off-line meanwhile; with the map it is not.
 *
 * Invariants:
 * 1. A staged block lies in no plane: not the old root's, not the new one's, not that of a snapshot
 *    that is kept or read.
 * 2. Where it lies follows from the planes alone, so that a transfer that was cut finds it again.
 * 3. The map is durable before the root that needs it; it goes only after all blocks are in their
 *    places and durable. So the replay may be repeated.
 *
 * @module
 */

import {
  assert,
  damaged,
  forEachRunOfPage,
  intersection,
  PAGE_BITS,
  type Plane,
  popcount,
  VolcastError,
} from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checksum,
  decodeRemapBlock,
  encodeRemapBlock,
  type Extent,
  type Pointer,
  REMAP_ENTRIES,
  type RemapHead,
} from "../format/mod.ts";
import { type BlockStore, type Remap, RemappedStore } from "../store/mod.ts";
import { BlockCache, BlockIo } from "./block_io.ts";

/** Blocks that are copied at once. */
const COPY_BLOCKS = 256;

/** A volume as it will be, or is, with some blocks staged. */
export class StagedView {
  readonly io: BlockIo;
  readonly staging: Staging;
  readonly #view: RemappedStore;

  /** @param store Where the blocks lie, staged or not. */
  constructor(store: BlockStore, staging: Staging, cacheBytes: number) {
    this.staging = staging;
    this.#view = new RemappedStore(store, staging.remap);
    this.io = new BlockIo(this.#view, new BlockCache(cacheBytes));
  }

  /** All blocks are in their places; `io` goes on there. */
  settle(): void {
    this.#view.settle();
  }
}

/** Where staged blocks go, and the map of them. */
export interface Staging {
  readonly remap: Remap;
  /** VBNs for the blocks of the map; none any more once it is written. */
  readonly mapVbns: Uint32Array;
}

/**
 * Plans where the blocks of `received` that `live` has too are staged.
 *
 * @param taken Everything that must not be written: all planes that are kept, and `received` itself.
 * @returns `undefined` when no block has to be staged.
 * @throws {VolcastError} `full` when there are too few free blocks.
 */
export function planStaging(
  parts: { received: Plane; live: Plane; taken: Plane; data: Extent },
): Staging | undefined {
  const from = vbnsOf(intersection(parts.received, parts.live));
  if (from.length === 0) return undefined;
  const mapBlocks = Math.ceil(from.length / REMAP_ENTRIES);
  const places = freeVbns(parts.taken, parts.data, from.length + mapBlocks);
  if (places === undefined) {
    throw new VolcastError(
      "full",
      `Cannot stage the image: ${from.length} of its blocks would come to lie on blocks in use, and ` +
        `there are not ${from.length + mapBlocks} free ones to keep them in`,
      "Take a full image in its place, or make more room: let snapshots of this volume go",
    );
  }
  return {
    remap: { from, to: places.subarray(0, from.length) },
    mapVbns: places.subarray(from.length),
  };
}

/** Writes the map; not durable yet. @returns Where it begins. */
export function writeStaging(store: BlockStore, { remap, mapVbns }: Staging): RemapHead {
  let next: Pointer | undefined;
  // From the last block to the first, since each has the checksum of the next.
  for (let i = mapVbns.length - 1; i >= 0; i--) {
    const at = i * REMAP_ENTRIES;
    const block = encodeRemapBlock({
      from: remap.from.subarray(at, at + REMAP_ENTRIES),
      to: remap.to.subarray(at, at + REMAP_ENTRIES),
      next,
    });
    store.write(mapVbns[i], block);
    next = { vbn: mapVbns[i], crc: checksum(block) };
  }
  assert(next !== undefined, "something is staged");
  return { head: next, count: remap.from.length };
}

/**
 * Reads the map that a superblock names.
 * @throws {VolcastError} `damaged` when it is not as it was written.
 */
export function readStaging(io: BlockIo, { head, count }: RemapHead, data: Extent): Staging {
  const end = data.start + data.count;
  if (count > data.count) {
    throw damaged(`Cannot read the map of staged blocks: ${count} of ${data.count} blocks`);
  }
  const from = new Uint32Array(count);
  const to = new Uint32Array(count);
  let done = 0;
  for (let pointer: Pointer | undefined = head; pointer !== undefined;) {
    const block = decodeRemapBlock(io.read(pointer));
    const isEmpty = block.from.length === 0;
    if (isEmpty || done + block.from.length > count) {
      throw damaged(`Cannot read the map of staged blocks: it has not ${count} entries`);
    }
    from.set(block.from, done);
    to.set(block.to, done);
    done += block.from.length;
    pointer = block.next;
  }
  for (let i = 0; i < count; i++) {
    const isBelow = i > 0 && (from[i] <= from[i - 1] || to[i] <= to[i - 1]);
    if (isBelow || Math.min(from[i], to[i]) < data.start || Math.max(from[i], to[i]) >= end) {
      throw damaged(
        `Cannot read the map of staged blocks: VBN ${from[i]} cannot lie at VBN ${to[i]}`,
      );
    }
  }
  if (done !== count) {
    throw damaged(`Cannot read the map of staged blocks: ${done} of ${count} entries`);
  }
  return { remap: { from, to }, mapVbns: new Uint32Array(0) };
}

/** Copies staged blocks to their places, yielding now and then; not durable yet. May be repeated. */
export function* replaySteps(store: BlockStore, { from, to }: Remap): Generator<undefined> {
  const buffer = new Uint8Array(COPY_BLOCKS * BLOCK_SIZE);
  for (let i = 0; i < from.length;) {
    let count = 1;
    while (
      count < COPY_BLOCKS && from[i + count] === from[i] + count && to[i + count] === to[i] + count
    ) count++;
    const bytes = buffer.subarray(0, count * BLOCK_SIZE);
    store.read(to[i], bytes);
    store.write(from[i], bytes);
    i += count;
    yield undefined;
  }
}

/** All VBNs of a plane, ascending. */
function vbnsOf(plane: Plane): Uint32Array {
  const vbns = new Uint32Array(popcount(plane));
  let at = 0;
  for (const index of plane.pages()) {
    forEachRunOfPage(plane.page(index), (start, count) => {
      for (let i = 0; i < count; i++) vbns[at++] = index * PAGE_BITS + start + i;
    });
  }
  return vbns;
}

/** The first `count` VBNs of the data zone that `taken` does not have; `undefined` when there are fewer. */
function freeVbns(taken: Plane, data: Extent, count: number): Uint32Array | undefined {
  const vbns = new Uint32Array(count);
  const end = data.start + data.count;
  let at = 0;
  for (let index = 0; at < count && index < taken.pageCount; index++) {
    const used = taken.page(index);
    const limit = Math.min(PAGE_BITS, end - index * PAGE_BITS);
    const first = Math.max(0, data.start - index * PAGE_BITS);
    for (let bit = first; bit < limit && at < count; bit++) {
      if ((used[bit >>> 5] >>> (bit & 31) & 1) === 0) vbns[at++] = index * PAGE_BITS + bit;
    }
  }
  return at < count ? undefined : vbns;
}
