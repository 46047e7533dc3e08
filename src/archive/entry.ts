/**
 * A file on its way into a volume or out of it: what a host directory, a tar archive and a file
 * system have in common.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { type Attributes, checkFileName, type TypeName } from "../format/mod.ts";

/** Content is handed over in pieces of this many bytes; the last one may be short. */
export const CHUNK_BYTES: number = 2 ** 20;

/** Directories within directories: what walks a tree goes as deep as the tree. A host's path ends sooner. */
export const MAX_DEPTH = 2048;

/** Content in pieces, at once or as it comes. A piece is valid until the next one is asked for. */
export type Content = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** One name of a tree. Times are ns since 1970. */
export interface TreeEntry {
  /** `/` between names, none at the begin; empty for the top directory itself. */
  readonly path: string;
  readonly type: TypeName;
  /** The 12 permission bits. */
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: bigint;
  readonly atime?: bigint;
  readonly btime?: bigint;
  /** Bytes of content; of a symbolic link, of its target. */
  readonly size: number;
  /** Target of a symbolic link. */
  readonly target?: string;
  /** A further name of an earlier entry: its path. What else the entry says is that entry's. */
  readonly linkTo?: string;
  /** Number of a device. */
  readonly rdev?: number;
  /** DOS attribute bits; absent when nothing is known of them. */
  readonly dos?: number;
  /** Extended attributes and security descriptor; absent when nothing is known of them. */
  readonly attributes?: Attributes;
  /** The sender knows that the volume has this file with this size and mtime: no content follows. */
  readonly unchanged?: true;
  /**
   * The content of a file. Called once at most, and before the next entry is asked for.
   * @throws {UnreadableEntry} From the call or before the first piece.
   */
  readonly read?: () => Content;
}

/** A file that cannot be read, for a reason that says nothing about the files beside it. */
export class UnreadableEntry extends Error {
  /** @param reason Without the path, which its receiver knows. */
  constructor(reason: string) {
    super(reason);
    this.name = "UnreadableEntry";
  }
}

/** Something that was left out, and why. */
export interface Skipped {
  readonly path: string;
  readonly reason: string;
}

/** What was left out: all are counted, the first hundred kept. */
export class SkipList {
  readonly items: Skipped[] = [];
  count = 0;

  /** Notes one. */
  add(path: string, reason: string): void {
    if (this.count++ < 100) this.items.push({ path, reason });
  }
}

/**
 * Checks the path of an entry that comes from outside.
 *
 * @throws {VolcastError} `usage` for everything that could lead anywhere but below the top.
 */
export function checkEntryPath(path: string): void {
  if (path === "") return;
  const refuse = (reason: string): never => {
    throw new VolcastError(
      "usage",
      `Cannot take the entry ${quote(path)}: ${reason}`,
      "Use names relative to the top of the tree, without '..'",
    );
  };
  if (path.startsWith("/")) refuse("its path is absolute");
  if (!path.isWellFormed()) refuse("its name is no valid Unicode");
  const names = path.split("/");
  if (names.length > MAX_DEPTH) {
    refuse(`it lies ${names.length} levels deep, the limit is ${MAX_DEPTH}`);
  }
  for (const name of names) {
    try {
      checkFileName(name);
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
      refuse(error.message.slice(error.message.lastIndexOf('": ') + 3));
    }
  }
}

/** A path for a message: on one line, whatever its bytes are. */
export function quote(path: string): string {
  return JSON.stringify(path.length > 200 ? `${path.slice(0, 197)}...` : path);
}

/** The directory part and the last name of a path. */
export function splitPath(path: string): { parent: string; name: string } {
  const at = path.lastIndexOf("/");
  return { parent: at < 0 ? "" : path.slice(0, at), name: path.slice(at + 1) };
}
