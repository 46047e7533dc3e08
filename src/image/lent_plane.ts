/**
 * A site brings the plane of the snapshot it stands on to a parent that has not got it: as a fragment,
 * an image of just the blocks from which that plane is read.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { idOf } from "../format/mod.ts";
import { planeBlocks, type Snapshot, type Volume } from "../volume/mod.ts";
import { ByteReader, cutIsDamage } from "./byte_reader.ts";
import { blocksOf, framesOf } from "./frame_reader.ts";
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
    for await (const frame of framesOf(reader, plane)) {
      for (const [vbn, block] of blocksOf(frame)) blocks.set(vbn, block.slice());
    }
    // The end of the stream is nobody's concern: each block that is used is checked by its pointer.
    volume.lent.lend(wanted!, blocks);
    return wanted!;
  } catch (error) {
    throw cutIsDamage(error);
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
