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

/** Frames that follow each other. Their blocks are read, their headers are not made yet. */
export interface Batch {
  readonly frames: readonly BatchFrame[];
  /** All of them, and what was asked to be skipped of the first. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes to be skipped. */
  readonly skip: number;
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
    const planned = planBatches(wanted);
    const store = this.#store;
    if (store.readParallel === undefined) {
      for (const batch of planned) {
        for (const part of partsOf(batch)) store.read(part.vbn, part.target);
        yield batch;
      }
      return;
    }
    const window: { batch: Batch; done: Promise<void> }[] = [];
    for (;;) {
      while (window.length < WINDOW) {
        const next = planned.next();
        if (next.done) break;
        const done = store.readParallel(partsOf(next.value));
        this.#follow(done);
        window.push({ batch: next.value, done });
      }
      const first = window.shift();
      if (first === undefined) return;
      yield first.done;
      yield first.batch;
    }
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
): Generator<Batch> {
  let runs: { run: Run; number: number }[] = [];
  let size = 0;
  let skip = 0;
  /** Where the frame at hand begins. */
  let position = 0;
  let number = 0;
  const batch = (): Batch => {
    const made = batchOf(runs, size, skip);
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

function batchOf(runs: readonly { run: Run; number: number }[], size: number, skip: number): Batch {
  const bytes = new Uint8Array(size);
  let at = 0;
  const frames = runs.map(({ run, number }) => {
    const frame = { run, number, bytes: bytes.subarray(at, at + lengthOf(run)) };
    at += frame.bytes.length;
    return frame;
  });
  return { frames, bytes, skip };
}

function lengthOf(run: Run): number {
  return FRAME_LAYOUT.size + run.count * BLOCK_SIZE;
}
