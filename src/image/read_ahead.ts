/**
 * Reading the frames of an image in batches, each about a chunk of the stream. From a store that lies on
 * several devices a few batches are read at once, in the order of the stream: since units of a stripe
 * are as long as frames, that keeps all members busy. Any other store is read one batch after the other,
 * when it is wanted.
 *
 * Invariants:
 * 1. Batches come out in order, whatever the order in which they were read.
 * 2. At most `WINDOW` batches are under way or wait to be taken: who takes slowly is not overrun.
 * 3. Nothing is read behind the byte that was asked for.
 *
 * @module
 */

import type { Plane, Run } from "../core/mod.ts";
import { BLOCK_SIZE, FRAME_LAYOUT } from "../format/mod.ts";
import type { BlockIo } from "../volume/mod.ts";
import { framesOfPage, type PageCounts } from "./frames.ts";

/** About the size of a batch. */
const BATCH_BYTES = 1024 * 1024;
/** Batches that are read at once. */
const WINDOW = 8;

type Store = BlockIo["store"];

/** A frame with its place in a batch. */
export interface BatchFrame {
  readonly run: Run;
  /** Number of the frame in the image. */
  readonly number: number;
  /** The frame's bytes, header and blocks. */
  readonly bytes: Uint8Array;
}

/** Frames that follow each other, before anything is read. */
export interface PlannedBatch {
  readonly runs: readonly { readonly run: Run; readonly number: number }[];
  /** Bytes of all of them. */
  readonly size: number;
  /** Bytes to be skipped of the first. */
  readonly skip: number;
}

/** Frames that follow each other. Their blocks are read. */
export interface Batch {
  readonly frames: readonly BatchFrame[];
  /** All of them, and what was asked to be skipped of the first. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes to be skipped. */
  readonly skip: number;
  /** Whether another stream has checked the blocks, and made the headers. */
  readonly isSealed: boolean;
}

/** Which frames of an image are wanted. */
export interface Wanted {
  readonly plane: Plane;
  readonly pages: readonly PageCounts[];
  /** Bytes of frames, from the first on, between which batches lie; all by default. */
  readonly from?: number;
  readonly to?: number;
  /** Leaves frames out, by number. */
  readonly isWanted?: (number: number) => boolean;
  /** Where batches of other streams may be found: only where no frame is left out. */
  readonly find?: (planned: PlannedBatch) => Batch | undefined;
}

/** See the module. One for each stream. */
export class ReadAhead {
  readonly #store: Store;
  #underWay: Promise<unknown>[] = [];

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * The wanted frames, in batches. A promise in between is to be waited for before the next step.
   * @throws {VolcastError} `io`.
   */
  *batches(wanted: Wanted): Generator<Batch | Promise<void>> {
    const store = this.#store;
    const window: { batch: Batch; done: Promise<void> | undefined }[] = [];
    const most = store.readParallel === undefined ? 1 : WINDOW;
    const planned = planBatches(wanted);
    for (;;) {
      while (window.length < most) {
        const next = planned.next();
        if (next.done) break;
        window.push(this.#read(next.value, wanted));
      }
      const first = window.shift();
      if (first === undefined) return;
      if (first.done !== undefined) yield first.done;
      yield first.batch;
    }
  }

  /** A batch, and what is to be waited for until it is read. */
  #read(
    planned: PlannedBatch,
    { find }: Wanted,
  ): { batch: Batch; done: Promise<void> | undefined } {
    const store = this.#store;
    const known = find?.(planned);
    if (known !== undefined) return { batch: known, done: undefined };
    const batch = batchOf(planned);
    const parts = partsOf(batch);
    if (store.readParallel !== undefined) {
      const done = store.readParallel(parts);
      this.#follow(done);
      return { batch, done };
    }
    for (const { vbn, target } of parts) store.read(vbn, target);
    return { batch, done: undefined };
  }

  /** Waits until nothing is read any more: to be called when the stream ends early. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /** One that fails is told when its turn comes, or to nobody if the stream ends before. */
  #follow(done: Promise<void>): void {
    this.#underWay.push(done);
    const end = () => {
      this.#underWay = this.#underWay.filter((other) => other !== done);
    };
    done.then(end, end);
  }
}

function partsOf({ frames }: Batch): { vbn: number; target: Uint8Array }[] {
  return frames.map(({ run, bytes }) => ({
    vbn: run.start,
    target: bytes.subarray(FRAME_LAYOUT.size),
  }));
}

function* planBatches(
  { plane, pages, from = 0, to = Infinity, isWanted = () => true }: Wanted,
): Generator<PlannedBatch> {
  let runs: { run: Run; number: number }[] = [];
  let size = 0;
  let skip = 0;
  /** Where the frame at hand begins. */
  let position = 0;
  let number = 0;
  const batch = (): PlannedBatch => {
    const made = { runs, size, skip };
    runs = [];
    size = skip = 0;
    return made;
  };
  for (const { index, blocks, frames } of pages) {
    if (position >= to) break;
    const pageBytes = frames * FRAME_LAYOUT.size + blocks * BLOCK_SIZE;
    if (position + pageBytes <= from) {
      position += pageBytes;
      number += frames;
      continue;
    }
    for (const run of framesOfPage(plane, index)) {
      const length = lengthOf(run);
      const isIn = position < to && position + length > from && isWanted(number);
      if (isIn && size + length > BATCH_BYTES + FRAME_LAYOUT.size && runs.length > 0) yield batch();
      if (isIn) {
        if (runs.length === 0) skip = Math.max(0, from - position);
        runs.push({ run, number });
        size += length;
      }
      position += length;
      number++;
    }
  }
  if (runs.length > 0) yield batch();
}

function batchOf({ runs, size, skip }: PlannedBatch): Batch {
  const bytes = new Uint8Array(size);
  let at = 0;
  const frames = runs.map(({ run, number }) => {
    const frame = { run, number, bytes: bytes.subarray(at, at + lengthOf(run)) };
    at += frame.bytes.length;
    return frame;
  });
  return { frames, bytes, skip, isSealed: false };
}

function lengthOf(run: Run): number {
  return FRAME_LAYOUT.size + run.count * BLOCK_SIZE;
}
