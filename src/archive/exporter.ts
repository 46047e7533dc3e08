/**
 * A file system as a sequence of entries.
 *
 * @module
 */

import { type FileSystem, SeenDirectories } from "../volume/mod.ts";
import { CHUNK_BYTES, splitPath, type TreeEntry } from "./entry.ts";

/**
 * Entries of a directory and all below it, in order of the directories, parents first; a file with
 * several names has its content with the first. `fs` must stay readable until the last one was used.
 *
 * @param path Where to begin; the paths of entries are relative to it. Anything but a directory is
 *   one entry with its name.
 * @throws {VolcastError} `not-found`.
 */
export function* treeEntries(fs: FileSystem, path = ""): Generator<TreeEntry> {
  const ino = fs.resolve(path);
  const state: State = {
    first: new Map(),
    seen: new SeenDirectories(),
    buffer: new Uint8Array(CHUNK_BYTES),
  };
  if (fs.stat(ino).type !== "directory") {
    yield entryOf(fs, ino, splitPath(path.replace(/\/+$/, "")).name, state);
    return;
  }
  yield entryOf(fs, ino, "", state);
  yield* below(fs, ino, "", state);
}

interface State {
  /** First names of the files that have more than one. */
  readonly first: Map<number, string>;
  readonly seen: SeenDirectories;
  /** All content goes through it: that of one entry is used before that of the next. */
  readonly buffer: Uint8Array;
}

function* below(
  fs: FileSystem,
  directory: number,
  prefix: string,
  state: State,
): Generator<TreeEntry> {
  state.seen.enter(directory, prefix);
  for (const { name, ino, type } of fs.list(directory)) {
    const path = prefix + name;
    yield entryOf(fs, ino, path, state);
    if (type === "directory") yield* below(fs, ino, `${path}/`, state);
  }
}

function entryOf(
  fs: FileSystem,
  ino: number,
  path: string,
  state: State,
): TreeEntry {
  const info = fs.stat(ino);
  const entry: TreeEntry = {
    path,
    type: info.type,
    permissions: info.mode & 0o7777,
    uid: info.uid,
    gid: info.gid,
    mtime: info.mtime,
    atime: info.atime,
    btime: info.btime,
    size: info.type === "directory" ? 0 : info.size,
    rdev: info.rdev,
    dos: info.dos,
    attributes: fs.attributes(ino),
  };
  if (info.nlink > 1 && info.type !== "directory") {
    const first = state.first.get(ino);
    if (first !== undefined) return { ...entry, linkTo: first };
    state.first.set(ino, path);
  }
  if (info.type === "symlink") return { ...entry, target: fs.readLink(ino) };
  if (info.type !== "file") return entry;
  return { ...entry, read: () => contentOf(fs, ino, { size: info.size, buffer: state.buffer }) };
}

function* contentOf(
  fs: FileSystem,
  ino: number,
  { size, buffer }: { size: number; buffer: Uint8Array },
): Generator<Uint8Array> {
  for (let at = 0; at < size; at += CHUNK_BYTES) {
    yield buffer.subarray(0, fs.read(ino, at, buffer));
  }
}
