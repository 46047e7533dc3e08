/**
 * A plane that is stored as a file: the block map of a root, or the summary.
 *
 * @module
 */

import { type Plane, ZERO_PAGE } from "../core/mod.ts";
import { ZERO_BLOCK } from "../format/mod.ts";
import type { BlockTree } from "./block_tree.ts";

/** See the module. Read-only; the tree below has no dirty blocks. */
export class PlaneFile implements Plane {
  readonly pageCount: number;
  readonly tree: BlockTree;

  constructor(tree: BlockTree, pageCount: number) {
    this.tree = tree;
    this.pageCount = pageCount;
  }

  page(index: number): Uint32Array {
    return wordsOf(this.tree.block(index));
  }

  *pages(): Iterable<number> {
    const found: number[] = [];
    this.tree.forEachPointer((_, level, index) => {
      if (level === 0) found.push(index);
      return true;
    });
    yield* found;
  }

  differing(other: Plane): Iterable<number> | undefined {
    return other instanceof PlaneFile && other.tree.height === this.tree.height
      ? this.tree.differing(other.tree)
      : undefined;
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
