/**
 * Writing entries as a tar archive. What the keywords mean stands in `tar_values.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { VolcastError } from "../core/mod.ts";
import { type TypeName } from "../format/mod.ts";
import { type Content, quote, type TreeEntry, UnreadableEntry } from "./entry.ts";
import {
  concat,
  encodePax,
  encodeTarHeader,
  encodeText,
  type PaxRecords,
  TAR_BLOCK,
} from "./tar_header.ts";
import {
  AS_XATTR,
  CREATION,
  escape,
  floorSeconds,
  isAscii,
  seconds,
  splitDevice,
  XATTR,
} from "./tar_values.ts";

const TYPEFLAGS: Readonly<Record<TypeName, string>> = {
  file: "0",
  symlink: "2",
  charDevice: "3",
  blockDevice: "4",
  directory: "5",
  fifo: "6",
  // tar has no sockets: others get an empty file.
  socket: "0",
};
const NO_CONTENT = new Uint8Array(0);

/**
 * Writes an archive. Works only when pulled; entries that turn out to be unreadable are left out (who
 * made them knows of it).
 *
 * @param options.signal Ends the stream with its reason.
 */
export function tarFromEntries(
  entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>,
  options: { signal?: AbortSignal } = {},
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunks = tarChunks(entries, options.signal);
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel(): Promise<void> {
      await chunks.return(undefined);
    },
  }, { highWaterMark: 1 });
}

/** Small pieces are gathered into chunks of this many bytes. */
const GATHER_BYTES = 2 ** 18;

async function* tarChunks(
  entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
  let buffer = new Uint8Array(GATHER_BYTES);
  let filled = 0;
  for await (const piece of tarPieces(entries)) {
    for (let at = 0; at < piece.length;) {
      const part = piece.subarray(at, at + GATHER_BYTES - filled);
      buffer.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < GATHER_BYTES) continue;
      signal?.throwIfAborted();
      yield buffer;
      buffer = new Uint8Array(GATHER_BYTES);
      filled = 0;
    }
  }
  signal?.throwIfAborted();
  yield buffer.subarray(0, filled);
}

async function* tarPieces(
  entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>,
): AsyncGenerator<Uint8Array> {
  for await (const entry of entries) {
    if (entry.type !== "file" || entry.linkTo !== undefined || entry.unchanged) {
      yield headerOf(entry);
      continue;
    }
    let content: Iterator<Uint8Array> | AsyncIterator<Uint8Array>;
    let next: IteratorResult<Uint8Array>;
    try {
      // Read before the header is written: a file that cannot be read has none.
      content = iteratorOf(entry.read?.() ?? []);
      next = await content.next();
    } catch (error) {
      if (error instanceof UnreadableEntry) continue;
      throw error;
    }
    yield headerOf(entry);
    let size = 0;
    try {
      for (; !next.done && size <= entry.size; next = await content.next()) {
        size += next.value.length;
        yield next.value;
      }
    } finally {
      await content.return?.();
    }
    if (size !== entry.size) throw changedWhileRead(entry, size);
    yield new Uint8Array(-size & (TAR_BLOCK - 1));
  }
  yield new Uint8Array(2 * TAR_BLOCK);
}

function changedWhileRead(entry: TreeEntry, size: number): VolcastError {
  return new VolcastError(
    "io",
    `Cannot archive ${quote(entry.path)}: ${size} bytes were read, ${entry.size} were announced`,
    "It was changed while it was read: run the command again",
  );
}

function iteratorOf(content: Content): AsyncIterator<Uint8Array> | Iterator<Uint8Array> {
  return Symbol.asyncIterator in content
    ? content[Symbol.asyncIterator]()
    : content[Symbol.iterator]();
}

/** Header blocks of an entry, a pax header before it where needed. */
function headerOf(entry: TreeEntry): Uint8Array {
  const records: PaxRecords = new Map();
  const put = (key: string, value: string | Uint8Array) => {
    records.set(key, typeof value === "string" ? encodeText(value) : value);
  };
  const path = entry.path === ""
    ? "./"
    : entry.type === "directory"
    ? `${entry.path}/`
    : entry.path;
  const link = entry.linkTo ?? entry.target ?? "";
  const size = entry.type === "file" && entry.linkTo === undefined && !entry.unchanged
    ? entry.size
    : 0;
  const { major, minor } = splitDevice(entry);
  const { block, overflow } = encodeTarHeader({
    name: encodeText(path),
    linkname: encodeText(link),
    typeflag: entry.linkTo === undefined ? TYPEFLAGS[entry.type] : "1",
    mode: entry.permissions,
    uid: entry.uid,
    gid: entry.gid,
    size,
    mtime: Number(floorSeconds(entry.mtime)),
    devmajor: major,
    devminor: minor,
  });
  // Names beyond ASCII have a defined encoding in pax records only.
  if (overflow.has("name") || !isAscii(path)) put("path", path);
  if (overflow.has("linkname") || !isAscii(link)) put("linkpath", link);
  if (overflow.has("uid")) put("uid", String(entry.uid));
  if (overflow.has("gid")) put("gid", String(entry.gid));
  if (overflow.has("size")) put("size", String(size));
  if (overflow.has("mtime") || entry.mtime % 1_000_000_000n !== 0n) {
    put("mtime", seconds(entry.mtime));
  }
  if (entry.linkTo === undefined) putAttributes(entry, put);
  if (records.size === 0) return block;
  const body = encodePax(records);
  return concat([
    paxHeader(path, body.length),
    body,
    new Uint8Array(-body.length & (TAR_BLOCK - 1)),
    block,
  ]);
}

function putAttributes(
  entry: TreeEntry,
  put: (key: string, value: string | Uint8Array) => void,
): void {
  if (entry.atime !== undefined) put("atime", seconds(entry.atime));
  if (entry.btime !== undefined) put("comment", CREATION + seconds(entry.btime));
  for (const [name, value] of entry.attributes?.xattrs ?? []) {
    put(AS_XATTR.has(name) ? name : XATTR + escape(name), value);
  }
  const descriptor = entry.attributes?.securityDescriptor;
  if (descriptor !== undefined) put("VOLCAST.sd", Buffer.from(descriptor).toString("base64"));
  if (entry.dos) put("VOLCAST.dos", String(entry.dos));
  if (entry.type === "socket") put("VOLCAST.type", "socket");
  const { exact } = splitDevice(entry);
  if (!exact) put("VOLCAST.rdev", String(entry.rdev));
  if (entry.unchanged) {
    put("VOLCAST.unchanged", "1");
    put("VOLCAST.size", String(entry.size));
  }
}

function paxHeader(path: string, size: number): Uint8Array {
  const name = encodeText(`PaxHeaders/${path}`).subarray(0, 100);
  return encodeTarHeader({
    // Nobody reads it, but it should not end within a character.
    name: name.map((byte) => byte < 128 ? byte : 95),
    linkname: NO_CONTENT,
    typeflag: "x",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size,
    mtime: 0,
    devmajor: 0,
    devminor: 0,
  }).block;
}
