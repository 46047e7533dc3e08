/**
 * Names of files and of snapshots: what is allowed, and text to bytes and back.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { smallBytes } from "./small_bytes.ts";

/** Bytes a name may have, of a file as of a snapshot. */
export const MAX_NAME_BYTES = 255;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A name as UTF-8. */
export function encodeName(name: string): Uint8Array {
  const { length } = name;
  if (length > MAX_NAME_BYTES) return encoder.encode(name);
  // Most names are ASCII: to ask the host takes ten times as long as this loop.
  const bytes = smallBytes(length);
  for (let i = 0; i < length; i++) {
    const code = name.charCodeAt(i);
    if (code > 0x7f) return encoder.encode(name);
    bytes[i] = code;
  }
  return bytes;
}

/** UTF-8 as a name. @throws {VolcastError} `damaged` when the bytes of `where` are not UTF-8. */
export function decodeName(bytes: Uint8Array, where: string): string {
  if (bytes.length <= MAX_NAME_BYTES && isAscii(bytes)) {
    return String.fromCharCode.apply(null, bytes as unknown as number[]);
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw damaged(`Cannot read a name in ${where}: its bytes are not UTF-8`);
  }
}

function isAscii(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] > 0x7f) return false;
  return true;
}

/**
 * Checks the name of a directory entry that lies on disk. What {@linkcode checkFileName} refuses is not
 * there by anybody's wish: whoever lists it would make a path of it that leads elsewhere.
 *
 * @throws {VolcastError} `damaged`.
 */
export function checkStoredName(name: string): void {
  const isPath = name === "" || name === "." || name === ".." || name.includes("/") ||
    name.includes("\0");
  if (!isPath) return;
  throw damaged(
    `Cannot read a directory: an entry in it is called ${JSON.stringify(name)}`,
    "Run: volcast fsck",
  );
}

/**
 * Checks the name of a directory entry.
 *
 * @throws {VolcastError} `usage`, naming the rule that was broken.
 */
export function checkFileName(name: string): Uint8Array {
  const bytes = encodeName(name);
  const refuse = (reason: string): never => {
    const shown = JSON.stringify(name.length > 80 ? name.slice(0, 77) + "..." : name);
    throw new VolcastError("usage", `Cannot use the file name ${shown}: ${reason}`);
  };
  if (bytes.length === 0) refuse("it is empty");
  if (bytes.length > MAX_NAME_BYTES) {
    refuse(`it has ${bytes.length} bytes, the limit is ${MAX_NAME_BYTES}`);
  }
  if (name === "." || name === "..") refuse("it means a directory itself or its parent");
  if (name.includes("/")) refuse("it contains '/'");
  if (name.includes("\0")) refuse("it contains a NUL byte");
  // A decoder puts U+FFFD where the bytes were no UTF-8, and an encoder where half a surrogate pair
  // stood; the true name cannot be known any more.
  if (name.includes("\ufffd") || !name.isWellFormed()) refuse("it is not valid UTF-8");
  return bytes;
}

/** What a snapshot's or a pointer's or a site's name may look like; the same text stands in URLs and expressions. */
export const LABEL_PATTERN: RegExp = /^[\p{L}\p{N}_][\p{L}\p{N}_.:@-]*$/u;

/**
 * The name of a snapshot or a pointer as it lies on disk or comes in a stream: it stands in URLs, in names
 * of files and on terminals, so it is of the allowed form or none at all.
 *
 * @throws {VolcastError} `damaged`, naming `where`.
 */
export function decodeLabel(bytes: Uint8Array, where: string): string {
  const name = decodeName(bytes, where);
  checkStoredLabel(name, where);
  return name;
}

/** Checks the name of a snapshot or a pointer that was read: see {@linkcode decodeLabel}. */
export function checkStoredLabel(name: string, where: string): void {
  if (LABEL_PATTERN.test(name)) return;
  throw damaged(
    `Cannot read ${where}: ${JSON.stringify(name)} is the name of no snapshot or pointer`,
  );
}

/**
 * Checks the name of a snapshot, a pointer or a site.
 *
 * @throws {VolcastError} `usage`, naming the rule that was broken.
 */
export function checkLabel(what: string, name: string): string {
  const refuse = (reason: string): never => {
    throw new VolcastError(
      "usage",
      `Cannot use ${JSON.stringify(name.slice(0, 80))} as the name of a ${what}: ${reason}`,
      "Use letters, digits and _ . : @ - , starting with a letter, a digit or _",
    );
  };
  const byteCount = encoder.encode(name).length;
  if (byteCount > MAX_NAME_BYTES) {
    refuse(`it has ${byteCount} bytes, the limit is ${MAX_NAME_BYTES}`);
  }
  if (!LABEL_PATTERN.test(name)) {
    refuse("it has a character that is not allowed there, or is empty");
  }
  if (/^[0-9]+-[0-9a-f]{8}$/.test(name)) refuse("it has the form of a snapshot id");
  if (name === "full" || name === "active") refuse("the word has a meaning of its own");
  return name;
}
