/**
 * The map of staged blocks: a chain of blocks that say which VBNs lie elsewhere for the time being.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { BLOCK_SIZE, type Pointer } from "./block.ts";
import { defineLayout } from "./layout.ts";

const MAGIC = 0x504d4356;

/** Table of what a block of the map begins with. */
export const REMAP_LAYOUT = defineLayout("block of the map of staged blocks", 16, [
  ["magic", "u32", 4, "'VCMP'"],
  ["count", "u32", 4, "entries behind this record"],
  ["nextVbn", "u32", 4, "VBN of the next block of the map, 0: this is the last"],
  ["nextCrc", "u32", 4, "checksum of that block"],
]);

/** Table of an entry. */
export const REMAP_ENTRY_LAYOUT = defineLayout("entry of the map of staged blocks", 8, [
  ["from", "u32", 4, "VBN that a plane names"],
  ["to", "u32", 4, "VBN where the block lies"],
]);

/** Entries that a block of the map has room for. */
export const REMAP_ENTRIES: number = (BLOCK_SIZE - REMAP_LAYOUT.size) / REMAP_ENTRY_LAYOUT.size;

/** A block of the map. */
export interface RemapBlock {
  readonly from: Uint32Array;
  readonly to: Uint32Array;
  /** The next block; `undefined` in the last one. */
  readonly next: Pointer | undefined;
}

/** Encodes a block of the map. */
export function encodeRemapBlock({ from, to, next }: RemapBlock): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  REMAP_LAYOUT.write(
    { magic: MAGIC, count: from.length, nextVbn: next?.vbn ?? 0, nextCrc: next?.crc ?? 0 },
    block,
  );
  const view = new DataView(block.buffer);
  for (let i = 0, at = REMAP_LAYOUT.size; i < from.length; i++, at += REMAP_ENTRY_LAYOUT.size) {
    view.setUint32(at, from[i], true);
    view.setUint32(at + 4, to[i], true);
  }
  return block;
}

/** Decodes a block of the map. @throws {VolcastError} `damaged` when it is none. */
export function decodeRemapBlock(block: Uint8Array): RemapBlock {
  const { magic, count, nextVbn, nextCrc } = REMAP_LAYOUT.read(block);
  if (magic !== MAGIC || count > REMAP_ENTRIES) {
    throw damaged(
      `Cannot read the map of staged blocks: a block of it says ${count} entries, the limit is ` +
        `${REMAP_ENTRIES}${magic === MAGIC ? "" : ", and its magic is missing"}`,
    );
  }
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const from = new Uint32Array(count);
  const to = new Uint32Array(count);
  for (let i = 0, at = REMAP_LAYOUT.size; i < count; i++, at += REMAP_ENTRY_LAYOUT.size) {
    from[i] = view.getUint32(at, true);
    to[i] = view.getUint32(at + 4, true);
  }
  return { from, to, next: nextVbn === 0 ? undefined : { vbn: nextVbn, crc: nextCrc } };
}
