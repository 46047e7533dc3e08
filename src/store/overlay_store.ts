/**
 * A block store of two: a base that is only read, and newer blocks that lie over it.
 *
 * Source: WO 00/07104, incremental mirrors.
 *
 * Invariant: the base is never written.
 *
 * @module
 */

import { assert, type VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import { type BlockStore, checkRun, type SparseStore } from "./block_store.ts";

/** See the module. */
export class OverlayStore implements SparseStore {
  readonly capacity: number;
  readonly #base: BlockStore;
  readonly #upper: SparseStore;

  /** @param upper What was written; it has as many blocks as `base`. Both are closed with this one. */
  constructor(base: BlockStore, upper: SparseStore) {
    assert(base.capacity === upper.capacity, `${base.capacity} blocks under ${upper.capacity}`);
    this.capacity = upper.capacity;
    this.#base = base;
    this.#upper = upper;
  }

  get readOnly(): VolcastError | undefined {
    return this.#upper.readOnly;
  }

  /** Whether a block lies over the base. */
  has(vbn: number): boolean {
    return this.#upper.has(vbn);
  }

  fileOf(vbn: number): string | undefined {
    return this.#upper.has(vbn) ? undefined : this.#base.fileOf?.(vbn);
  }

  read(vbn: number, target: Uint8Array): void {
    checkRun(this.capacity, vbn, target.length);
    const total = target.length / BLOCK_SIZE;
    for (let done = 0; done < total;) {
      const isNew = this.#upper.has(vbn + done);
      let count = 1;
      while (done + count < total && this.#upper.has(vbn + done + count) === isNew) count++;
      const part = target.subarray(done * BLOCK_SIZE, (done + count) * BLOCK_SIZE);
      (isNew ? this.#upper : this.#base).read(vbn + done, part);
      done += count;
    }
  }

  write(vbn: number, source: Uint8Array): void {
    this.#upper.write(vbn, source);
  }

  /** What lay over the base goes; the base's old blocks can be read there again. */
  discard(vbn: number, count: number): void {
    this.#upper.discard?.(vbn, count);
  }

  sync(): Promise<void> {
    return this.#upper.sync();
  }

  async retry(): Promise<void> {
    await this.#upper.retry?.();
  }

  close(): void {
    this.#base.close();
    this.#upper.close();
  }
}
