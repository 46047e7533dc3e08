/**
 * The batches that were sent last, for other streams of the same image: sites that are told of a release
 * pull it at the same moment, and what is read, checked and sealed for the first is the others' as well.
 *
 * Invariants:
 * 1. A batch is kept only when its blocks have been checked and its headers are made; nobody changes it.
 * 2. Nothing is kept unless several streams are under way, and no more than `MAX_BATCHES`.
 *
 * @module
 */

import type { Batch, PlannedBatch } from "./read_ahead.ts";

/** About a MiB each: what those that began together may be apart. */
const MAX_BATCHES = 6;

/** See the module. For one image. */
export class SharedBatches {
  readonly #batches = new Map<number, Batch>();
  #streams = 0;

  /** A stream begins. @returns Called once, when it has ended. */
  join(): () => void {
    this.#streams++;
    return () => {
      if (--this.#streams < 2) this.#batches.clear();
    };
  }

  /** The batch that another stream sent. */
  find({ runs, size, skip }: PlannedBatch): Batch | undefined {
    const kept = this.#batches.get(runs[0].number);
    // Batches begin elsewhere where a stream began elsewhere.
    const isSame = kept !== undefined && kept.frames.length === runs.length &&
      kept.bytes.length === size && kept.skip === skip;
    return isSame ? kept : undefined;
  }

  /** Keeps a batch that is ready to be sent. */
  keep(batch: Batch): void {
    if (this.#streams < 2) return;
    const { number } = batch.frames[0];
    this.#batches.delete(number);
    this.#batches.set(number, batch);
    if (this.#batches.size <= MAX_BATCHES) return;
    this.#batches.delete(this.#batches.keys().next().value!);
  }
}
