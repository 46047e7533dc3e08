/**
 * Trees as tar archives: POSIX pax with the keywords that GNU tar, star and libarchive use, so that
 * every attribute goes both ways.
 *
 * | pax keyword | is |
 * |---|---|
 * | `mtime`, `atime` | times in seconds, with as many digits as ns need |
 * | `comment` | `LIBARCHIVE.creationtime=` and a time, since GNU tar warns of each record it does not know; `LIBARCHIVE.creationtime` itself is read too |
 * | `SCHILY.xattr.NAME` | an extended attribute, as bytes; `%` and `=` of the name as `%25`, `%3D` |
 * | `LIBARCHIVE.xattr.NAME` | the same in base64; read where the other is absent |
 * | `SCHILY.acl.access`, `SCHILY.acl.default`, `RHT.security.selinux` | kept as given, as extended attributes of these names |
 * | `VOLCAST.dos`, `VOLCAST.sd` | DOS attribute bits; security descriptor in base64 |
 * | `VOLCAST.type`, `VOLCAST.rdev` | what tar has no type or no room for: sockets, large device numbers |
 * | `VOLCAST.unchanged`, `VOLCAST.size` | a file the receiver has already, and its size; no body |
 *
 * An archive says everything about its files: what it has no extended attributes for has none.
 *
 * @module
 */

import type { TreeEntry } from "./entry.ts";

/** Begins the comment that says the creation time. */
export const CREATION = "LIBARCHIVE.creationtime=";
/** Begins the keyword of an extended attribute. */
export const XATTR = "SCHILY.xattr.";
/** Begins the keyword of one in base64. */
export const XATTR_BASE64 = "LIBARCHIVE.xattr.";
/** Records kept as extended attributes under their own keyword. */
export const AS_XATTR: ReadonlySet<string> = new Set([
  "SCHILY.acl.access",
  "SCHILY.acl.default",
  "RHT.security.selinux",
]);

/** Whether a text fits a header field as it is. */
export function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 126) return false;
  return true;
}

/** Whole seconds, rounded down. */
export function floorSeconds(ns: bigint): bigint {
  const whole = ns / 1_000_000_000n;
  return ns % 1_000_000_000n < 0n ? whole - 1n : whole;
}

/** Seconds with as many digits as the ns need. */
export function seconds(ns: bigint): string {
  const magnitude = ns < 0n ? -ns : ns;
  const fraction = String(magnitude % 1_000_000_000n).padStart(9, "0").replace(/0+$/, "");
  return `${ns < 0n ? "-" : ""}${magnitude / 1_000_000_000n}${
    fraction === "" ? "" : `.${fraction}`
  }`;
}

/** Major and minor number as Linux puts them into a device number. */
export function splitDevice(
  { rdev = 0 }: TreeEntry,
): { major: number; minor: number; exact: boolean } {
  const value = BigInt(rdev);
  const major = Number((value >> 8n & 0xfffn) | (value >> 32n & 0xfffff000n));
  const minor = Number((value & 0xffn) | (value >> 12n & 0xffffff00n));
  const header = { devmajor: major, devminor: minor };
  // Octal numbers of seven digits hold 21 bits.
  const exact = major < 2 ** 21 && minor < 2 ** 21 && makeDevice(header) === rdev;
  return exact ? { major, minor, exact } : { major: 0, minor: 0, exact };
}

/** A device number from major and minor. */
export function makeDevice({ devmajor, devminor }: { devmajor: number; devminor: number }): number {
  const major = BigInt(devmajor);
  const minor = BigInt(devminor);
  return Number(
    (minor & 0xffn) | (major & 0xfffn) << 8n | (minor & ~0xffn) << 12n | (major & ~0xfffn) << 32n,
  );
}

/** A name as a part of a pax keyword. */
export function escape(name: string): string {
  return name.replaceAll("%", "%25").replaceAll("=", "%3D");
}

/** The name in a pax keyword. */
export function unescape(name: string): string {
  return name.replace(/%3[dD]/g, "=").replaceAll("%25", "%");
}
