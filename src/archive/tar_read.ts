/**
 * Reading a tar archive as entries. What the keywords mean stands in `tar_values.ts`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { damaged, VolcastError } from "../core/mod.ts";
import { type Attributes, type TypeName } from "../format/mod.ts";
import { CHUNK_BYTES, quote, type TreeEntry } from "./entry.ts";
import {
  decodePax,
  decodeTarHeader,
  decodeText,
  encodeText,
  type PaxRecords,
  TAR_BLOCK,
  type TarHeader,
} from "./tar_header.ts";
import {
  AS_XATTR,
  CREATION,
  escape,
  makeDevice,
  unescape,
  XATTR,
  XATTR_BASE64,
} from "./tar_values.ts";

/** Most bytes of a pax header or a long name: extended attributes may have a MiB, and there is base64. */
const MAX_META_BYTES = 8 * 2 ** 20;
const TYPES: Readonly<Record<string, TypeName>> = {
  "\0": "file",
  "0": "file",
  "1": "file",
  "2": "symlink",
  "3": "charDevice",
  "4": "blockDevice",
  "5": "directory",
  "6": "fifo",
  "7": "file",
  // A directory of a GNU incremental archive; its body lists names.
  "D": "directory",
};
const NO_CONTENT = new Uint8Array(0);

/**
 * Reads an archive. The content of an entry must be read before the next entry is asked for; what was
 * not read is passed over.
 *
 * @throws {VolcastError} `damaged` (no archive, cut off), `usage` (a name that cannot be),
 *   `unsupported` (sparse members, parts of several volumes).
 */
export async function* entriesFromTar(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<TreeEntry> {
  const source = new BlockSource(stream);
  try {
    const global: PaxRecords = new Map();
    for (let member = await readMember(source, global); member !== undefined;) {
      const { entry, bodySize } = member;
      const body = new Body(source, bodySize, entry.path);
      yield bodySize > 0 && entry.type === "file" ? { ...entry, read: () => body.chunks() } : entry;
      await body.skip();
      member = await readMember(source, global);
    }
    // What fills up the last record of a tape is nothing to us, but its sender wants it taken.
    await source.drain();
  } finally {
    await source.cancel();
  }
}

interface Member {
  readonly entry: TreeEntry;
  readonly bodySize: number;
}

/** The next member, with what precedes it about it. */
async function readMember(source: BlockSource, global: PaxRecords): Promise<Member | undefined> {
  const records: PaxRecords = new Map(global);
  for (;;) {
    const block = await source.take(TAR_BLOCK);
    if (block === undefined) {
      throw damaged(
        "Cannot read the archive: it has no end",
        "It was cut off: send it again from the begin",
      );
    }
    const header = decodeTarHeader(block);
    if (header === undefined) return undefined;
    switch (header.typeflag) {
      case "x":
      case "X":
        for (const [key, value] of decodePax(await meta(source, header))) records.set(key, value);
        break;
      case "g":
        for (const [key, value] of decodePax(await meta(source, header))) {
          global.set(key, value);
          records.set(key, value);
        }
        break;
      case "L":
        records.set("path", untilNul(await meta(source, header)));
        break;
      case "K":
        records.set("linkpath", untilNul(await meta(source, header)));
        break;
      case "V":
        await meta(source, header);
        break;
      default:
        return memberOf(header, records);
    }
  }
}

async function meta(source: BlockSource, header: TarHeader): Promise<Uint8Array> {
  if (header.size > MAX_META_BYTES) {
    throw damaged(
      `Cannot read the archive: a header has ${header.size} bytes, the limit is ${MAX_META_BYTES}`,
    );
  }
  const body = await source.take(header.size);
  const padding = await source.take(-header.size & (TAR_BLOCK - 1));
  if (body === undefined || padding === undefined) {
    throw damaged("Cannot read the archive: it ends in a header");
  }
  return body;
}

function memberOf(header: TarHeader, records: PaxRecords): Member {
  const text = (key: string) => {
    const value = records.get(key);
    return value === undefined ? undefined : decodeText(value);
  };
  const rawPath = text("path") ?? decodeText(header.name);
  const path = cleanPath(rawPath);
  refuseSparse(header, records, path);
  const type = typeOf(header, text("VOLCAST.type"), rawPath);
  const number = (key: string, least: number, most: number) =>
    numberOf(text(key), { key, path, least, most });
  const size = number("size", 0, Number.MAX_SAFE_INTEGER) ?? header.size;
  const hasBody = type === "file" && header.typeflag !== "1" || header.typeflag === "D";
  const unchanged = type === "file" && text("VOLCAST.unchanged") === "1";
  const dos = number("VOLCAST.dos", 0, 2 ** 32 - 1) ?? 0;
  const link = text("linkpath") ?? decodeText(header.linkname);
  const atime = timeOf(text("atime"), path);
  const btime = timeOf(creationOf(records), path);
  const device = type === "charDevice" || type === "blockDevice";
  const entry: TreeEntry = {
    path,
    type,
    permissions: header.mode & 0o7777,
    uid: number("uid", 0, 2 ** 32 - 1) ?? header.uid,
    gid: number("gid", 0, 2 ** 32 - 1) ?? header.gid,
    mtime: timeOf(text("mtime"), path) ?? BigInt(header.mtime) * 1_000_000_000n,
    ...(atime === undefined ? {} : { atime }),
    ...(btime === undefined ? {} : { btime }),
    size: sizeOf(type, hasBody ? size : 0, link),
    dos,
    attributes: attributesOf(records, path),
    ...(device
      ? { rdev: number("VOLCAST.rdev", 0, Number.MAX_SAFE_INTEGER) ?? makeDevice(header) }
      : {}),
    ...(type === "symlink" ? { target: link } : {}),
    ...(header.typeflag === "1" ? { linkTo: cleanPath(link) } : {}),
  };
  if (!unchanged) return { entry, bodySize: hasBody ? size : 0 };
  const real = number("VOLCAST.size", 0, Number.MAX_SAFE_INTEGER) ?? 0;
  return { entry: { ...entry, size: real, unchanged: true }, bodySize: size };
}

function sizeOf(type: TypeName, size: number, link: string): number {
  if (type === "symlink") return encodeText(link).length;
  return type === "file" ? size : 0;
}

function typeOf(header: TarHeader, own: string | undefined, rawPath: string): TypeName {
  if (own === "socket") return "socket";
  const type = TYPES[header.typeflag];
  if (type === undefined) {
    throw new VolcastError(
      "unsupported",
      `Cannot read ${quote(rawPath)} from the archive: members of type ${
        JSON.stringify(header.typeflag)
      } are not known`,
      "Make the archive with: tar --format=pax",
    );
  }
  return type === "file" && header.typeflag !== "1" && rawPath.endsWith("/") ? "directory" : type;
}

function refuseSparse(header: TarHeader, records: PaxRecords, path: string): void {
  const sparse = header.typeflag === "S" ||
    [...records.keys()].some((key) => key.startsWith("GNU.sparse."));
  if (!sparse && header.typeflag !== "M") return;
  throw new VolcastError(
    "unsupported",
    `Cannot read ${quote(path)} from the archive: it is ${
      sparse ? "in GNU's format for sparse files" : "a part of a file of several archives"
    }`,
    sparse
      ? "Make the archive without --sparse; holes are found here in any case"
      : "Put the parts together first",
  );
}

/** A member's name without what says nothing. Where it leads is checked by who uses it. */
function cleanPath(name: string): string {
  const absolute = name.startsWith("/") ? "/" : "";
  return absolute + name.split("/").filter((part) => part !== "" && part !== ".").join("/");
}

function attributesOf(records: PaxRecords, path: string): Attributes {
  const xattrs = new Map<string, Uint8Array>();
  let securityDescriptor: Uint8Array | undefined;
  for (const [key, value] of records) {
    if (AS_XATTR.has(key)) xattrs.set(key, value);
    else if (key.startsWith(XATTR)) xattrs.set(unescape(key.slice(XATTR.length)), value);
    else if (key === "VOLCAST.sd") securityDescriptor = base64Of(value, path);
    else if (key.startsWith(XATTR_BASE64)) {
      const name = unescape(key.slice(XATTR_BASE64.length));
      if (!records.has(XATTR + escape(name))) xattrs.set(name, base64Of(value, path));
    }
  }
  return securityDescriptor === undefined ? { xattrs } : { xattrs, securityDescriptor };
}

function base64Of(value: Uint8Array, path: string): Uint8Array {
  const text = decodeText(value);
  if (!/^[A-Za-z0-9+/]*=*$/.test(text)) {
    throw damaged(`Cannot read ${quote(path)} from the archive: an attribute is no base64`);
  }
  return new Uint8Array(Buffer.from(text, "base64"));
}

function numberOf(
  text: string | undefined,
  is: { key: string; path: string; least: number; most: number },
): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (value >= is.least && value <= is.most) return value;
  throw damaged(`Cannot read ${quote(is.path)} from the archive: its ${is.key} is '${text}'`);
}

/** ns of a time in seconds, with any number of digits behind the point. */
function timeOf(text: string | undefined, path: string): bigint | undefined {
  if (text === undefined) return undefined;
  const match = /^(-?)(\d{1,12})(?:\.(\d*))?$/.exec(text);
  if (match === null) {
    throw damaged(`Cannot read ${quote(path)} from the archive: a time is '${text}'`);
  }
  const [, sign, seconds, fraction = ""] = match;
  const ns = BigInt(seconds + fraction.slice(0, 9).padEnd(9, "0"));
  return sign === "-" ? -ns : ns;
}

function creationOf(records: PaxRecords): string | undefined {
  const value = records.get("LIBARCHIVE.creationtime");
  if (value !== undefined) return decodeText(value);
  const comment = records.get("comment");
  // Others' comments may be anything.
  const text = comment === undefined ? "" : Buffer.from(comment).toString("latin1");
  return text.startsWith(CREATION) ? text.slice(CREATION.length) : undefined;
}

function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

/** The content of one member; knows what of it was not read yet. */
class Body {
  readonly #source: BlockSource;
  readonly #path: string;
  readonly #size: number;
  #left: number;

  constructor(source: BlockSource, size: number, path: string) {
    this.#source = source;
    this.#size = size;
    this.#left = size;
    this.#path = path;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    while (this.#left > 0) yield await this.#next();
  }

  /** Passes over what is left of the body, and what fills up its last block. */
  async skip(): Promise<void> {
    while (this.#left > 0) await this.#next();
    const padding = -this.#size & (TAR_BLOCK - 1);
    if (await this.#source.take(padding) === undefined) throw this.#cutOff();
  }

  async #next(): Promise<Uint8Array> {
    const chunk = await this.#source.take(Math.min(CHUNK_BYTES, this.#left));
    if (chunk === undefined) throw this.#cutOff();
    this.#left -= chunk.length;
    return chunk;
  }

  #cutOff(): VolcastError {
    return damaged(
      `Cannot read the archive: it ends within ${quote(this.#path)}`,
      "It was cut off: send it again from the begin",
    );
  }
}

/** Pieces of a wanted length from a stream with pieces of any. */
class BlockSource {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk: Uint8Array = NO_CONTENT;
  #done = false;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** Exactly `length` bytes; `undefined` when the stream ends before. */
  async take(length: number): Promise<Uint8Array | undefined> {
    if (length <= this.#chunk.length) return this.#cut(length);
    const whole = new Uint8Array(length);
    let filled = 0;
    for (;;) {
      const piece = this.#cut(Math.min(length - filled, this.#chunk.length));
      whole.set(piece, filled);
      filled += piece.length;
      if (filled === length) return whole;
      if (!await this.#fill()) return undefined;
    }
  }

  /** Reads to the end. */
  async drain(): Promise<void> {
    while (await this.#fill());
  }

  /** Gives the stream back; its sender is told if it is not at its end. */
  async cancel(): Promise<void> {
    if (!this.#done) await this.#reader.cancel().catch(() => {});
    this.#reader.releaseLock();
  }

  async #fill(): Promise<boolean> {
    const { done, value } = await this.#reader.read();
    this.#done = done;
    this.#chunk = value ?? NO_CONTENT;
    return !done;
  }

  #cut(length: number): Uint8Array {
    const piece = this.#chunk.subarray(0, length);
    this.#chunk = this.#chunk.subarray(length);
    return piece;
  }
}
