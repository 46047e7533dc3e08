/**
 * What lies under a volume: numbered blocks that can be read, written and made durable.
 *
 * @module
 */

import { assert, type VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";

/**
 * A block store. Reads and writes are synchronous, since one cursor serves them all (`Deno.FsFile`
 * has no positional read) and a pair of seek and read must not be interrupted; making durable is
 * asynchronous, since it takes milliseconds in which readers go on.
 */
export interface BlockStore {
  /** Number of blocks. */
  readonly capacity: number;
  /** Why it can only be read; absent where it can be written. */
  readonly readOnly?: VolcastError | undefined;
  /**
   * Reads consecutive blocks from `vbn` on until `target` is full; its length is a multiple of 4096.
   * Blocks never written read as zeros.
   * @throws {VolcastError} `io` when the host fails.
   */
  read(vbn: number, target: Uint8Array): void;
  /**
   * Writes consecutive blocks from `vbn` on; the length is a multiple of 4096. Durable only after
   * `sync`.
   * @throws {VolcastError} `io` or `full` when the host fails.
   */
  write(vbn: number, source: Uint8Array): void;
  /** Makes everything written before the call durable. @throws {VolcastError} `io`. */
  sync(): Promise<void>;
  /**
   * Says that nobody needs `count` blocks from `vbn` on any more: a store that gives room to what is
   * written only can use the room again. Reads of them give zeros or old data from now on.
   */
  discard?(vbn: number, count: number): void;
  /**
   * Reads several runs of blocks at once, where that is faster: they lie on several devices. The
   * targets belong to the store until the promise settles. What is written meanwhile to the blocks that
   * are read may be in them, or not.
   * @throws {VolcastError} `io`; then no read is under way any more.
   */
  readParallel?(parts: readonly ReadPart[]): Promise<void>;
  /** The file that a block is read from, where that is not the store's own: for messages. */
  fileOf?(vbn: number): string | undefined;
  /**
   * Takes writes again after one that failed, or after a failed sync. What was written since the last
   * sync may be there or not, as after a crash: the caller goes on from what was durable then. Absent in
   * stores that do not hold on to a failure.
   * @throws {VolcastError} Why it still cannot be written.
   */
  retry?(): Promise<void>;
  /** Gives the store back. Nothing is made durable by it. */
  close(): void;
}

/** A run of blocks to read: as in {@linkcode BlockStore.read}. */
export interface ReadPart {
  readonly vbn: number;
  readonly target: Uint8Array;
}

/** A store that knows which blocks were written to it. */
export interface SparseStore extends BlockStore {
  /** Whether a block was written and not discarded since. */
  has(vbn: number): boolean;
}

/** A run within a store, in bytes of whole blocks. @throws {Error} When it is not. */
export function checkRun(capacity: number, vbn: number, byteCount: number): void {
  assert(byteCount % BLOCK_SIZE === 0, `${byteCount} bytes are not whole blocks`);
  assert(
    vbn >= 0 && vbn + byteCount / BLOCK_SIZE <= capacity,
    `VBN ${vbn} and ${byteCount} bytes of ${capacity} blocks`,
  );
}
