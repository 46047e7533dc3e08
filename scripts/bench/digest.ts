/**
 * What a tree holds, to compare it with what it should hold: names, types, permissions, times, content.
 * Trees of the host and of volumes are looked at alike.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { treeEntries, type TreeEntry } from "../../src/archive/mod.ts";
import { hostEntries } from "../../src/cli/host_read.ts";
import { openVolumeFile } from "../../src/volume/mod.ts";

const NS_PER_MS = 1_000_000n;

/** Text of each file, link and directory, by path. */
export type TreeDigest = ReadonlyMap<string, string>;

/** How much of a tree is compared: `content` leaves permissions and times out. */
export type Extent = "all" | "content";

/** Digest of a directory of the host. */
export function digestOfDirectory(directory: string, extent: Extent = "all"): TreeDigest {
  return digestOf(hostEntries(directory), extent);
}

/** Digest of the master of a volume that no process has open. */
export async function digestOfVolume(path: string): Promise<TreeDigest> {
  const volume = openVolumeFile(path);
  try {
    const { fs, release } = volume.view("master");
    const digest = digestOf(treeEntries(fs), "all");
    release();
    return digest;
  } finally {
    await volume.close();
  }
}

function digestOf(entries: Iterable<TreeEntry>, extent: Extent): TreeDigest {
  const digest = new Map<string, string>();
  for (const entry of entries) {
    if (entry.path === "") continue;
    digest.set(entry.path, textOf(entry, extent, digest));
  }
  return digest;
}

function textOf(entry: TreeEntry, extent: Extent, digest: TreeDigest): string {
  if (entry.linkTo !== undefined) return digest.get(entry.linkTo) ?? `link to ${entry.linkTo}`;
  const parts: (string | number)[] = [entry.type];
  if (extent === "all") parts.push(entry.permissions);
  if (entry.type === "symlink") parts.push(entry.target ?? "");
  if (entry.type !== "file") return parts.join(" ");
  if (extent === "all") parts.push(Number(entry.mtime / NS_PER_MS));
  let sum = 0;
  let bytes = 0;
  for (const chunk of entry.read!() as Iterable<Uint8Array>) {
    sum = crc32(chunk, sum);
    bytes += chunk.length;
  }
  return [...parts, bytes, sum].join(" ");
}

/**
 * Compares what is there with what should be.
 * @throws {Error} naming a path that differs.
 */
export function assertSame(actual: TreeDigest, expected: TreeDigest): void {
  for (const [path, text] of expected) {
    const found = actual.get(path);
    if (found !== text) {
      throw new Error(`'${path}' is ${found ?? "not there"}, it should be ${text}`);
    }
  }
  if (actual.size === expected.size) return;
  const extra = [...actual.keys()].find((path) => !expected.has(path));
  throw new Error(`'${extra}' should not be there`);
}
