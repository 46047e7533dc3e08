/**
 * Media in memory: what is read of them is counted, and they can be damaged.
 *
 * @module
 */

import {
  type Image,
  type Piece,
  type PieceBytes,
  piecesOf,
  planSegments,
  type RangedImage,
  segmentRecords,
  type SegmentSizes,
} from "../../src/image/mod.ts";
import { collect, streamOf } from "./streams.ts";

/** A medium that counts what is read of it. */
export interface CountingMedium extends PieceBytes {
  /** Bytes read so far. */
  count: number;
}

/** Bytes as a medium. @param options.waits It cannot be read at once, as a server's. */
export function mediumOf(
  name: string,
  bytes: Uint8Array,
  options: { waits?: boolean } = {},
): CountingMedium {
  const medium = {
    name,
    byteCount: bytes.length,
    count: 0,
    stream(from: number, to: number): ReadableStream<Uint8Array> {
      return streamOf(bytes.subarray(from, to), 8192).pipeThrough(
        new TransformStream(
          {
            transform(chunk, controller) {
              medium.count += chunk.length;
              controller.enqueue(chunk);
            },
          },
          undefined,
          { highWaterMark: 0 },
        ),
      );
    },
    ...(options.waits ? {} : {
      read(offset: number, target: Uint8Array): void {
        if (offset + target.length > bytes.length) throw new Error(`${name} has ended`);
        target.set(bytes.subarray(offset, offset + target.length));
        medium.count += target.length;
      },
    }),
  };
  return medium;
}

/** The pieces in some bytes, nothing being wrong with them. */
export function piecesIn(name: string, bytes: Uint8Array): Promise<Piece[]> {
  return piecesOf(mediumOf(name, bytes), (text) => {
    throw new Error(text);
  });
}

/** An image whose bytes can be had from any place on. */
export function ranged(image: Image): RangedImage {
  return {
    byteCount: image.byteCount,
    stream: (from, to) => image.stream({ from, to }),
  };
}

/** An image's segments as bytes. */
export async function segmentsOf(
  image: Image,
  sizes: SegmentSizes,
): Promise<Uint8Array<ArrayBuffer>[]> {
  const { segments } = await planSegments(ranged(image), sizes);
  const media: Uint8Array<ArrayBuffer>[] = [];
  for (const segment of segments) {
    media.push(await collect(ReadableStream.from(segmentRecords(ranged(image), segment))));
  }
  return media;
}

/** A copy with one bit changed. */
export function flipped(bytes: Uint8Array, bit: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(bytes);
  copy[bit >> 3] ^= 1 << (bit & 7);
  return copy;
}

/** One behind the other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}
