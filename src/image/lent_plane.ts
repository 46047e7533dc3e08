/**
 * A site brings the plane of the snapshot it stands on to a parent that has not got it: as a fragment,
 * an image of just the blocks from which that plane is read.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checkFrame, FRAME_BLOCKS, FRAME_LAYOUT, idOf } from "../format/mod.ts";
import { planeBlocks, type Snapshot, type Volume } from "../volume/mod.ts";
import { ByteReader } from "./byte_reader.ts";
import { FrameCursor } from "./frames.ts";
import { Image } from "./image.ts";
import { readIndex, type StreamFront } from "./stream_index.ts";

/** The fragment that has the plane of a snapshot that is here. */
export function planeImage(volume: Volume, snapshot: Snapshot): Image {
  return new Image(volume, snapshot, undefined, {
    plane: planeBlocks(volume, snapshot),
    fragment: true,
  });
}

/**
 * Takes what {@linkcode planeImage} makes.
 * @throws {VolcastError} `usage` when the snapshot is here, or is none of the current root's; `damaged`.
 */
export async function receivePlane(
  volume: Volume,
  stream: ReadableStream<Uint8Array>,
): Promise<Snapshot> {
  const reader = new ByteReader(stream);
  try {
    let wanted: Snapshot | undefined;
    const { plane } = await readIndex(reader, (front) => {
      wanted = wantedBy(volume, front);
    });
    const blocks = new Map<number, Uint8Array>();
    const frames = new FrameCursor(plane);
    const buffer = new Uint8Array(FRAME_LAYOUT.size + FRAME_BLOCKS * BLOCK_SIZE);
    for (let run = frames.current; run !== undefined; run = frames.current) {
      const frame = buffer.subarray(0, FRAME_LAYOUT.size + run.count * BLOCK_SIZE);
      await reader.fill(frame);
      checkFrame(frame, run.start, run.count);
      for (let i = 0; i < run.count; i++) {
        const at = FRAME_LAYOUT.size + i * BLOCK_SIZE;
        blocks.set(run.start + i, frame.slice(at, at + BLOCK_SIZE));
      }
      frames.advance();
    }
    // The end of the stream is nobody's concern: each block that is used is checked by its pointer.
    volume.lent.lend(wanted!, blocks);
    return wanted!;
  } finally {
    await reader.cancel();
  }
}

/** The snapshot whose plane comes. Bounds first: a stranger's numbers decide how much is read. */
function wantedBy(volume: Volume, { header }: StreamFront): Snapshot {
  const id = idOf(header.top);
  const wanted = header.volumeId === volume.volumeId ? volume.lent.missing(id) : undefined;
  if (wanted === undefined) {
    throw new VolcastError(
      "usage",
      `Cannot take the plane of ${id}: it is here, or no snapshot that the current root lists`,
    );
  }
  // A page of plane has 32,768 blocks; pointers to pages and the way to them are few.
  const most = Math.ceil(volume.zone.capacity / 32_768) * 2 + 64;
  if (header.fragment !== true || header.blockCount > most) {
    throw damaged(
      `Cannot take the plane of ${id}: ${header.blockCount} blocks came, the limit is ${most}`,
    );
  }
  return wanted;
}
