/**
 * The map of a packed file as it lies there: a chain of blocks with entries, see `format/packed.ts`.
 *
 * Invariants:
 * 1. A block that a header names is not changed: a last block with room is written anew, elsewhere.
 * 2. What the log says is at most twice what a table would say, and a fixed rest: so opening costs
 *    what is there, and a forged map cannot make it cost more.
 *
 * @module
 */

import { damaged, divCeil, type Run } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checksum,
  decodeMapBlock,
  decodeMapEntries,
  decodePackedHeader,
  encodeMapBlock,
  isPackedHeader,
  MAP_ENTRIES,
  type MapEntry,
  type PackedHeader,
} from "../format/mod.ts";
import type { BlockStore } from "./block_store.ts";
import type { SlotMap } from "./slot_map.ts";
import type { SlotSpace } from "./slot_space.ts";

/** Entries that the log may have beyond twice those of a table. */
const SPARE_ENTRIES = 4 * MAP_ENTRIES;
/** VBNs that the entries of the log may cover, beyond twice those that are there. */
const SPARE_BLOCKS = 65_536;

/** A block of the chain. */
interface Link {
  readonly slot: number;
  readonly crc: number;
}
const NOWHERE: Link = { slot: 0, crc: 0 };

/** See the module. */
export class MapLog {
  readonly #under: BlockStore;
  readonly #space: SlotSpace;
  /** Blocks of the chain, oldest first. */
  #links: Link[] = [];
  /** Entries of the last block. */
  #tail: MapEntry[] = [];
  #entryCount = 0;
  /** VBNs that entries cover, each as often as it is covered. */
  #covered = 0;
  /** Entries of the last full table. */
  #tableCount = 0;

  constructor(under: BlockStore, space: SlotSpace) {
    this.#under = under;
    this.#space = space;
  }

  /** What a header says of the map. */
  get head(): Pick<PackedHeader, "mapBlocks" | "mapHead" | "mapCrc"> {
    const { slot, crc } = this.#links.at(-1) ?? NOWHERE;
    return { mapBlocks: this.#links.length, mapHead: slot, mapCrc: crc };
  }

  /** Blocks that writing the map takes at most, after `changes` entries more. */
  reserve(changes: number): number {
    return divCeil(this.#entryCount + changes, MAP_ENTRIES) + 1;
  }

  /**
   * Writes what changed, or the whole table when the log has grown too long.
   *
   * @returns Blocks that the new map does not use any more.
   */
  append(changes: readonly MapEntry[], map: SlotMap): Run[] {
    const entryCount = this.#entryCount + changes.length;
    const covered = changes.reduce((sum, { count }) => sum + count, this.#covered);
    const isLong = entryCount > 2 * this.#tableCount + SPARE_ENTRIES ||
      covered > 2 * map.size + SPARE_BLOCKS;
    if (isLong) return this.#rewrite(map);
    const tail = this.#links.length > 0 && this.#tail.length < MAP_ENTRIES
      ? this.#links.pop()
      : undefined;
    this.#write(tail === undefined ? changes : [...this.#tail, ...changes]);
    this.#entryCount = entryCount;
    this.#covered = covered;
    return tail === undefined ? [] : [{ start: tail.slot, count: 1 }];
  }

  /** Reads the map that a header names. @throws {VolcastError} `damaged`. */
  load(header: PackedHeader, map: SlotMap): void {
    this.#links = this.#chainOf(header);
    const most = 2 * header.end + SPARE_BLOCKS;
    for (const link of this.#links) {
      const block = this.#read(link);
      const entries = decodeMapEntries(block, decodeMapBlock(block).count);
      for (const entry of entries) {
        this.#covered += entry.count;
        checkEntry(entry, header);
        if (this.#covered > most || (map.set(entry), map.size > header.end)) {
          throw damaged(
            `Cannot read the map: its entries put ${this.#covered} blocks into a file of ${header.end}`,
          );
        }
      }
      this.#entryCount += entries.length;
      this.#tail = entries;
    }
    for (const entry of map.runs()) {
      this.#take({ start: entry.slot, count: entry.count });
      this.#tableCount++;
    }
  }

  #rewrite(map: SlotMap): Run[] {
    const released = this.#links.map(({ slot }) => ({ start: slot, count: 1 }));
    const table = [...map.runs()];
    this.#links = [];
    this.#write(table);
    this.#entryCount = this.#tableCount = table.length;
    this.#covered = map.size;
    return released;
  }

  /** Adds entries to the chain, in blocks of their own. */
  #write(entries: readonly MapEntry[]): void {
    for (let at = 0; at < entries.length; at += MAP_ENTRIES) {
      this.#tail = entries.slice(at, at + MAP_ENTRIES);
      const { slot: previous, crc: previousCrc } = this.#links.at(-1) ?? NOWHERE;
      const head = { index: this.#links.length, previous, previousCrc };
      const block = encodeMapBlock(head, this.#tail);
      const { start } = this.#space.allocate(1);
      this.#under.write(start, block);
      this.#links.push({ slot: start, crc: checksum(block) });
    }
  }

  /** The blocks of the chain, oldest first; their numbers in the chain keep it from being a circle. */
  #chainOf(header: PackedHeader): Link[] {
    const links: Link[] = [];
    let link: Link = { slot: header.mapHead, crc: header.mapCrc };
    for (let index = header.mapBlocks - 1; index >= 0; index--) {
      if (link.slot < 2 || link.slot >= header.end) {
        throw damaged(`Cannot read the map: block ${index} of it lies at ${link.slot}`);
      }
      const found = decodeMapBlock(this.#read(link));
      if (found.index !== index) {
        throw damaged(
          `Cannot read the map: block ${index} of it says that it is number ${found.index}`,
        );
      }
      this.#take({ start: link.slot, count: 1 });
      links.push(link);
      link = { slot: found.previous, crc: found.previousCrc };
    }
    return links.reverse();
  }

  #read({ slot, crc }: Link): Uint8Array {
    const block = new Uint8Array(BLOCK_SIZE);
    this.#under.read(slot, block);
    if (checksum(block) === crc) return block;
    throw damaged(`Cannot read the map: the block of it at ${slot} has another checksum`);
  }

  #take(run: Run): void {
    if (this.#space.take(run)) return;
    throw damaged(
      `Cannot read the map: a block among ${run.count} from ${run.start} is used twice`,
    );
  }
}

function checkEntry({ vbn, count, slot }: MapEntry, { capacity, end }: PackedHeader): void {
  const fits = count > 0 && vbn + count <= capacity &&
    (slot === 0 || (slot >= 2 && slot + count <= end));
  if (fits) return;
  throw damaged(
    `Cannot read the map: it puts ${count} blocks from VBN ${vbn} to ${slot}, in a volume of ` +
      `${capacity} blocks and a file of ${end}`,
  );
}

/** Whether a store holds a packed file. */
export function isPacked(under: BlockStore): boolean {
  return under.capacity >= 2 && headerSlots(under).some(isPackedHeader);
}

/**
 * The newest valid header.
 *
 * @param blocks Blocks that the file has.
 * @throws {VolcastError} `damaged`, `unsupported`.
 */
export function readPackedHeader(under: BlockStore, blocks: number): PackedHeader {
  const headers = under.capacity < 2 ? [] : headerSlots(under).map(decodePackedHeader);
  const newest = headers.filter((header) => header !== undefined)
    .sort((a, b) => b.sequence - a.sequence)[0];
  if (newest === undefined) {
    throw damaged(
      "Cannot open the packed file: it has no valid header",
      "It is not a packed file, or both headers are damaged",
    );
  }
  if (newest.end > blocks || newest.end > under.capacity) {
    throw damaged(
      `Cannot open the packed file: ${newest.end} blocks of it are in use, it has only ${blocks}`,
      "The file was cut off: copy it again from where it came",
    );
  }
  return newest;
}

function headerSlots(under: BlockStore): Uint8Array[] {
  return [0, 1].map((slot) => {
    const block = new Uint8Array(BLOCK_SIZE);
    under.read(slot, block);
    return block;
  });
}
