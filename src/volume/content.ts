/**
 * Writing the content of files: to places that nothing on disk points at, and only what differs.
 *
 * @module
 */

import { divCeil, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, equalBytes, HOLE, isZeroBlock } from "../format/mod.ts";
import type { BlockIo } from "./block_io.ts";
import type { BlockTree } from "./block_tree.ts";
import type { Space } from "./space.ts";

/** Whose content is written, and where the blocks for it come from. */
export interface ContentTarget {
  readonly io: BlockIo;
  readonly space: Space;
  readonly tree: BlockTree;
}

/** The last block of what is written, filled up with zeros. Used between two calls only. */
const filledUp = new Uint8Array(BLOCK_SIZE);

/** Writes whole blocks from block `first` on; a last part is filled up with zeros. */
export function writeContent(target: ContentTarget, first: number, bytes: Uint8Array): void {
  const { io, space, tree } = target;
  const count = divCeil(bytes.length, BLOCK_SIZE);
  const whole = Math.floor(bytes.length / BLOCK_SIZE);
  if (whole < count) {
    const part = bytes.subarray(whole * BLOCK_SIZE);
    filledUp.set(part);
    filledUp.fill(0, part.length);
  }
  const block = (i: number) =>
    i < whole ? bytes.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE) : filledUp;
  let i = 0;
  while (i < count) {
    const crc = checksum(block(i));
    if (isZeroBlock(block(i))) {
      tree.setPointer(first + i++, HOLE);
      continue;
    }
    if (isEqual(target, first + i, crc, block(i))) {
      i++;
      continue;
    }
    // As many changed blocks as follow go into neighbouring places with one write.
    const crcs = [crc];
    while (i + crcs.length < count) {
      const next = block(i + crcs.length);
      const nextCrc = checksum(next);
      if (isZeroBlock(next) || isEqual(target, first + i + crcs.length, nextCrc, next)) break;
      crcs.push(nextCrc);
    }
    let written = 0;
    while (written < crcs.length) {
      const run = space.allocateRun(crcs.length - written);
      const from = i + written;
      const end = Math.min(from + run.count, whole);
      if (from < end) io.writeRun(run.start, bytes.subarray(from * BLOCK_SIZE, end * BLOCK_SIZE));
      if (end < from + run.count) io.writeRun(run.start + run.count - 1, filledUp);
      for (let j = 0; j < run.count; j++) {
        tree.setPointer(first + i + written + j, { vbn: run.start + j, crc: crcs[written + j] });
      }
      written += run.count;
    }
    i += crcs.length;
  }
}

/** Whether a block on disk has this content already. An equal checksum alone proves nothing. */
function isEqual(
  { io, tree }: ContentTarget,
  index: number,
  crc: number,
  content: Uint8Array,
): boolean {
  const pointer = tree.pointer(index);
  if (pointer.vbn === 0 || pointer.crc !== crc) return false;
  const present = new Uint8Array(BLOCK_SIZE);
  try {
    io.readRun(pointer.vbn, [crc], present);
  } catch (error) {
    // A block that rotted is not equal to anything; written anew, the file is whole again.
    if (error instanceof VolcastError && error.kind === "damaged") return false;
    throw error;
  }
  return equalBytes(present, content);
}
