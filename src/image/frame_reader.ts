/**
 * The frames of an image as they come, each checked by itself.
 *
 * @module
 */

import type { Plane, Run } from "../core/mod.ts";
import { BLOCK_SIZE, checkFrame, FRAME_BLOCKS, FRAME_LAYOUT } from "../format/mod.ts";
import type { ByteReader } from "./byte_reader.ts";
import { FrameCursor } from "./frames.ts";

/** A frame that came. */
export interface Frame extends Run {
  /** Its blocks; they are written over by the next frame. */
  readonly blocks: Uint8Array;
}

/**
 * Reads the frames that an index announces.
 * @param plane The index.
 * @throws {VolcastError} `damaged`; {@linkcode CutError}.
 */
export async function* framesOf(reader: ByteReader, plane: Plane): AsyncGenerator<Frame> {
  const buffer = new Uint8Array(FRAME_LAYOUT.size + FRAME_BLOCKS * BLOCK_SIZE);
  const frames = new FrameCursor(plane);
  for (let run = frames.current; run !== undefined; run = frames.current) {
    const frame = buffer.subarray(0, FRAME_LAYOUT.size + run.count * BLOCK_SIZE);
    await reader.fill(frame);
    checkFrame(frame, run.start, run.count);
    yield { ...run, blocks: frame.subarray(FRAME_LAYOUT.size) };
    frames.advance();
  }
}

/** The blocks of a frame one by one. */
export function* blocksOf({ start, count, blocks }: Frame): Generator<[vbn: number, Uint8Array]> {
  for (let i = 0; i < count; i++) {
    yield [start + i, blocks.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE)];
  }
}
