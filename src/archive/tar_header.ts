/**
 * The records of a tar archive: header blocks and pax records, and nothing of what they mean.
 *
 * Written by hand since the packages at hand lose data: values of pax records are bytes (a file
 * capability, for one), and both `modern-tar` and `tar-stream` decode them as UTF-8 and put U+FFFD
 * where they are none; the first also drops device numbers and takes sparse members for plain files.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";

/** Everything in an archive is in blocks of this many bytes. */
export const TAR_BLOCK = 512;
/** Greatest value of the 12-byte numbers in octal. */
const MAX_OCTAL_12 = 8 ** 11 - 1;
/** Greatest value of the 8-byte numbers in octal. */
const MAX_OCTAL_8 = 8 ** 7 - 1;

const encoder = new TextEncoder();
const USTAR: Uint8Array = encoder.encode("ustar");
const VERSION = encoder.encode("00");
const SLASH = encoder.encode("/");
const NEWLINE = encoder.encode("\n");
/** Up to here a loop is faster than a call of the host's codec. */
const SHORT_TEXT = 200;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Fields of a header block: `[offset, length]`. */
const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  typeflag: [156, 1],
  linkname: [157, 100],
  magic: [257, 8],
  devmajor: [329, 8],
  devminor: [337, 8],
  prefix: [345, 155],
} as const;

type Field = keyof typeof FIELD;

/** A header block. Names are bytes, as they may be no UTF-8. */
export interface TarHeader {
  readonly name: Uint8Array;
  readonly linkname: Uint8Array;
  /** One character. */
  readonly typeflag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of the body. */
  readonly size: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
  readonly devmajor: number;
  readonly devminor: number;
}

/** pax records by keyword. */
export type PaxRecords = Map<string, Uint8Array>;

/**
 * Reads a header block.
 *
 * @returns `undefined` for a block of zeros, which ends an archive.
 * @throws {VolcastError} `damaged` when it is no header.
 */
export function decodeTarHeader(block: Uint8Array): TarHeader | undefined {
  if (block[0] === 0 && block.every((byte) => byte === 0)) return undefined;
  if (octal(bytes(block, "checksum")) !== checksumOf(block)) {
    throw damaged(
      "Cannot read the archive: there is no header where one should be",
      hintFor(block),
    );
  }
  const [magic] = FIELD.magic;
  const isUstar = USTAR.every((byte, i) => block[magic + i] === byte);
  let name = text(block, "name");
  // GNU has its own fields where POSIX has the prefix, and a blank behind its magic.
  const prefix = isUstar && block[magic + USTAR.length] === 0 ? text(block, "prefix") : name;
  if (prefix !== name && prefix.length > 0) name = concat([prefix, SLASH, name]);
  return {
    name,
    linkname: text(block, "linkname"),
    typeflag: String.fromCharCode(block[FIELD.typeflag[0]]),
    mode: number(block, "mode"),
    uid: number(block, "uid"),
    gid: number(block, "gid"),
    size: number(block, "size"),
    mtime: number(block, "mtime"),
    devmajor: isUstar ? number(block, "devmajor") : 0,
    devminor: isUstar ? number(block, "devminor") : 0,
  };
}

/**
 * Writes a header block. What does not fit into it is cut off or left at zero: `overflow` says what,
 * and belongs into pax records.
 */
export function encodeTarHeader(header: TarHeader): { block: Uint8Array; overflow: Set<Field> } {
  const block = new Uint8Array(TAR_BLOCK);
  const overflow = new Set<Field>();
  const putText = (field: Field, value: Uint8Array) => {
    const [offset, length] = FIELD[field];
    if (value.length > length) overflow.add(field);
    block.set(value.subarray(0, length), offset);
  };
  const putNumber = (field: Field, value: number) => {
    const [offset, length] = FIELD[field];
    const fits = value >= 0 && value <= (length === 12 ? MAX_OCTAL_12 : MAX_OCTAL_8);
    if (!fits) overflow.add(field);
    let rest = fits ? value : 0;
    for (let i = offset + length - 2; i >= offset; i--) {
      block[i] = 48 + rest % 8;
      rest = Math.floor(rest / 8);
    }
  };
  putText("name", header.name);
  putText("linkname", header.linkname);
  putNumber("mode", header.mode);
  putNumber("uid", header.uid);
  putNumber("gid", header.gid);
  putNumber("size", header.size);
  putNumber("mtime", header.mtime);
  putNumber("devmajor", header.devmajor);
  putNumber("devminor", header.devminor);
  block[FIELD.typeflag[0]] = header.typeflag.charCodeAt(0);
  block.set(USTAR, FIELD.magic[0]);
  block.set(VERSION, FIELD.magic[0] + USTAR.length + 1);
  const sum = checksumOf(block).toString(8).padStart(6, "0");
  block.set(encodeText(`${sum}\0 `), FIELD.checksum[0]);
  return { block, overflow };
}

/** The body of a pax header: `length keyword=value\n`, the length counting itself. */
export function encodePax(records: PaxRecords): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [keyword, value] of records) {
    const key = encodeText(` ${keyword}=`);
    const rest = key.length + value.length + 1;
    let length = rest + String(rest).length;
    length = rest + String(length).length;
    parts.push(encodeText(String(length)), key, value, NEWLINE);
  }
  return concat(parts);
}

/** @throws {VolcastError} `damaged` when the body does not follow the grammar. */
export function decodePax(body: Uint8Array): PaxRecords {
  const records: PaxRecords = new Map();
  let at = 0;
  while (at < body.length && body[at] !== 0) {
    const space = body.indexOf(32, at);
    const length = space < 0 ? NaN : decimal(body, at, space);
    const end = at + length;
    const equals = space < 0 ? -1 : body.indexOf(61, space);
    if (
      !Number.isInteger(length) || end > body.length || body[end - 1] !== 10 || equals < 0 ||
      equals >= end
    ) {
      throw damaged("Cannot read the archive: a pax record does not follow its grammar");
    }
    records.set(decodeText(body.subarray(space + 1, equals)), body.slice(equals + 1, end - 1));
    at = end;
  }
  return records;
}

function decimal(bytes: Uint8Array, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i++) {
    if (bytes[i] < 48 || bytes[i] > 57) return NaN;
    value = value * 10 + bytes[i] - 48;
  }
  return value;
}

/** Text from an archive. @throws {VolcastError} `usage` when it is not UTF-8. */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.length <= SHORT_TEXT) {
    let text = "";
    let i = 0;
    while (i < bytes.length && bytes[i] < 128) text += String.fromCharCode(bytes[i++]);
    if (i === bytes.length) return text;
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw new VolcastError(
      "usage",
      `Cannot take the name ${JSON.stringify(new TextDecoder().decode(bytes))} from the archive: ` +
        "it is not UTF-8",
      "Rename the file where the archive is made",
    );
  }
}

/** Text for an archive, as UTF-8. */
export function encodeText(text: string): Uint8Array {
  if (text.length > SHORT_TEXT) return encoder.encode(text);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) return encoder.encode(text);
    bytes[i] = code;
  }
  return bytes;
}

function bytes(block: Uint8Array, field: Field): Uint8Array {
  const [offset, length] = FIELD[field];
  return block.subarray(offset, offset + length);
}

function text(block: Uint8Array, field: Field): Uint8Array {
  const value = bytes(block, field);
  const end = value.indexOf(0);
  return value.slice(0, end < 0 ? value.length : end);
}

/** A number in octal or, with the first bit set, in two's complement (GNU). */
function number(block: Uint8Array, field: Field): number {
  const value = bytes(block, field);
  if ((value[0] & 0x80) === 0) {
    const result = octal(value);
    if (result !== undefined) return result;
    throw damaged(`Cannot read the archive: ${field} of a header is no number`, hintFor(block));
  }
  // The first bit is the mark, the second the sign.
  let result = value[0] & 0x40 ? BigInt(value[0]) - 256n : BigInt(value[0] & 0x3f);
  for (const byte of value.subarray(1)) result = result * 256n + BigInt(byte);
  if (!Number.isSafeInteger(Number(result))) {
    throw damaged(`Cannot read the archive: ${field} of a header is ${result}`);
  }
  return Number(result);
}

/** Octal digits with blanks before and blanks or NULs behind; nothing is 0. */
function octal(value: Uint8Array): number | undefined {
  let i = 0;
  while (i < value.length && value[i] === 32) i++;
  let result = 0;
  for (; i < value.length && value[i] >= 48 && value[i] <= 55; i++) {
    result = result * 8 + value[i] - 48;
  }
  for (; i < value.length; i++) if (value[i] !== 0 && value[i] !== 32) return undefined;
  return result;
}

function checksumOf(block: Uint8Array): number {
  const [offset, length] = FIELD.checksum;
  let sum = length * 32;
  for (let i = 0; i < offset; i++) sum += block[i];
  for (let i = offset + length; i < TAR_BLOCK; i++) sum += block[i];
  return sum;
}

/** What to say about bytes that are no tar header. */
function hintFor(block: Uint8Array): string {
  const start = latin1(block.subarray(0, 6));
  const compressed: readonly [string, string][] = [
    ["\x1f\x8b", "gzip -d"],
    ["\x28\xb5\x2f\xfd", "zstd -d"],
    ["\xfd7zXZ", "xz -d"],
    ["BZh", "bzip2 -d"],
    ["PK\x03\x04", "unzip"],
  ];
  const found = compressed.find(([magic]) => start.startsWith(magic));
  if (found !== undefined) return `It is compressed: send it through '${found[1]}' first`;
  return "Check that it is a tar archive and came whole";
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** Byte strings one behind the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
