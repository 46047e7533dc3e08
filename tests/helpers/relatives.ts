/**
 * Nodes that are asked for blocks, without a network.
 *
 * @module
 */

import { VolcastError } from "../../src/core/mod.ts";
import {
  blocksOfList,
  type BlockSource,
  imageOfBlocks,
  listOfBlocks,
} from "../../src/image/mod.ts";
import type { Relative } from "../../src/replication/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";

/** A node as one that is asked, and what it was asked for. */
export function relative(volume: Volume): { source: BlockSource; asked: number[] } {
  const asked: number[] = [];
  const source: BlockSource = (root, vbns) => {
    asked.push(...vbns);
    const snapshot = volume.find(root.id);
    if (snapshot === undefined) throw new VolcastError("not-found", "it is not here");
    const list = listOfBlocks(vbns);
    const blocks = blocksOfList(volume, snapshot, list);
    return Promise.resolve(imageOfBlocks(volume, snapshot, blocks, list).stream());
  };
  return { source, asked };
}

/** The same as a node's healer sees it. @param before Called before each answer. */
export function relativeNode(
  name: string,
  volume: Volume,
  before: (vbns: readonly number[]) => Promise<void> = () => Promise.resolve(),
): Relative & { readonly asked: number[] } {
  const { source, asked } = relative(volume);
  return {
    name,
    asked,
    async blocks(_, id, vbns): Promise<ReadableStream<Uint8Array>> {
      await before(vbns);
      const root = volume.find(id) ?? { id, name: id, root: { vbn: 0, crc: 0 } };
      return await source(root, vbns);
    },
  };
}
