/**
 * An image of a volume: `top`, or `top - base`, as a stream of bytes that are the same at every node
 * and every time (I5), so that any range of them can be produced alone.
 *
 * Source: WO 00/07104, storage images by logical difference of bit planes, section "Volume Mirroring".
 *
 * Invariants:
 * 1. What is sent is exactly `plane(top)` and not `plane(base)`.
 * 2. Position in the stream is a function of the planes; producing from an offset gives the same
 *    bytes as producing from the start and dropping what is before it.
 * 3. A block is sent only if it has the checksum that the pointer to it says (I1).
 * 4. The leases on top and base are held as long as somebody reads.
 *
 * @module
 */

import { createHash } from "node:crypto";
import {
  assert,
  difference,
  forEachRunOfPage,
  PAGE_BITS,
  type Plane,
  type Run,
} from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checksum,
  encodeEnd,
  encodeIndexEnd,
  encodeStreamHeader,
  END_LAYOUT,
  FRAME_BLOCKS,
  FRAME_LAYOUT,
  INDEX_END_LAYOUT,
  RUN_LAYOUT,
  sealFrame,
  STREAM_FORMAT_VERSION,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
  streamLength,
} from "../format/mod.ts";
import type { PlaneChange, Snapshot, Volume } from "../volume/mod.ts";
import { Checksums } from "./checksums.ts";
import { countPages, framesOfPage, type PageCounts } from "./plan.ts";

/** About the size of the chunks a stream is made of. */
const CHUNK_BYTES = 1024 * 1024;

/** Identity of an image. */
export interface ImageName {
  readonly volumeId: string;
  /** Id of the base, `undefined` for a full image. */
  readonly base: string | undefined;
  /** Id of the top. */
  readonly top: string;
}

/** A planned image; nothing was read yet but planes. */
export class Image {
  readonly name: ImageName;
  readonly header: StreamHeader;
  readonly top: Snapshot;
  readonly base: Snapshot | undefined;
  readonly #volume: Volume;
  readonly #plane: Plane;
  readonly #deallocated: Plane | undefined;
  readonly #pages: PageCounts[];
  readonly #deallocatedPages: PageCounts[];
  /** Checksums of frames as far as they were read, by number of the frame; see `#known`. */
  #crcs: Uint32Array | undefined;
  #known: Uint8Array | undefined;
  #digest: Uint8Array | undefined;
  #indexCrc: number | undefined;

  /**
   * Plans `top - base`, or all of `top`. Costs O(changed pages), reads planes only.
   *
   * @param given What leads from base to top where it is known already, as from marks: it costs nothing
   *   to choose then. It must not change any more.
   */
  constructor(volume: Volume, top: Snapshot, base?: Snapshot, given?: PlaneChange) {
    this.#volume = volume;
    this.top = top;
    this.base = base;
    this.name = { volumeId: volume.volumeId, base: base?.id, top: top.id };
    const topPlane = volume.plane(top);
    if (base === undefined) {
      this.#plane = topPlane;
    } else if (given !== undefined) {
      this.#plane = given.allocated;
      this.#deallocated = given.deallocated;
    } else {
      const basePlane = volume.plane(base);
      this.#plane = difference(topPlane, basePlane);
      this.#deallocated = difference(basePlane, topPlane);
    }
    const sent = countPages(this.#plane);
    const gone = this.#deallocated === undefined ? undefined : countPages(this.#deallocated);
    this.#pages = sent.pages;
    this.#deallocatedPages = gone?.pages ?? [];
    const deallocated = gone?.totals.runs ?? 0;
    const end = ({ name, cp, root, time }: Snapshot) => ({ name, cp, root, time });
    this.header = {
      volumeId: volume.volumeId,
      capacity: volume.zone.capacity,
      dataStart: volume.zone.data.start,
      top: end(top),
      ...(base === undefined ? {} : { base: end(base) }),
      blockCount: sent.totals.blocks,
      runCount: sent.totals.runs,
      deallocatedCount: deallocated,
      frameCount: sent.totals.frames,
      byteCount: streamLength({ ...sent.totals, deallocated }),
    };
  }

  /** Bytes of the whole stream. */
  get byteCount(): number {
    return this.header.byteCount;
  }

  /** Strong entity tag without quotes, equal at every node. */
  get etag(): string {
    const { volumeId, base, top } = this.name;
    return `${STREAM_FORMAT_VERSION}.${volumeId}.${base ?? "full"}.${top}`;
  }

  /**
   * The stream's bytes from `from` up to `to` (excluded). Works only when pulled.
   *
   * @param options.onEnd Called once, when the last byte was taken, the reader went or an error ended it.
   */
  stream(
    options: { from?: number; to?: number; onEnd?: () => void } = {},
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    const from = options.from ?? 0;
    const to = options.to ?? this.byteCount;
    assert(from >= 0 && from <= to && to <= this.byteCount, `range ${from}-${to}`);
    const leases = [this.top, ...(this.base === undefined ? [] : [this.base])]
      .map((snapshot) => this.#volume.leases.take(snapshot, this.#volume.superblock.cp));
    const chunks = this.#chunks(from);
    let position = from;
    let ended = false;
    const end = () => {
      if (ended) return;
      ended = true;
      for (const lease of leases) lease.release();
      options.onEnd?.();
    };
    return new ReadableStream({
      pull: async (controller) => {
        try {
          while (position < to) {
            for (const lease of leases) lease.check();
            const next = chunks.next();
            assert(!next.done, "the stream is as long as was planned");
            if (next.value === undefined) {
              // Nothing to send yet, but others may want to run.
              await new Promise((resolve) => setTimeout(resolve, 0));
              continue;
            }
            const chunk = next.value.subarray(0, to - position);
            position += chunk.length;
            controller.enqueue(chunk);
            break;
          }
          if (position < to) return;
          end();
          controller.close();
        } catch (error) {
          end();
          controller.error(error);
        }
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  /** Parts of the stream from byte `from` on; `undefined` where work was done without output. */
  *#chunks(from: number): Generator<Uint8Array<ArrayBuffer> | undefined> {
    const { header } = this;
    const headerBytes = encodeStreamHeader(header) as Uint8Array<ArrayBuffer>;
    const indexEnd = encodeIndexEnd(this.#checksumOfIndex()) as Uint8Array<ArrayBuffer>;
    let skip = from;
    function* cut(bytes: Uint8Array<ArrayBuffer>): Generator<Uint8Array<ArrayBuffer>> {
      const rest = bytes.subarray(Math.min(skip, bytes.length));
      skip = Math.max(0, skip - bytes.length);
      if (rest.length > 0) yield rest;
    }
    yield* cut(headerBytes);
    const indexBytes = (header.runCount + header.deallocatedCount) * RUN_LAYOUT.size;
    if (skip >= indexBytes) skip -= indexBytes;
    else for (const part of this.#indexParts()) yield* cut(part);
    yield* cut(indexEnd);

    yield* this.#frameChunks(skip);
    // What was not sent has to be read for the digest, unless it was sent to somebody before.
    yield* this.#readUnknown();
    this.#digest ??= createHash("sha256").update(headerBytes).update(indexEnd)
      .update(new Uint8Array(this.#checksums().crcs.buffer)).digest();
    skip = Math.max(0, from - (header.byteCount - END_LAYOUT.size));
    yield* cut(encodeEnd(header.frameCount, this.#digest) as Uint8Array<ArrayBuffer>);
  }

  #checksums(): { crcs: Uint32Array; known: Uint8Array } {
    const count = this.header.frameCount;
    this.#crcs ??= new Uint32Array(count);
    this.#known ??= new Uint8Array(count);
    return { crcs: this.#crcs, known: this.#known };
  }

  #checksumOfIndex(): number {
    if (this.#indexCrc === undefined) {
      // Parts are combined by the checksum of their checksums: no part depends on another.
      const crcs = [...this.#indexParts()].map((part) => checksum(part));
      this.#indexCrc = checksumOfParts(crcs);
    }
    return this.#indexCrc;
  }

  /** The runs of a page are one part of the index. */
  *#indexParts(): Generator<Uint8Array<ArrayBuffer>> {
    for (const { index, runs } of this.#pages) yield runsOfPage(this.#plane, index, runs);
    for (const { index, runs } of this.#deallocatedPages) {
      yield runsOfPage(this.#deallocated!, index, runs);
    }
  }

  /** The frames from byte `skip` of their part on, several small ones in a chunk. */
  *#frameChunks(skip: number): Generator<Uint8Array<ArrayBuffer> | undefined> {
    const checksums = this.#newChecksums();
    let chunk = new Uint8Array(CHUNK_BYTES + FRAME_LAYOUT.size);
    let used = 0;
    let number = 0;
    for (const { index, blocks, frames } of this.#pages) {
      const pageBytes = frames * FRAME_LAYOUT.size + blocks * BLOCK_SIZE;
      if (skip >= pageBytes) {
        skip -= pageBytes;
        number += frames;
        continue;
      }
      for (const run of framesOfPage(this.#plane, index)) {
        const length = FRAME_LAYOUT.size + run.count * BLOCK_SIZE;
        if (skip >= length) {
          skip -= length;
          number++;
          continue;
        }
        if (used + length > chunk.length) {
          yield chunk.subarray(0, used);
          chunk = new Uint8Array(CHUNK_BYTES + FRAME_LAYOUT.size);
          used = 0;
        }
        const frame = chunk.subarray(used, used + length);
        yield* checksums.prepare(run.start);
        this.#readFrame(run, number++, frame, checksums);
        if (skip > 0) {
          yield frame.slice(skip);
          skip = 0;
        } else used += length;
      }
    }
    if (used > 0) yield chunk.subarray(0, used);
  }

  /** Reads the frames whose checksums are not known yet, and now and then lets others run. */
  *#readUnknown(): Generator<undefined> {
    const { known } = this.#checksums();
    if (this.#digest !== undefined || !known.includes(0)) return;
    const checksums = this.#newChecksums();
    const buffer = new Uint8Array(FRAME_LAYOUT.size + FRAME_BLOCKS * BLOCK_SIZE);
    let number = 0;
    for (const { index } of this.#pages) {
      for (const run of framesOfPage(this.#plane, index)) {
        if (known[number] === 0) {
          const length = FRAME_LAYOUT.size + run.count * BLOCK_SIZE;
          yield* checksums.prepare(run.start);
          this.#readFrame(run, number, buffer.subarray(0, length), checksums);
        }
        if (++number % 16 === 0) yield undefined;
      }
    }
  }

  #newChecksums(): Checksums {
    const { io } = this.#volume;
    return new Checksums(io, { name: this.etag, root: this.top.root, plane: this.#plane });
  }

  #readFrame(run: Run, number: number, frame: Uint8Array, checksums: Checksums): void {
    const { crcs, known } = this.#checksums();
    const blocks = frame.subarray(FRAME_LAYOUT.size);
    this.#volume.io.store.read(run.start, blocks);
    checksums.check(run.start, blocks);
    crcs[number] = sealFrame(frame, run.start, run.count);
    known[number] = 1;
  }
}

/** The checksum of an index from the checksums of its parts, each the runs of one page. */
export function checksumOfParts(crcs: readonly number[]): number {
  return checksum(new Uint8Array(new Uint32Array(crcs).buffer));
}

function runsOfPage(plane: Plane, index: number, count: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(count * RUN_LAYOUT.size);
  const view = new DataView(bytes.buffer);
  let at = 0;
  forEachRunOfPage(plane.page(index), (start, length) => {
    view.setUint32(at, index * PAGE_BITS + start, true);
    view.setUint32(at + 4, length, true);
    at += RUN_LAYOUT.size;
  });
  assert(at === bytes.length, "a page has as many runs as were counted");
  return bytes;
}

/** Byte at which the frames of a stream begin. */
export function framesOffset(header: StreamHeader): number {
  return STREAM_HEADER_LAYOUT.size +
    (header.runCount + header.deallocatedCount) * RUN_LAYOUT.size + INDEX_END_LAYOUT.size;
}
