/**
 * Directories: a B+ tree of pages, ordered by the bytes of names, so that a look-up in a directory of
 * a million entries reads three blocks and a listing comes in order and can begin anywhere.
 *
 * Invariants:
 * 1. Page 0 is the root; every leaf is at the same depth.
 * 2. The names in a child lie between its key and the next one in the branch above; the first key of
 *    a branch is empty and stands below all names.
 * 3. No page but an empty root leaf is empty; a page not in the tree is on the list of free pages.
 * 4. Page 0 counts the entries of the whole directory.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import {
  compareBytes,
  decodeName,
  DirectoryPage,
  encodeName,
  ENTRY_TYPES,
  PAGE_KIND,
  type TypeName,
} from "../format/mod.ts";
import type { BlockTree } from "./block_tree.ts";
import type { BlockWindow } from "./block_window.ts";

/** One name in a directory. */
export interface DirectoryEntry {
  readonly name: string;
  readonly ino: number;
  readonly type: TypeName;
}

/** An entry where it lies. */
interface Found {
  readonly name: Uint8Array;
  readonly page: DirectoryPage;
  readonly index: number;
}

interface Step {
  readonly page: number;
  readonly index: number;
}

/** Deeper than a directory of 2^32 entries can get; a damaged one may point in circles. */
const MAX_DEPTH = 16;

/** A directory over the blocks of its file. */
export class Directory {
  readonly #tree: BlockTree;
  readonly #window: BlockWindow | undefined;
  /** Pages of the file, free ones included. */
  pageCount: number;

  /** @param window By which names are looked up, where that is for many directories in a row. */
  constructor(tree: BlockTree, pageCount: number, window?: BlockWindow) {
    this.#tree = tree;
    this.#window = window;
    this.pageCount = pageCount;
  }

  /** Makes an empty directory of a file without blocks. */
  static create(tree: BlockTree): Directory {
    const directory = new Directory(tree, 1);
    directory.#writable(0).format(PAGE_KIND.leaf);
    return directory;
  }

  /** Number of entries. */
  get size(): number {
    return this.#look(0).entries;
  }

  /** The entry called `name`, if there is one. */
  find(name: string): DirectoryEntry | undefined {
    const key = encodeName(name);
    const leaf = this.#leafOf(key);
    const index = leaf.find(key);
    return index < 0 ? undefined : { name, ino: leaf.value(index), type: typeAt(leaf, index) };
  }

  /**
   * Entries in order of name, those behind `after` only.
   * @throws {VolcastError} `damaged` when a page does not follow its invariants.
   */
  *entries(after?: string): Generator<DirectoryEntry> {
    const key = after === undefined ? undefined : encodeName(after);
    // Pages that are reached twice have names that came already: a listing ends, whatever points where.
    let last = key;
    for (const { name, page, index } of this.#entries(0, key, 0)) {
      if (last !== undefined && compareBytes(last, name) >= 0) {
        throw damaged("Cannot read a directory: its names are out of order");
      }
      last = name;
      yield {
        name: decodeName(name, "a directory"),
        ino: page.value(index),
        type: typeAt(page, index),
      };
    }
  }

  *#entries(page: number, after: Uint8Array | undefined, depth: number): Generator<Found> {
    if (depth > MAX_DEPTH) throw damaged("Cannot read a directory: its pages point in circles");
    const node = this.#page(page);
    if (node.kind === PAGE_KIND.leaf) {
      let index = 0;
      if (after !== undefined) {
        index = node.lowerBound(after);
        if (node.find(after) === index) index++;
      }
      if (node.count === 0 && page !== 0) throw emptyPage(page);
      for (; index < node.count; index++) yield { name: node.name(index), page: node, index };
      return;
    }
    if (node.kind !== PAGE_KIND.branch || node.count === 0) throw noPage(page);
    const first = after === undefined ? 0 : childIndex(node, after);
    for (let i = first; i < node.count; i++) {
      yield* this.#entries(node.value(i), i === first ? after : undefined, depth + 1);
    }
  }

  /** Adds an entry. @throws {VolcastError} `exists`. */
  insert(name: string, ino: number, type: TypeName): void {
    const key = encodeName(name);
    const path = this.#descend(key);
    if (this.#page(path.at(-1)!.page).find(key) >= 0) {
      throw new VolcastError("exists", `Cannot make '${name}': it exists already`);
    }
    this.#insertAt(path, key, ino, ENTRY_TYPES.indexOf(type));
    this.#writable(0).entries++;
  }

  /** Gives an existing entry another inode. */
  replace(name: string, ino: number, type: TypeName): void {
    const key = encodeName(name);
    const page = this.#descend(key).at(-1)!.page;
    const leaf = this.#writable(page);
    const index = leaf.find(key);
    if (index < 0) throw new VolcastError("not-found", `Cannot replace '${name}': it is not there`);
    leaf.setValue(index, ino, ENTRY_TYPES.indexOf(type));
  }

  /** Takes an entry out. @throws {VolcastError} `not-found`. */
  remove(name: string): void {
    const key = encodeName(name);
    const path = this.#descend(key);
    const { page } = path.at(-1)!;
    const index = this.#page(page).find(key);
    if (index < 0) throw new VolcastError("not-found", `Cannot remove '${name}': it is not there`);
    const leaf = this.#writable(page);
    leaf.remove(index);
    this.#writable(0).entries--;
    if (leaf.count === 0) this.#dropEmpty(path);
    else if (path.length > 1 && leaf.used < 1024) this.#mergeRight(path);
  }

  /** Checks invariants 1 to 4. @returns Pages in the tree. @throws {VolcastError} `damaged`. */
  verify(): number {
    let leafDepth = -1;
    let entries = 0;
    const seen = new Set<number>();
    const walk = (page: number, depth: number, low?: Uint8Array, high?: Uint8Array) => {
      if (seen.has(page)) throw damaged(`Cannot read a directory: page ${page} is reached twice`);
      seen.add(page);
      const node = this.#page(page);
      node.verify();
      if (node.count === 0 && page !== 0) throw emptyPage(page);
      const least = node.kind === PAGE_KIND.leaf ? 0 : 1;
      if (least === 1 && node.name(0).length > 0) {
        throw damaged(`The first key of page ${page} of a directory is not empty`);
      }
      const isLow = node.count > least && low !== undefined &&
        compareBytes(node.name(least), low) < 0;
      if (isLow || (high !== undefined && compareBytes(node.name(node.count - 1), high) >= 0)) {
        throw damaged(`Page ${page} of a directory has names that do not belong there`);
      }
      if (node.kind === PAGE_KIND.leaf) {
        if (leafDepth >= 0 && leafDepth !== depth) throw damaged("A directory's depth varies");
        leafDepth = depth;
        entries += node.count;
        return;
      }
      for (let i = 0; i < node.count; i++) {
        const next = i + 1 < node.count ? node.name(i + 1) : high;
        walk(node.value(i), depth + 1, i === 0 ? low : node.name(i), next);
      }
    };
    walk(0, 0);
    for (let page = this.#page(0).free; page !== 0; page = this.#page(page).free) {
      if (seen.has(page)) throw damaged(`Page ${page} of a directory is both free and in use`);
      seen.add(page);
    }
    if (entries !== this.size) {
      throw damaged(`A directory counts ${this.size} entries and has ${entries}`);
    }
    let previous: Uint8Array | undefined;
    for (const { name } of this.entries()) {
      const key = encodeName(name);
      if (previous !== undefined && !(compareBytes(previous, key) < 0)) {
        throw damaged(`A directory's names are out of order at '${name}'`);
      }
      previous = key;
    }
    return seen.size;
  }

  /** A page that is only looked at; valid until the next look. */
  #look(index: number): DirectoryPage {
    this.#checkIndex(index);
    return new DirectoryPage(this.#tree.look(index, this.#window));
  }

  #checkIndex(index: number): void {
    if (index < this.pageCount) return;
    throw damaged(`Cannot read a directory: page ${index} of ${this.pageCount}`);
  }

  #page(index: number): DirectoryPage {
    this.#checkIndex(index);
    return new DirectoryPage(this.#tree.block(index));
  }

  /** A page for writing. What came from the disk is looked through first: changes rely on its invariants. */
  #writable(index: number): DirectoryPage {
    if (!this.#tree.isChanged(index)) {
      const page = new DirectoryPage(this.#tree.block(index));
      if (page.kind === PAGE_KIND.leaf || page.kind === PAGE_KIND.branch) page.verify();
    }
    return new DirectoryPage(this.#tree.writableBlock(index));
  }

  /** The leaf where `key` belongs; valid until the next look. */
  #leafOf(key: Uint8Array): DirectoryPage {
    const root = this.#look(0);
    return root.kind === PAGE_KIND.leaf ? root : this.#look(this.#descend(key).at(-1)!.page);
  }

  /** The way from the root to the leaf where `key` belongs; `index` is the entry taken in each. */
  #descend(key: Uint8Array): Step[] {
    const path: Step[] = [];
    let page = 0;
    for (;;) {
      const node = this.#page(page);
      if (node.kind === PAGE_KIND.leaf) {
        path.push({ page, index: -1 });
        return path;
      }
      if (node.kind !== PAGE_KIND.branch || node.count === 0 || path.length > MAX_DEPTH) {
        throw noPage(page);
      }
      const index = childIndex(node, key);
      path.push({ page, index });
      page = node.value(index);
    }
  }

  #insertAt(path: Step[], key: Uint8Array, value: number, type: number): void {
    const { page } = path.at(-1)!;
    const node = this.#writable(page);
    const index = node.lowerBound(key);
    if (node.fits(key)) {
      node.insert(index, key, value, type);
      return;
    }
    if (page === 0) {
      // The root stays where it is: its entries move down into a page of their own.
      const below = this.#allocatePage();
      const child = this.#writable(below);
      child.format(node.kind);
      const root = this.#writable(0);
      root.moveTail(0, child);
      root.format(PAGE_KIND.branch);
      root.insert(0, new Uint8Array(0), below, 0);
      this.#insertAt([{ page: 0, index: 0 }, { page: below, index: -1 }], key, value, type);
      return;
    }
    const right = this.#allocatePage();
    const rightNode = this.#writable(right);
    rightNode.format(node.kind);
    // Names that come in order fill pages to the end instead of leaving each half empty.
    const from = index === node.count ? node.count : middle(node);
    node.moveTail(from, rightNode);
    const target = index >= from ? rightNode : node;
    target.insert(target.lowerBound(key), key, value, type);
    const separator = rightNode.name(0).slice();
    openFirstKey(rightNode);
    this.#insertAt(path.slice(0, -1), separator, right, 0);
  }

  /** The page at the path's end is empty: it leaves the tree, and branches that become empty too. */
  #dropEmpty(path: Step[]): void {
    for (let depth = path.length - 1; depth > 0; depth--) {
      this.#freePage(path[depth].page);
      const above = this.#writable(path[depth - 1].page);
      above.remove(path[depth - 1].index);
      openFirstKey(above);
      if (above.count > 0) {
        this.#collapse();
        return;
      }
    }
    this.#writable(0).format(PAGE_KIND.leaf);
  }

  /** Takes the right neighbour's entries over where both fit into one page. */
  #mergeRight(path: Step[]): void {
    const { page, index } = path.at(-2)!;
    const above = this.#page(page);
    if (index + 1 >= above.count) return;
    const leaf = this.#page(path.at(-1)!.page);
    const neighbour = above.value(index + 1);
    if (leaf.used + this.#page(neighbour).used > 3000) return;
    this.#writable(neighbour).moveTail(0, this.#writable(path.at(-1)!.page));
    this.#freePage(neighbour);
    this.#writable(page).remove(index + 1);
    this.#collapse();
  }

  /** A root with one child takes the child's place. */
  #collapse(): void {
    let root = this.#page(0);
    while (root.kind === PAGE_KIND.branch && root.count === 1) {
      const below = root.value(0);
      const child = this.#writable(below);
      root = this.#writable(0);
      root.format(child.kind);
      child.moveTail(0, root);
      this.#freePage(below);
      root = this.#page(0);
    }
  }

  #allocatePage(): number {
    const root = this.#writable(0);
    const page = root.free;
    if (page === 0) return this.pageCount++;
    root.free = this.#page(page).free;
    return page;
  }

  #freePage(page: number): void {
    const node = this.#writable(page);
    node.format(PAGE_KIND.free);
    const root = this.#writable(0);
    node.free = root.free;
    root.free = page;
  }
}

/** Entry of a branch below which `key` belongs. */
function childIndex(node: DirectoryPage, key: Uint8Array): number {
  const index = node.lowerBound(key);
  const exact = index < node.count && compareBytes(node.name(index), key) === 0;
  return exact ? index : Math.max(0, index - 1);
}

/** Makes the first key of a branch empty again (invariant 2). */
function openFirstKey(node: DirectoryPage): void {
  if (node.kind !== PAGE_KIND.branch || node.count === 0 || node.name(0).length === 0) return;
  const child = node.value(0);
  node.remove(0);
  node.insert(0, new Uint8Array(0), child, 0);
}

/** Where to cut a page so that both parts have about the same number of bytes. */
function middle(node: DirectoryPage): number {
  const half = node.used / 2;
  let bytes = 0;
  let index = 0;
  while (index < node.count - 1 && bytes < half) bytes += DirectoryPage.costOf(node.name(index++));
  return Math.max(1, index);
}

function emptyPage(page: number): VolcastError {
  return damaged(`Page ${page} of a directory is empty`);
}

function noPage(page: number): VolcastError {
  return damaged(`Cannot read a directory: page ${page} is no page of its tree`);
}

function typeAt(page: DirectoryPage, index: number): TypeName {
  const type = ENTRY_TYPES[page.type(index)];
  if (type === undefined) throw damaged(`A directory entry has type ${page.type(index)}`);
  return type;
}
