/**
 * What lies under a volume: numbered blocks that can be read, written and made durable.
 *
 * @module
 */

/** Bytes of a block, as the formats have it too. */
export const BLOCK_SIZE = 4096;

/**
 * A block store. Reads and writes are synchronous, since one cursor serves them all (`Deno.FsFile`
 * has no positional read) and a pair of seek and read must not be interrupted; making durable is
 * asynchronous, since it takes milliseconds in which readers go on.
 */
export interface BlockStore {
  /** Number of blocks. */
  readonly capacity: number;
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
  /** Gives the store back. Nothing is made durable by it. */
  close(): void;
}
