/**
 * The header of a member of a striped volume.
 *
 * @module
 */

import { damaged, divCeil, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, MAX_BLOCKS } from "./block.ts";
import { hasMagic, isSealed, magicOf, sealHeader } from "./header_block.ts";
import { defineLayout } from "./layout.ts";
import { FRAME_BLOCKS } from "./stream.ts";
import { bytesToHex, hexToBytes } from "./superblock.ts";

/** Version of the headers of members. */
export const STRIPE_FORMAT_VERSION = 1;
/** Blocks that lie in one member before the next one takes over: those of a frame. */
export const STRIPE_UNIT: number = FRAME_BLOCKS;
/** Blocks of a member before its part of the volume; the first one is the header. */
export const STRIPE_DATA_START: number = STRIPE_UNIT;
/** Fewest and most members. */
export const STRIPE_MEMBERS = { least: 2, most: 16 } as const;

const MAGIC = magicOf("VCT");
const NAME_BYTES = 3968;

/** Table of the first block of a member. */
export const STRIPE_LAYOUT = defineLayout("stripe header", BLOCK_SIZE, [
  ["magic", "bytes", 8, "89 'VCT' 0d 0a 1a 0a"],
  ["version", "u32", 4, "format version"],
  ["unit", "u32", 4, "blocks of a unit: 256"],
  ["stripeId", "bytes", 16, "random, equal in all members"],
  ["capacity", "u64", 8, "blocks of the volume"],
  ["memberBlocks", "u64", 8, "blocks of each member, this header and what is reserved included"],
  ["dataStart", "u32", 4, "block of the member at which its first unit begins"],
  ["count", "u16", 2, "members"],
  ["index", "u16", 2, "number of this member, from 0"],
  ["namesLength", "u32", 4, "bytes of the names"],
  ["names", "bytes", NAME_BYTES, "paths of all members, NUL between them"],
  ["_reserved", "zero", 64, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** A verified header. */
export interface StripeHeader {
  readonly stripeId: string;
  /** Blocks of the volume. */
  readonly capacity: number;
  /** Blocks of a member's file. */
  readonly memberBlocks: number;
  /** Number of this member, from 0. */
  readonly index: number;
  /** Paths of all members: from a member's directory, or absolute. */
  readonly names: readonly string[];
}

/** Blocks of each member of a stripe. */
export function memberBlocksOf(capacity: number, count: number): number {
  return STRIPE_DATA_START + divCeil(divCeil(capacity, STRIPE_UNIT), count) * STRIPE_UNIT;
}

/** Encodes a header. @throws {VolcastError} `usage` when the names have no room. */
export function encodeStripeHeader(header: StripeHeader): Uint8Array {
  const names = new TextEncoder().encode(header.names.join("\0"));
  if (names.length > NAME_BYTES) {
    throw new VolcastError(
      "usage",
      `Cannot make the striped volume: the paths of its members have ${names.length} bytes, the limit is ${NAME_BYTES}`,
      "Put the members into one directory, or use shorter paths",
    );
  }
  const block = new Uint8Array(BLOCK_SIZE);
  STRIPE_LAYOUT.write({
    magic: MAGIC,
    version: STRIPE_FORMAT_VERSION,
    unit: STRIPE_UNIT,
    stripeId: hexToBytes(header.stripeId),
    capacity: header.capacity,
    memberBlocks: header.memberBlocks,
    dataStart: STRIPE_DATA_START,
    count: header.names.length,
    index: header.index,
    namesLength: names.length,
    names,
    crc: 0,
  }, block);
  return sealHeader(block);
}

/**
 * Reads a header.
 *
 * @returns `undefined` when the block is none.
 * @throws {VolcastError} `damaged` when it is one that was changed, `unsupported` for another version.
 */
export function decodeStripeHeader(block: Uint8Array): StripeHeader | undefined {
  if (!hasMagic(block, MAGIC)) return undefined;
  if (!isSealed(block)) {
    throw damaged("Cannot read the stripe header: its checksum is wrong");
  }
  const version = new DataView(block.buffer, block.byteOffset).getUint32(8, true);
  if (version !== STRIPE_FORMAT_VERSION) {
    throw new VolcastError(
      "unsupported",
      `Cannot open the striped volume: its format version is ${version}, this program knows ${STRIPE_FORMAT_VERSION}`,
      "Use the volcast release that wrote it, or a newer one",
    );
  }
  const record = STRIPE_LAYOUT.read(block);
  const { capacity, memberBlocks, count, index } = record;
  const names = new TextDecoder().decode(record.names.subarray(0, record.namesLength)).split("\0");
  const { least, most } = STRIPE_MEMBERS;
  if (
    record.unit !== STRIPE_UNIT || record.dataStart !== STRIPE_DATA_START ||
    count < least || count > most || index >= count || names.length !== count ||
    names.includes("") || record.namesLength > NAME_BYTES || capacity < 1 ||
    capacity > MAX_BLOCKS || memberBlocks !== memberBlocksOf(capacity, count)
  ) {
    throw damaged(
      `Cannot read the stripe header: member ${index} of ${count}, ${names.length} names, units of ` +
        `${record.unit} from ${record.dataStart}, ${memberBlocks} blocks for a volume of ${capacity} ` +
        "do not fit each other",
    );
  }
  return { stripeId: bytesToHex(record.stripeId), capacity, memberBlocks, index, names };
}
