/**
 * A whole file system as text, so that two can be compared and a difference can be read.
 *
 * @module
 */

import { checksum } from "../../src/format/mod.ts";
import type { FileSystem } from "../../src/volume/mod.ts";

const BLOCK_SIZE = 4096;

/** What a description says of content: the size, and each block that is not all zeros. */
export class ContentDigest {
  #crcs: number[] = [];

  /** Takes block `index`; the last one of a file filled up with zeros. */
  add(index: number, block: Uint8Array): void {
    if (block.some((byte) => byte !== 0)) this.#crcs.push(index, checksum(block));
  }

  /** Equal for equal content. */
  toString(): string {
    return checksum(new Uint8Array(new Uint32Array(this.#crcs).buffer)).toString(16);
  }
}

/** Extended attributes as text. */
export function describeAttributes(
  attributes: { xattrs: ReadonlyMap<string, Uint8Array>; securityDescriptor?: Uint8Array },
): string {
  const parts = [...attributes.xattrs].sort(([a], [b]) => a < b ? -1 : 1)
    .map(([name, value]) => `${name}=${value.length}:${checksum(value).toString(16)}`);
  if (attributes.securityDescriptor !== undefined) {
    parts.push(`sd=${checksum(attributes.securityDescriptor).toString(16)}`);
  }
  return parts.join(",");
}

/**
 * A line for every name, in order.
 *
 * @param options.all Also what a model does not know: inode numbers, times, versions.
 */
export function describe(fs: FileSystem, options: { all?: boolean } = {}): string[] {
  const lines: string[] = [];
  const firstNames = new Map<number, string>();
  const walk = (ino: number, path: string) => {
    const info = fs.stat(ino);
    const known = firstNames.get(ino);
    firstNames.set(ino, known ?? path);
    const fields: (string | number | bigint)[] = [
      path,
      info.type,
      (info.mode & 0o7777).toString(8),
      info.uid,
      info.gid,
      info.nlink,
      info.dos,
    ];
    if (info.type !== "directory") fields.push(info.size);
    if (known !== undefined) fields.push(`same as ${known}`);
    else if (info.type === "file") fields.push(contentOf(fs, ino));
    else if (info.type === "symlink") fields.push(`-> ${fs.readLink(ino)}`);
    fields.push(describeAttributes(fs.attributes(ino)));
    if (options.all) {
      fields.push(ino, info.atime, info.mtime, info.ctime, info.btime, info.rdev);
      fields.push(info.generation, info.version, info.size);
    }
    lines.push(fields.join(" "));
    if (info.type !== "directory") return;
    for (const entry of fs.list(ino)) walk(entry.ino, `${path}/${entry.name}`);
  };
  walk(fs.resolve("/"), "");
  return lines;
}

function contentOf(fs: FileSystem, ino: number): string {
  const { inode, tree } = fs.open(ino);
  const digest = new ContentDigest();
  const block = new Uint8Array(BLOCK_SIZE);
  for (let index = 0; index * BLOCK_SIZE < inode.size; index++) {
    // A hole of gigabytes is not read.
    if (tree.height > 0 && tree.pointer(index).vbn === 0) continue;
    block.fill(0);
    fs.read(ino, index * BLOCK_SIZE, block);
    digest.add(index, block);
    if (tree.height === 0) break;
  }
  return digest.toString();
}
