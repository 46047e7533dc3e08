/**
 * Extended attributes and the security descriptor of a file, as one byte string: an entry is
 * `u8 kind, u8 name length, u32 value length, name, value`; entries are sorted by kind and name, so
 * that equal attributes have equal bytes.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { compareBytes } from "./block.ts";
import { decodeName, encodeName, MAX_NAME_BYTES } from "./names.ts";

/** All extended attributes of a file may have this many bytes together. */
export const MAX_ATTRIBUTE_BYTES = 1024 * 1024;

const KIND_XATTR = 1;
const KIND_SECURITY = 2;
const ENTRY_HEADER = 6;

/** What a file has beside its inode. */
export interface Attributes {
  /** NFS: extended attributes by name, ACLs (`system.posix_acl_access`) among them. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
  /** CIFS: the security descriptor, as it came. */
  readonly securityDescriptor?: Uint8Array;
}

/** A file without any. */
export const NO_ATTRIBUTES: Attributes = { xattrs: new Map() };

/** Encodes attributes. @throws {VolcastError} `usage` when a name or the whole is too long. */
export function encodeAttributes(attributes: Attributes): Uint8Array {
  const entries: { kind: number; name: Uint8Array; value: Uint8Array }[] = [];
  for (const [name, value] of attributes.xattrs) {
    const bytes = encodeName(name);
    if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES) {
      throw new VolcastError(
        "usage",
        `Cannot keep the extended attribute '${name}': its name has ${bytes.length} bytes, the limit is ${MAX_NAME_BYTES}`,
      );
    }
    entries.push({ kind: KIND_XATTR, name: bytes, value });
  }
  if (attributes.securityDescriptor !== undefined) {
    entries.push({
      kind: KIND_SECURITY,
      name: new Uint8Array(0),
      value: attributes.securityDescriptor,
    });
  }
  entries.sort((a, b) => a.kind - b.kind || compareBytes(a.name, b.name));
  const size = entries.reduce((sum, e) => sum + ENTRY_HEADER + e.name.length + e.value.length, 0);
  if (size > MAX_ATTRIBUTE_BYTES) {
    throw new VolcastError(
      "usage",
      `Cannot keep extended attributes of ${size} bytes: the limit is ${MAX_ATTRIBUTE_BYTES}`,
    );
  }
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { kind, name, value } of entries) {
    view.setUint8(at, kind);
    view.setUint8(at + 1, name.length);
    view.setUint32(at + 2, value.length, true);
    bytes.set(name, at + ENTRY_HEADER);
    bytes.set(value, at + ENTRY_HEADER + name.length);
    at += ENTRY_HEADER + name.length + value.length;
  }
  return bytes;
}

/** Decodes attributes. @throws {VolcastError} `damaged` when the bytes do not follow the grammar. */
export function decodeAttributes(bytes: Uint8Array): Attributes {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const xattrs = new Map<string, Uint8Array>();
  let securityDescriptor: Uint8Array | undefined;
  let at = 0;
  while (at < bytes.length) {
    if (at + ENTRY_HEADER > bytes.length) throw damaged("Cannot read extended attributes: cut off");
    const kind = view.getUint8(at);
    const nameEnd = at + ENTRY_HEADER + view.getUint8(at + 1);
    const end = nameEnd + view.getUint32(at + 2, true);
    if (end > bytes.length) throw damaged("Cannot read extended attributes: an entry is cut off");
    const value = bytes.slice(nameEnd, end);
    if (kind === KIND_XATTR) {
      xattrs.set(decodeName(bytes.subarray(at + ENTRY_HEADER, nameEnd), "attributes"), value);
    } else if (kind === KIND_SECURITY) securityDescriptor = value;
    else throw damaged(`Cannot read extended attributes: entry of unknown kind ${kind}`);
    at = end;
  }
  return securityDescriptor === undefined ? { xattrs } : { xattrs, securityDescriptor };
}
