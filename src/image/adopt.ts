/**
 * Making the top of an image current whose blocks are under the volume already: it lies over the
 * image itself.
 *
 * @module
 */

import { idOf } from "../format/mod.ts";
import type { Volume } from "../volume/mod.ts";
import type { ImageSource } from "./apply.ts";
import { ByteReader, cutIsDamage } from "./byte_reader.ts";
import { readIndex } from "./stream_index.ts";
import { checkFits, verifyReceived } from "./verify.ts";

/**
 * Verifies a full image where it lies, up to the root (I6), and makes its top current.
 *
 * @param volume Without a root; it reads the image's blocks.
 * @returns Id of the top.
 * @throws {VolcastError} `damaged`, naming what is wrong; `diverged` when it is no full image.
 */
export async function adoptImage(volume: Volume, source: ImageSource): Promise<string> {
  const reader = new ByteReader(await source.open(0));
  try {
    const { header, terms, plane } = await readIndex(reader, (front) => checkFits(volume, front));
    await verifyReceived(volume, {
      header,
      terms,
      received: plane,
      known: undefined,
      io: volume.io,
    });
    await volume.flip(header.top);
    return idOf(header.top);
  } catch (error) {
    throw cutIsDamage(error);
  } finally {
    await reader.cancel();
  }
}
