/**
 * A root with what it lists: snapshots and pointers. What cannot be read so cannot be opened, and must never
 * come into force.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import {
  decodePointers,
  decodeSnapshots,
  INO,
  type PointerRecord,
  type Root,
  type SnapshotRecord,
} from "../format/mod.ts";
import type { FileSystem } from "./file_system.ts";
import { readAll } from "./live_file_system.ts";

/** See the module. */
export interface ListedRoot {
  readonly root: Root;
  readonly snapshots: SnapshotRecord[];
  readonly pointers: PointerRecord[];
}

/**
 * Reads what a root lists.
 *
 * @param fs Its file system.
 * @param of Volume and CP that are told of it elsewhere.
 * @param what What cannot be done when it is not so, for the message.
 * @throws {VolcastError} `damaged`.
 */
export function readListedRoot(
  fs: FileSystem,
  { volumeId, cp }: { volumeId: string; cp: number },
  what: string,
): ListedRoot {
  const { root } = fs;
  if (root.volumeId !== volumeId || root.cp !== cp) {
    throw damaged(
      `Cannot ${what}: the root says volume ${root.volumeId} and CP ${root.cp}, what points at it ` +
        `${volumeId} and ${cp}`,
    );
  }
  const snapshots = decodeSnapshots(readAll(fs, INO.snapshots));
  const odd = snapshots.find((one) => one.cp === 0 || one.cp > root.cp);
  if (odd !== undefined) {
    throw damaged(`Cannot ${what}: its root of CP ${root.cp} lists '${odd.name}' of CP ${odd.cp}`);
  }
  return { root, snapshots, pointers: decodePointers(readAll(fs, INO.pointers)) };
}
