/**
 * A block store that gathers neighbouring writes into large ones: the allocator gives consecutive
 * VBNs, and one write of 1 MiB costs a fraction of 256 writes of 4 KiB.
 *
 * Invariants:
 * 1. What was written is what is read, gathered or not.
 * 2. `sync` hands everything gathered down first.
 * 3. After the first failed write or sync nothing is taken or handed down any more: what was gathered
 *    then is lost, and a sync that succeeds later would say that it is durable.
 *
 * @module
 */

import { assert, messageOf, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, type BlockStore } from "./block_store.ts";

const GATHER_BLOCKS = 256;

/** See the module. */
export class GatheringStore implements BlockStore {
  readonly #under: BlockStore;
  readonly #buffer = new Uint8Array(GATHER_BLOCKS * BLOCK_SIZE);
  #start = 0;
  #count = 0;
  #failure: VolcastError | undefined;

  constructor(under: BlockStore) {
    this.#under = under;
  }

  get capacity(): number {
    return this.#under.capacity;
  }

  /** The first error of a write or a sync, if there was one. */
  get failure(): VolcastError | undefined {
    return this.#failure;
  }

  read(vbn: number, target: Uint8Array): void {
    const count = target.length / BLOCK_SIZE;
    if (this.#count > 0 && vbn < this.#start + this.#count && this.#start < vbn + count) {
      this.flush();
    }
    this.#under.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#checkHealth();
    const count = source.length / BLOCK_SIZE;
    assert(Number.isInteger(count), `${source.length} bytes are not whole blocks`);
    assert(vbn >= 0 && vbn + count <= this.capacity, `VBN ${vbn} and ${count} blocks`);
    const follows = this.#count > 0 && vbn === this.#start + this.#count;
    if (!follows || this.#count + count > GATHER_BLOCKS) this.flush();
    if (count >= GATHER_BLOCKS) {
      this.#handDown(vbn, source);
      return;
    }
    if (this.#count === 0) this.#start = vbn;
    this.#buffer.set(source, this.#count * BLOCK_SIZE);
    this.#count += count;
  }

  /** Hands what is gathered down. */
  flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#buffer.subarray(0, this.#count * BLOCK_SIZE);
    this.#count = 0;
    this.#handDown(this.#start, bytes);
  }

  async sync(): Promise<void> {
    this.flush();
    this.#checkHealth();
    try {
      await this.#under.sync();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  close(): void {
    this.#under.close();
  }

  #handDown(vbn: number, bytes: Uint8Array): void {
    this.#checkHealth();
    try {
      this.#under.write(vbn, bytes);
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #checkHealth(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: unknown): VolcastError {
    return this.#failure ??= error instanceof VolcastError
      ? error
      : new VolcastError("io", `Cannot write: ${messageOf(error)}`, "", { cause: error });
  }
}
