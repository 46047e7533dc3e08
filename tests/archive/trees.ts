/**
 * Random trees and their edits, as a plain model: what a volume must be after an import.
 *
 * @module
 */

import fc from "fast-check";
import { treeEntries, type TreeEntry } from "../../src/archive/mod.ts";
import type { Attributes } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type FileSystem, Volume } from "../../src/volume/mod.ts";

/** A file of the model; two names with one node are hard links. */
export interface Node {
  type: "file" | "directory" | "symlink" | "fifo" | "charDevice";
  content: Uint8Array;
  target: string;
  permissions: number;
  uid: number;
  mtime: bigint;
  dos: number;
  xattrs: Map<string, Uint8Array>;
}

/** Nodes by path. */
export type Tree = Map<string, Node>;

/** One edit of a tree. Edits that do not fit the tree do nothing. */
export interface Edit {
  path: string;
  what:
    | "file"
    | "touch"
    | "chmod"
    | "directory"
    | "symlink"
    | "special"
    | "link"
    | "remove"
    | "xattr";
  other: string;
  size: number;
  seed: number;
}

const PATHS = [
  "a",
  "b",
  "c",
  "d",
  "d/a",
  "d/b",
  "d/c",
  "d/e",
  "d/e/a",
  "d/e/b",
  "z",
  "z/a",
  "ü/ß",
  "ü",
];
const SIZES = [0, 1, 127, 128, 129, 4095, 4096, 4097, 9000, 70_000];

/** Edits over a few names, so that they meet. */
export const EDITS: fc.Arbitrary<Edit[]> = fc.array(
  fc.record({
    path: fc.constantFrom(...PATHS),
    what: fc.constantFrom<Edit["what"][]>(
      "file",
      "file",
      "touch",
      "chmod",
      "directory",
      "directory",
      "symlink",
      "special",
      "link",
      "link",
      "remove",
      "xattr",
    ),
    other: fc.constantFrom(...PATHS),
    size: fc.constantFrom(...SIZES),
    seed: fc.nat(250),
  }),
  { maxLength: 40 },
);

let clock = 1_700_000_000_000_000_000n;

/** The tree after some edits; the tree given stays as it is. */
export function edited(tree: Tree, edits: readonly Edit[]): Tree {
  const next: Tree = new Map();
  const copies = new Map<Node, Node>();
  for (const [path, node] of tree) {
    let copy = copies.get(node);
    if (copy === undefined) copies.set(node, copy = { ...node, xattrs: new Map(node.xattrs) });
    next.set(path, copy);
  }
  if (!next.has("")) next.set("", newNode("directory"));
  for (const edit of edits) apply(next, edit);
  return next;
}

function apply(tree: Tree, { path, what, other, size, seed }: Edit): void {
  const parent = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
  const node = tree.get(path);
  if (tree.get(parent)?.type !== "directory") return;
  const clear = () => {
    for (const known of [...tree.keys()]) {
      if (known === path || known.startsWith(`${path}/`)) tree.delete(known);
    }
  };
  clock += 1_000_001n;
  switch (what) {
    case "file": {
      const isNew = node?.type !== "file" || seed % 3 === 0;
      const file = isNew ? newNode("file") : node;
      if (isNew) clear();
      file.content = contentOf(size, seed, file.content);
      file.mtime = clock;
      tree.set(path, file);
      return;
    }
    case "touch":
      if (node !== undefined) node.mtime = clock;
      return;
    case "chmod":
      if (node !== undefined) {
        Object.assign(node, { permissions: 0o600 + seed, uid: seed, dos: seed % 3 });
      }
      return;
    case "directory":
      if (node?.type === "directory") return;
      clear();
      tree.set(path, newNode("directory"));
      return;
    case "symlink":
      clear();
      tree.set(path, { ...newNode("symlink"), target: `../${"x".repeat(seed)}` });
      return;
    case "special":
      clear();
      tree.set(path, newNode(seed % 2 === 0 ? "fifo" : "charDevice"));
      return;
    case "link": {
      const found = tree.get(other);
      if (found === undefined || found.type === "directory" || other.startsWith(`${path}/`)) return;
      clear();
      tree.set(path, found);
      return;
    }
    case "xattr":
      if (node === undefined) return;
      if (seed % 4 === 0) node.xattrs.clear();
      else node.xattrs.set(`user.=%${seed % 5}`, Uint8Array.of(seed, 0, 255, 10));
      return;
    case "remove":
      clear();
  }
}

function newNode(type: Node["type"]): Node {
  return {
    type,
    content: new Uint8Array(0),
    target: "",
    permissions: 0o750,
    uid: 7,
    mtime: clock,
    dos: 0,
    xattrs: new Map(),
  };
}

/** Mostly what was there, as edits of files are; blocks of zeros among it. */
function contentOf(size: number, seed: number, before: Uint8Array): Uint8Array {
  const content = new Uint8Array(size);
  content.set(before.subarray(0, size));
  if (seed % 5 === 0) content.fill(0);
  else content.fill(seed, Math.floor(size / 2), Math.floor(size / 2) + 1000);
  return content;
}

/** The tree as entries in pieces of 4096 bytes. @param dress Changes an entry on its way. */
export function* entriesOf(
  tree: Tree,
  dress: (entry: TreeEntry) => TreeEntry = (entry) => entry,
): Generator<TreeEntry> {
  const first = new Map<Node, string>();
  for (const path of [...tree.keys()].sort()) {
    const node = tree.get(path)!;
    const linkTo = first.get(node);
    if (linkTo === undefined) first.set(node, path);
    const { type, permissions, uid, mtime, dos, content, target } = node;
    const attributes: Attributes = { xattrs: node.xattrs };
    const size = type === "symlink" ? target.length : content.length;
    yield dress({
      path,
      type,
      permissions,
      uid,
      gid: 3,
      mtime,
      size,
      dos,
      attributes,
      ...(type === "charDevice" ? { rdev: 0x1234567 } : {}),
      ...(type === "symlink" ? { target } : {}),
      ...(linkTo !== undefined ? { linkTo } : {}),
      ...(type === "file" ? { read: () => pieces(content) } : {}),
    });
  }
}

function* pieces(content: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < content.length; at += 4096) yield content.slice(at, at + 4096);
}

/** Everything that counts about a tree, comparable. */
export async function pictureOf(
  entries: Iterable<TreeEntry> | AsyncIterable<TreeEntry>,
): Promise<Record<string, unknown>> {
  const picture: Record<string, unknown> = {};
  const groups = new Map<string, string[]>();
  for await (const entry of entries) {
    if (entry.linkTo !== undefined) {
      groups.set(entry.linkTo, [...(groups.get(entry.linkTo) ?? [entry.linkTo]), entry.path]);
      continue;
    }
    const content: Uint8Array[] = [];
    for await (const piece of entry.read?.() ?? []) content.push(piece.slice());
    picture[entry.path] = {
      type: entry.type,
      permissions: entry.permissions,
      owner: `${entry.uid}:${entry.gid}`,
      mtime: String(entry.mtime),
      target: entry.target,
      rdev: entry.rdev ?? 0,
      dos: entry.dos ?? 0,
      xattrs: [...(entry.attributes?.xattrs ?? [])].map(([name, value]) => `${name}=${value}`)
        .sort(),
      sd: String(entry.attributes?.securityDescriptor ?? ""),
      content: content.map((piece) => hex(piece)).join(""),
    };
  }
  // Who is first among links depends on the order of names alone.
  for (const names of groups.values()) {
    const [main] = names;
    const value = picture[main];
    for (const name of names) picture[name] = { value, group: [...names].sort() };
  }
  return Object.fromEntries(Object.entries(picture).sort(([a], [b]) => a < b ? -1 : 1));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16)).join("");
}

/** What a file system has below a path. */
export function pictureOfVolume(fs: FileSystem, path = ""): Promise<Record<string, unknown>> {
  return pictureOf(treeEntries(fs, path));
}

/** A volume in memory. */
export function newVolume(blocks = 16_384): Promise<Volume> {
  return Volume.create(new MemoryStore(blocks));
}
