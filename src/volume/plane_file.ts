/**
 * A plane that is stored as a file, or as a stretch of one: the block map of a root, the summary, or a
 * slot of the file of shadow planes.
 *
 * @module
 */

import { type Plane, ZERO_PAGE } from "../core/mod.ts";
import { POINTERS_PER_BLOCK, ZERO_BLOCK } from "../format/mod.ts";
import type { BlockTree } from "./block_tree.ts";

/** See the module. Read-only; the tree below has no dirty blocks. */
export class PlaneFile implements Plane {
  readonly pageCount: number;
  readonly tree: BlockTree;
  /** Block of the file that is the plane's page 0. */
  readonly #first: number;

  constructor(tree: BlockTree, pageCount: number, first = 0) {
    this.tree = tree;
    this.pageCount = pageCount;
    this.#first = first;
  }

  page(index: number): Uint32Array {
    return wordsOf(this.tree.block(this.#first + index));
  }

  *pages(): Iterable<number> {
    const found: number[] = [];
    this.tree.forEachPointer((_, level, index) => {
      const span = POINTERS_PER_BLOCK ** level;
      const start = index * span - this.#first;
      if (start >= this.pageCount || start + span <= 0) return false;
      if (level === 0) found.push(start);
      return true;
    });
    yield* found;
  }

  differing(other: Plane): Iterable<number> | undefined {
    return other instanceof PlaneFile && other.tree.height === this.tree.height &&
        other.#first === this.#first
      ? this.#differing(other)
      : undefined;
  }

  *#differing(other: PlaneFile): Generator<number> {
    for (const index of this.tree.differing(other.tree)) {
      const page = index - this.#first;
      if (page >= 0 && page < this.pageCount) yield page;
    }
  }
}

/** A block of a plane as words. */
export function wordsOf(block: Uint8Array): Uint32Array {
  if (block === ZERO_BLOCK) return ZERO_PAGE;
  return new Uint32Array(block.buffer, block.byteOffset, block.byteLength / 4);
}

/** Height a tree with 16 slots needs for `blockCount` blocks; planes have it from the start. */
export function heightFor(blockCount: number): number {
  let height = 1;
  for (let span = 16; span < blockCount; span *= 512) height++;
  return height;
}
