/**
 * What is asked of an import, and what it says it did.
 *
 * @module
 */

import type { Skipped } from "./entry.ts";

/** How a tree is imported. */
export interface ImportOptions {
  /** Directory of the volume that is the top; made if missing. The root by default. */
  readonly into?: string;
  /** Removes what is below the top and not in the tree. */
  readonly prune?: boolean;
  /** Compares content even where size and mtime are equal. */
  readonly checksum?: boolean;
  /** Called now and then. */
  readonly progress?: (done: { entries: number; bytes: number }) => void;
}

/** What an import did. The names in the tree are `unchanged + created + changed`. */
export interface ImportReport {
  files: number;
  directories: number;
  symlinks: number;
  /** Further names of files. */
  hardLinks: number;
  /** Devices, fifos, sockets. */
  others: number;
  /** Content that was read from the source. */
  bytesRead: number;
  unchanged: number;
  created: number;
  changed: number;
  /** Names that were removed, to prune or to make place for another type. */
  removed: number;
  /** What could not be read, the first hundred. */
  skipped: readonly Skipped[];
  skippedCount: number;
}
