/**
 * A block store that gathers neighbouring writes into large ones: the allocator gives consecutive
 * VBNs, and one write of 1 MiB costs a fraction of 256 writes of 4 KiB.
 *
 * Invariants:
 * 1. What was written is what is read, gathered or not.
 * 2. `sync` hands everything gathered down first.
 * 3. After the first failed write or sync nothing is taken or handed down until `retry`: what was gathered
 *    then is lost, and a sync that succeeds later would say that it is durable.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import { type BlockStore, checkRun } from "./block_store.ts";

const GATHER_BLOCKS = 256;

/** See the module. */
export class GatheringStore implements BlockStore {
  readonly #under: BlockStore;
  readonly #buffer = new Uint8Array(GATHER_BLOCKS * BLOCK_SIZE);
  #start = 0;
  #count = 0;
  #failure: VolcastError | undefined;
  /** The write that failed, where it was one. */
  #failed: { readonly vbn: number; readonly bytes: Uint8Array } | undefined;
  /** There where the store below has it. */
  readonly discard?: NonNullable<BlockStore["discard"]>;
  /** There where the store below has it. */
  readonly readParallel?: NonNullable<BlockStore["readParallel"]>;

  constructor(under: BlockStore) {
    this.#under = under;
    if (under.discard !== undefined) {
      this.discard = (vbn, count) => {
        this.#flushRun(vbn, count);
        this.#checkHealth();
        under.discard!(vbn, count);
      };
    }
    if (under.readParallel !== undefined) {
      this.readParallel = (parts) => {
        for (const { vbn, target } of parts) this.#flushRun(vbn, target.length / BLOCK_SIZE);
        return under.readParallel!(parts);
      };
    }
  }

  get capacity(): number {
    return this.#under.capacity;
  }

  fileOf(vbn: number): string | undefined {
    return this.#under.fileOf?.(vbn);
  }

  get readOnly(): VolcastError | undefined {
    return this.#under.readOnly;
  }

  /** The first error of a write or a sync, if there was one. */
  get failure(): VolcastError | undefined {
    return this.#failure;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#flushRun(vbn, target.length / BLOCK_SIZE);
    this.#under.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#checkHealth();
    checkRun(this.capacity, vbn, source.length);
    const count = source.length / BLOCK_SIZE;
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

  /**
   * Does what failed again, and takes writes again when that succeeds: so it is known that there is room.
   * Nothing was written since, so the blocks go where they were to go then.
   */
  async retry(): Promise<void> {
    if (this.#failure === undefined) return;
    this.#count = 0;
    try {
      await this.#under.retry?.();
      if (this.#failed !== undefined) this.#under.write(this.#failed.vbn, this.#failed.bytes);
      await this.#under.sync();
    } catch (error) {
      this.#failure = undefined;
      throw this.#fail(error);
    }
    this.#failure = undefined;
    this.#failed = undefined;
  }

  close(): void {
    this.#under.close();
  }

  /** Hands what is gathered down if a part of it lies in a run. */
  #flushRun(vbn: number, count: number): void {
    if (this.#count > 0 && vbn < this.#start + this.#count && this.#start < vbn + count) {
      this.flush();
    }
  }

  #handDown(vbn: number, bytes: Uint8Array): void {
    this.#checkHealth();
    try {
      this.#under.write(vbn, bytes);
    } catch (error) {
      this.#failed = { vbn, bytes: bytes.slice() };
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
