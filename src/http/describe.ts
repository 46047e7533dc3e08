/**
 * Things as JSON.
 *
 * @module
 */

import type { FileInfo, FileSystem, Snapshot, Volume } from "../volume/mod.ts";

/** A snapshot as JSON. */
export function snapshotJson(volume: Volume, snapshot: Snapshot): Record<string, unknown> {
  return {
    id: snapshot.id,
    name: snapshot.name,
    cp: snapshot.cp,
    time: isoTime(snapshot.time),
    blocks: snapshot.blockCount,
    bytes: snapshot.blockCount * 4096,
    pointers: volume.pointers()
      .filter((pointer) => pointer.snapshot === snapshot.id)
      .map((pointer) => pointer.name),
  };
}

/** What is known of a file as JSON; times are ns since 1970 in decimal. */
export function fileJson(
  fs: FileSystem,
  info: FileInfo,
  at: { path: string; name: string },
): Record<string, unknown> {
  const { atime, mtime, ctime, btime, ...rest } = info;
  const { xattrs } = fs.attributes(info.ino);
  return {
    path: at.path,
    name: at.name,
    ...rest,
    atime: String(atime),
    mtime: String(mtime),
    ctime: String(ctime),
    btime: String(btime),
    ...(info.type === "symlink" ? { target: fs.readLink(info.ino) } : {}),
    ...(xattrs.size === 0 ? {} : {
      xattrs: Object.fromEntries(
        [...xattrs].map(([name, value]) => [name, btoa(String.fromCharCode(...value))]),
      ),
    }),
  };
}

/** Nanoseconds since 1970 as ISO 8601. */
export function isoTime(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}
