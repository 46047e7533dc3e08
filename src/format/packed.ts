/**
 * The records of a packed file: two header slots, written in turn, and the blocks of the map, which
 * says in which block of the file a VBN lies.
 *
 * The map is a log: its blocks are chained from the newest, which the header names, back to the
 * oldest. An entry puts a run of VBNs into a run of blocks, or drops it; a later entry wins.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, MAX_BLOCKS } from "./block.ts";
import { hasMagic, isSealed, magicOf, sealHeader } from "./header_block.ts";
import { defineLayout } from "./layout.ts";

/** Version of packed files. */
export const PACKED_FORMAT_VERSION = 1;

const MAGIC = magicOf("VCP");
const MAP_MAGIC = 0x4d504356;

/** Table of a header slot; slots are blocks 0 and 1 of the file. */
export const PACKED_HEADER_LAYOUT = defineLayout("packed header", BLOCK_SIZE, [
  ["magic", "bytes", 8, "89 'VCP' 0d 0a 1a 0a"],
  ["version", "u32", 4, "format version"],
  ["blockSize", "u32", 4, "4096"],
  ["capacity", "u64", 8, "blocks of the volume: VBNs are below it"],
  ["sequence", "u64", 8, "number of this header; its parity is its slot"],
  ["end", "u64", 8, "blocks of the file in use; all behind are free"],
  ["mapBlocks", "u32", 4, "blocks of the map"],
  ["mapHead", "u32", 4, "newest block of the map, 0 where there is none"],
  ["mapCrc", "u32", 4, "checksum of that block"],
  ["_reserved", "zero", 4040, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** Table of what precedes the entries in a block of the map. */
export const MAP_BLOCK_LAYOUT = defineLayout("block of the map", 32, [
  ["magic", "u32", 4, "'VCPM'"],
  ["index", "u32", 4, "number in the chain, 0 for the oldest"],
  ["previous", "u32", 4, "the block before it in the chain, 0 for none"],
  ["previousCrc", "u32", 4, "checksum of that block"],
  ["count", "u32", 4, "entries that follow"],
  ["_reserved", "zero", 12, "reserved"],
]);

/** Table of an entry of the map. */
export const MAP_ENTRY_LAYOUT = defineLayout("entry of the map", 12, [
  ["vbn", "u32", 4, "first VBN of the run"],
  ["count", "u32", 4, "VBNs in the run, at least 1"],
  ["slot", "u32", 4, "block of the file that has the first; 0: the run is dropped"],
]);

/** Entries that a block of the map has room for. */
export const MAP_ENTRIES: number = Math.floor(
  (BLOCK_SIZE - MAP_BLOCK_LAYOUT.size) / MAP_ENTRY_LAYOUT.size,
);

/** A header slot. */
export interface PackedHeader {
  readonly capacity: number;
  readonly sequence: number;
  readonly end: number;
  readonly mapBlocks: number;
  readonly mapHead: number;
  readonly mapCrc: number;
}

/** The head of a block of the map. */
export interface MapBlock {
  readonly index: number;
  readonly previous: number;
  readonly previousCrc: number;
  readonly count: number;
}

/** A run of VBNs and where it lies; slot 0: nowhere any more. */
export interface MapEntry {
  readonly vbn: number;
  readonly count: number;
  readonly slot: number;
}

/** Whether a block begins as a header slot of a packed file does. */
export function isPackedHeader(block: Uint8Array): boolean {
  return hasMagic(block, MAGIC);
}

/** Encodes a header slot. */
export function encodePackedHeader(header: PackedHeader): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  PACKED_HEADER_LAYOUT.write({
    ...header,
    magic: MAGIC,
    version: PACKED_FORMAT_VERSION,
    blockSize: BLOCK_SIZE,
    crc: 0,
  }, block);
  return sealHeader(block);
}

/**
 * Reads a header slot.
 *
 * @returns `undefined` when the slot holds none, or a torn one.
 * @throws {VolcastError} `unsupported` for another version, `damaged` for numbers that cannot be.
 */
export function decodePackedHeader(block: Uint8Array): PackedHeader | undefined {
  if (!isPackedHeader(block) || !isSealed(block)) return undefined;
  const version = new DataView(block.buffer, block.byteOffset).getUint32(8, true);
  if (version !== PACKED_FORMAT_VERSION) {
    throw new VolcastError(
      "unsupported",
      `Cannot open the packed file: its format version is ${version}, this program knows ${PACKED_FORMAT_VERSION}`,
      "Use the volcast release that wrote it, or a newer one",
    );
  }
  const record = PACKED_HEADER_LAYOUT.read(block);
  const { capacity, sequence, end, mapBlocks, mapHead, mapCrc } = record;
  if (record.blockSize !== BLOCK_SIZE || capacity < 1 || capacity > MAX_BLOCKS) {
    throw damaged(
      `Cannot read the packed header: blocks of ${record.blockSize} bytes and a capacity of ${capacity}`,
    );
  }
  if (end < 2 || end > MAX_BLOCKS || mapBlocks > end - 2 || (mapBlocks === 0) !== (mapHead === 0)) {
    throw damaged(
      `Cannot read the packed header: ${mapBlocks} blocks of the map, the newest ${mapHead}, in a file ` +
        `of ${end} blocks`,
    );
  }
  return { capacity, sequence, end, mapBlocks, mapHead, mapCrc };
}

/** Encodes a block of the map. */
export function encodeMapBlock(
  head: Omit<MapBlock, "count">,
  entries: readonly MapEntry[],
): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  MAP_BLOCK_LAYOUT.write({ ...head, magic: MAP_MAGIC, count: entries.length }, block);
  let at = MAP_BLOCK_LAYOUT.size;
  for (const entry of entries) {
    MAP_ENTRY_LAYOUT.write(entry, block, at);
    at += MAP_ENTRY_LAYOUT.size;
  }
  return block;
}

/** Reads the head of a block of the map, whose checksum was compared. @throws {VolcastError} `damaged`. */
export function decodeMapBlock(block: Uint8Array): MapBlock {
  const { magic, ...head } = MAP_BLOCK_LAYOUT.read(block);
  if (magic === MAP_MAGIC && head.count <= MAP_ENTRIES) return head;
  throw damaged(
    `Cannot read a block of the map: magic ${
      magic.toString(16)
    }, ${head.count} entries, the limit is ${MAP_ENTRIES}`,
  );
}

/** The entries of a block of the map, oldest first. */
export function decodeMapEntries(block: Uint8Array, count: number): MapEntry[] {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const entries: MapEntry[] = [];
  for (let i = 0, at = MAP_BLOCK_LAYOUT.size; i < count; i++, at += MAP_ENTRY_LAYOUT.size) {
    entries.push({
      vbn: view.getUint32(at, true),
      count: view.getUint32(at + 4, true),
      slot: view.getUint32(at + 8, true),
    });
  }
  return entries;
}
