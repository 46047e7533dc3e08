/**
 * A block store over images on seekable media: the blocks of a full image, or of one and the
 * increments on top of it, read where they lie, without a volume in between.
 *
 * Invariants:
 * 1. A block comes from the newest image that has it: an increment has every block of its top that its
 *    base has not.
 * 2. The images are a chain: the base of each is the top of the next older one. Where the full image
 *    is not among them, its blocks are an error that names it, never zeros.
 * 3. What lies before the data of the volume is no image's, and reads as zeros: each node has its own.
 * 4. Nothing is checked here: who reads through `BlockIo` checks every block against the pointer to it
 *    (I1); `block` checks against the frame's checksum.
 *
 * @module
 */

import { assert, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checkFrame,
  FRAME_LAYOUT,
  idOf,
  type Pointer,
  type StreamHeader,
} from "../format/mod.ts";
import type { BlockIo } from "../volume/mod.ts";
import { ByteReader } from "./byte_reader.ts";
import type { Pieces } from "./pieces.ts";
import { describeImage } from "./segments.ts";
import { readIndex } from "./stream_index.ts";
import { type FramePlace, placeOfBlock, StreamMap } from "./stream_map.ts";

/** What `BlockIo` reads from. */
type BlockStore = BlockIo["store"];

interface Layer {
  readonly pieces: Pieces;
  readonly map: StreamMap;
}

/** See the module. */
export class ImageStore implements BlockStore {
  readonly capacity: number;
  /** Newest first. */
  readonly #layers: readonly Layer[];
  readonly #closed: () => void;

  private constructor(layers: readonly Layer[], closed: () => void) {
    this.#layers = layers;
    this.#closed = closed;
    this.capacity = layers[0].map.header.capacity;
  }

  /**
   * Reads the indexes of images.
   *
   * @param images One, or one and what it stands on, in any order.
   * @param closed Called when this is closed: the media belong to who opened them.
   * @throws {VolcastError} `diverged` where they are no chain; `damaged`.
   */
  static async open(
    images: readonly Pieces[],
    closed: () => void = () => {},
  ): Promise<ImageStore> {
    const layers: Layer[] = [];
    for (const pieces of chainOf(images)) {
      layers.push({ pieces, map: new StreamMap(await indexOf(pieces)) });
    }
    return new ImageStore(layers, closed);
  }

  /** Header of the newest image. */
  get header(): StreamHeader {
    return this.#layers[0].map.header;
  }

  /** Pointer to the root of the newest image's top. */
  get root(): Pointer {
    return this.header.top.root;
  }

  /** Reads consecutive blocks. @throws {VolcastError} `not-found` where no image has one. */
  read(vbn: number, target: Uint8Array): void {
    assert(target.length % BLOCK_SIZE === 0, `${target.length} bytes are not whole blocks`);
    const end = vbn + target.length / BLOCK_SIZE;
    const own = Math.max(0, Math.min(end, this.header.dataStart) - vbn);
    target.fill(0, 0, own * BLOCK_SIZE);
    for (let at = vbn + own; at < end;) {
      const { layer, frame } = this.#find(at);
      // As many as follow in the same frame, and are in no newer image.
      const last = Math.min(end, frame.start + frame.count);
      let next = layer === this.#layers[0] ? last : at + 1;
      while (next < last && this.#find(next).layer === layer) next++;
      const part = target.subarray((at - vbn) * BLOCK_SIZE, (next - vbn) * BLOCK_SIZE);
      layer.pieces.readAt(placeOfBlock(frame, at), part);
      at = next;
    }
  }

  /**
   * A block, checked by reading its whole frame.
   * @throws {VolcastError} `not-found` where no image has it, `damaged`.
   */
  block(vbn: number): Uint8Array {
    const { layer, frame } = this.#find(vbn);
    const bytes = new Uint8Array(FRAME_LAYOUT.size + frame.count * BLOCK_SIZE);
    layer.pieces.readAt(frame.offset, bytes);
    checkFrame(bytes, frame.start, frame.count);
    const at = placeOfBlock(frame, vbn) - frame.offset;
    return bytes.subarray(at, at + BLOCK_SIZE);
  }

  /** The piece that has a block. */
  fileOf(vbn: number): string | undefined {
    const { layer, frame } = this.#find(vbn);
    return layer.pieces.nameAt(placeOfBlock(frame, vbn));
  }

  /** Refuses: an image is only read. @throws {VolcastError} `read-only`. */
  write(): void {
    throw new VolcastError("read-only", "Cannot write into an image: it is only read");
  }

  /** Nothing is written that could be made durable. */
  async sync(): Promise<void> {}

  /** Tells who opened the media. */
  close(): void {
    this.#closed();
  }

  #find(vbn: number): { layer: Layer; frame: FramePlace } {
    for (const layer of this.#layers) {
      const frame = layer.map.frameOf(vbn);
      if (frame !== undefined) return { layer, frame };
    }
    const oldest = this.#layers[this.#layers.length - 1].map.header;
    const { base } = oldest;
    throw base === undefined
      ? new VolcastError("not-found", `Cannot read VBN ${vbn}: the image has no such block`)
      : new VolcastError(
        "not-found",
        `Cannot read VBN ${vbn}: it is not in the image ${
          describeImage(oldest)
        }, but in its base ` +
          `'${base.name}' (${idOf(base)})`,
        `Give the image of '${base.name}' too`,
      );
  }
}

/** The images from the newest to the oldest. */
function chainOf(images: readonly Pieces[]): Pieces[] {
  assert(images.length > 0, "a store has an image");
  const { volumeId } = images[0].header;
  const stranger = images.find(({ header }) => header.volumeId !== volumeId);
  if (stranger !== undefined) {
    throw new VolcastError(
      "diverged",
      `Cannot use ${nameOf(stranger)}: it is of volume ${stranger.header.volumeId}, ` +
        `${nameOf(images[0])} is of ${volumeId}`,
    );
  }
  const byTop = new Map(images.map((image) => [idOf(image.header.top), image]));
  const baseOf = ({ header: { base } }: Pieces) => base === undefined ? "" : idOf(base);
  const bases = new Set(images.map(baseOf));
  const chain: Pieces[] = [];
  let next = images.find(({ header }) => !bases.has(idOf(header.top)));
  // Images that say they stand on each other would go round for ever.
  while (next !== undefined && !chain.includes(next)) {
    chain.push(next);
    next = byTop.get(baseOf(next));
  }
  const odd = images.find((image) => !chain.includes(image));
  if (odd === undefined) return chain;
  throw new VolcastError(
    "diverged",
    `Cannot use ${nameOf(odd)}: none of the other images leads to or from ${
      describeImage(odd.header)
    }`,
    "Give one full image and the increments that lead on from it, each once",
  );
}

function nameOf(image: Pieces): string {
  return image.pieces[0].name;
}

async function indexOf(pieces: Pieces): Promise<Awaited<ReturnType<typeof readIndex>>> {
  for (;;) {
    const reader = new ByteReader(await pieces.open(0));
    try {
      return await readIndex(reader, () => {});
    } catch (error) {
      if (!(await pieces.retry(error, false))) throw error;
    } finally {
      await reader.cancel();
    }
  }
}
