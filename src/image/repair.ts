/**
 * Finding blocks that rotted, and putting right ones in their places.
 *
 * Blocks under a plane are bit-identical at every node (I4), so any node that holds the snapshot has the
 * right one. It is asked for just those blocks, by their VBNs.
 *
 * Invariants:
 * 1. Only a block that has the checksum which the pointer to it says is written, in the place that the
 *    pointer names: what is there afterwards is what was there when it was written first. So a block under
 *    a plane changes its bytes on the disk, never its meaning (I2).
 * 2. A crash leaves each block bad, good, or torn, which is bad: the next look finds it again.
 * 3. What lies below a bad block of metadata is looked at when that block is good again.
 *
 * @module
 */

import { BitPlane, PAGE_BITS, pageCountOf, type Plane, VolcastError } from "../core/mod.ts";
import { checksum, idOf, type Pointer } from "../format/mod.ts";
import {
  BlockCache,
  BlockIo,
  type BlockUse,
  ContentChecker,
  type Snapshot,
  type Volume,
  walkSteps,
} from "../volume/mod.ts";
import { ByteReader, CutError } from "./byte_reader.ts";
import { blocksOf, framesOf } from "./frame_reader.ts";
import { Image } from "./image.ts";
import { readIndex } from "./stream_index.ts";

/** A root that blocks are looked at from. */
export interface CheckedRoot {
  /** Id of the snapshot that it is the root of. */
  readonly id: string;
  readonly name: string;
  readonly root: Pointer;
}

/** A block that is not what the pointer to it says. */
export interface BadBlock extends Pointer {
  /** A snapshot under whose plane it lies, the first that was looked at. */
  readonly snapshot: CheckedRoot;
  readonly use: BlockUse;
  /** The inode it belongs to, 0: the inode file, or the root. */
  readonly ino: number;
}

/** All roots of a volume; those that others may hold too come first, the newest before older ones. */
export function rootsOf(volume: Volume): Snapshot[] {
  const roots = [...[...volume.keptSnapshots()].reverse(), volume.current, volume.active];
  return [...new Map(roots.map((root) => [root.id, root])).values()];
}

/** How far a look at a root is. */
export interface LookStep {
  /** Blocks looked at since the step before. */
  readonly blocks: number;
  /** The block of the inode file from which on a later look can go on. */
  readonly next: number;
}

/** What of a root is looked at. */
export interface LookOptions {
  /** Whether a block was looked at already, with all below it. */
  isKnown(vbn: number, use: BlockUse): boolean;
  /** Told of each bad block. */
  found(block: BadBlock): void;
  /** Block of the inode file to begin at; the first by default. */
  readonly from?: number;
}

/** Most blocks that are looked at in a step, about. */
const STEP_BLOCKS = 256;

/**
 * Looks at every block that a root reaches, as it lies on the disk; what lies below a bad one is not looked
 * at. The blocks of a step were compared when it is yielded.
 */
export function* lookAtRoot(
  store: BlockIo["store"],
  snapshot: CheckedRoot,
  { isKnown, found, from = 0 }: LookOptions,
): Generator<LookStep> {
  // What was read before says nothing of the disk, and what is read here is of no use to others.
  const io = new BlockIo(store, new BlockCache(0));
  const content = new ContentChecker(io, (vbn, error, { crc, ino }) => {
    if (!(error instanceof VolcastError)) throw error;
    found({ vbn, crc, snapshot, use: "content", ino });
  });
  let blocks = 0;
  let next = from;
  const visit = (pointer: Pointer, use: BlockUse, ino: number): boolean => {
    if (pointer.vbn >= store.capacity) {
      found({ ...pointer, snapshot, use, ino });
      return false;
    }
    if (isKnown(pointer.vbn, use)) return false;
    blocks++;
    if (use === "content") {
      content.add(pointer, ino);
      return true;
    }
    try {
      io.read(pointer);
      return true;
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
      found({ ...pointer, snapshot, use, ino });
      return false;
    }
  };
  for (const position of walkSteps(io, snapshot.root, visit, { from })) {
    next = position ?? next;
    if (blocks < STEP_BLOCKS) continue;
    content.flush();
    yield { blocks, next };
    blocks = 0;
  }
  content.flush();
  yield { blocks, next };
}

/**
 * Looks at every block that roots reach; those that several reach once.
 *
 * @returns Bad ones by VBN, when it has ended. Yields the number of blocks looked at since it yielded last.
 */
export function* badBlocks(
  store: BlockIo["store"],
  roots: readonly CheckedRoot[],
): Generator<number, Map<number, BadBlock>> {
  const bad = new Map<number, BadBlock>();
  const seen = new BitPlane(pageCountOf(store.capacity));
  const options: LookOptions = {
    isKnown: (vbn) => {
      const isKnown = seen.has(vbn);
      seen.set(vbn);
      return isKnown;
    },
    found: (block) => void bad.set(block.vbn, block),
  };
  for (const snapshot of roots) {
    for (const { blocks } of lookAtRoot(store, snapshot, options)) yield blocks;
  }
  return bad;
}

/** Chosen blocks of a snapshot, as a fragment. @param value How they are named in its URL. */
export function imageOfBlocks(
  volume: Volume,
  snapshot: Snapshot,
  blocks: Plane,
  value: string,
): Image {
  return new Image(volume, snapshot, undefined, {
    plane: blocks,
    fragment: true,
    query: { name: "blocks", value },
  });
}

/** Gives chosen blocks of a snapshot as {@linkcode imageOfBlocks} makes them. */
export type BlockSource = (
  snapshot: CheckedRoot,
  vbns: readonly number[],
) => Promise<ReadableStream<Uint8Array>>;

/** Where healed blocks go. */
export interface Patient {
  /** Puts a block back; `bytes` are what the pointer says. */
  heal(pointer: Pointer, bytes: Uint8Array): void;
  /** Makes that durable. */
  syncHealed(): Promise<void>;
  /** Told of a block that the source gave otherwise than the pointer says: it was not written. */
  refused?(vbn: number): void;
}

/** Most blocks that are asked for at once. */
const MAX_BLOCKS_ASKED = 256;

/**
 * Heals bad blocks from one source.
 *
 * @returns VBNs that are good again, durable.
 * @throws {VolcastError} `io` when the source cannot be reached; a write error of this volume's.
 */
export async function healFrom(
  patient: Patient,
  bad: readonly BadBlock[],
  source: BlockSource,
): Promise<number[]> {
  const healed: number[] = [];
  for (let at = 0; at < bad.length; at += MAX_BLOCKS_ASKED) {
    healed.push(...await healSome(patient, bad.slice(at, at + MAX_BLOCKS_ASKED), source));
  }
  return healed;
}

async function healSome(
  patient: Patient,
  bad: readonly BadBlock[],
  source: BlockSource,
): Promise<number[]> {
  const healed: number[] = [];
  const bySnapshot = Map.groupBy(bad, ({ snapshot }) => snapshot.id);
  for (const blocks of bySnapshot.values()) {
    const wanted = new Map(blocks.map((block) => [block.vbn, block]));
    try {
      for await (const [vbn, bytes] of fetched(blocks, source)) {
        const pointer = wanted.get(vbn);
        if (pointer === undefined || checksum(bytes) !== pointer.crc) {
          patient.refused?.(vbn);
          continue;
        }
        patient.heal(pointer, bytes);
        healed.push(vbn);
      }
    } catch (error) {
      // The snapshot, or none of the blocks in its plane.
      const hasNot = error instanceof VolcastError && ["not-found", "usage"].includes(error.kind);
      const broke = error instanceof CutError ||
        (error instanceof VolcastError && error.kind === "damaged");
      if (!hasNot && !broke) throw error;
      // One of these blocks may be bad there too, which ends the stream: one by one, then.
      if (broke && blocks.length > 1) {
        for (const block of blocks) {
          if (!healed.includes(block.vbn)) healed.push(...await healSome(patient, [block], source));
        }
      }
    }
  }
  if (healed.length > 0) await patient.syncHealed();
  return healed;
}

async function* fetched(
  blocks: readonly BadBlock[],
  source: BlockSource,
): AsyncGenerator<[number, Uint8Array]> {
  const [{ snapshot }] = blocks;
  const vbns = blocks.map(({ vbn }) => vbn).sort((a, b) => a - b);
  const reader = new ByteReader(await source(snapshot, vbns));
  try {
    const { plane } = await readIndex(reader, ({ header }) => {
      if (idOf(header.top) === snapshot.id && header.blockCount <= vbns.length) return;
      throw new VolcastError("damaged", `Cannot heal from this: it is of ${idOf(header.top)}`);
    });
    for await (const frame of framesOf(reader, plane)) {
      for (const [vbn, block] of blocksOf(frame)) yield [vbn, block.slice()];
    }
  } finally {
    await reader.cancel();
  }
}

/** VBNs as a list of numbers and ranges, `5,7-9`; they are in order. */
export function listOfBlocks(vbns: readonly number[]): string {
  const runs: string[] = [];
  for (let i = 0; i < vbns.length;) {
    let j = i;
    while (j + 1 < vbns.length && vbns[j + 1] === vbns[j] + 1) j++;
    runs.push(i === j ? `${vbns[i]}` : `${vbns[i]}-${vbns[j]}`);
    i = j + 1;
  }
  return runs.join(",");
}

/**
 * The plane of a list of blocks, as far as they are a snapshot's.
 * @throws {VolcastError} `usage` for one that is no such list, or has none of its blocks.
 */
export function blocksOfList(volume: Volume, snapshot: Snapshot, list: string): BitPlane {
  const plane = volume.plane(snapshot);
  const blocks = new BitPlane(plane.pageCount);
  let count = 0;
  for (const part of list.split(",")) {
    const [first, last = first] = part.split("-").map(Number);
    for (let vbn = first; vbn <= last && count < MAX_BLOCKS_ASKED; vbn++) {
      const page = plane.page(Math.floor(vbn / PAGE_BITS));
      if ((page[(vbn % PAGE_BITS) >>> 5] >>> (vbn & 31) & 1) === 0) continue;
      blocks.set(vbn);
      count++;
    }
  }
  if (count > 0) return blocks;
  throw new VolcastError(
    "usage",
    `Cannot find the blocks ${
      list.slice(0, 100)
    } in '${snapshot.name}': its plane has none of them`,
  );
}
