/**
 * An image of a volume: `top`, `top - base`, or any other expression of snapshots, as a stream of bytes
 * that are the same at every node and every time (I5), so that any range of them can be produced alone.
 *
 * Source: WO 00/07104, storage images by logical difference of bit planes, section "Volume Mirroring".
 *
 * Invariants:
 * 1. What is sent is exactly the plane of the expression: of `top - base` `plane(top)` and not
 *    `plane(base)`.
 * 2. Position in the stream is a function of the planes; producing from an offset gives the same
 *    bytes as producing from the start and dropping what is before it.
 * 3. A block is sent only if it has the checksum that the pointer to it says (I1).
 * 4. The leases on all snapshots whose planes or blocks are read are held as long as somebody reads.
 *
 * @module
 */

import { createHash } from "node:crypto";
import {
  assert,
  damaged,
  difference,
  forEachRunOfPage,
  PAGE_BITS,
  type Plane,
} from "../core/mod.ts";
import {
  checksum,
  encodeEnd,
  encodeIndexEnd,
  encodeStreamHeader,
  encodeTerms,
  END_LAYOUT,
  FRAME_LAYOUT,
  INDEX_END_LAYOUT,
  type Pointer,
  RUN_LAYOUT,
  sealFrame,
  STREAM_FORMAT_VERSION,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
  streamLength,
  type StreamSnapshot,
  TERM_LAYOUT,
} from "../format/mod.ts";
import {
  type BlockIo,
  isShadow,
  type PlaneChange,
  type Snapshot,
  type Volume,
} from "../volume/mod.ts";
import { Checksums } from "./checksums.ts";
import { countChange, countPages, type Counts, type PageCounts } from "./frames.ts";
import { type Batch, type PlannedBatch, ReadAhead, type Wanted } from "./read_ahead.ts";
import { SharedBatches } from "./shared_batches.ts";
import { baseName, stateFor } from "./shadow_base.ts";
import {
  type ImageParts,
  type ImageTerm,
  planeOfBase,
  type StorageImage,
} from "./storage_image.ts";

/** Bytes to send, or what is to be waited for before there are some; `undefined`: for nobody. */
type Step = Uint8Array<ArrayBuffer> | Promise<void> | undefined;

/** Identity of an image. */
export interface ImageName {
  readonly volumeId: string;
  /** The base as {@linkcode baseName} writes it, `undefined` for a full image. */
  readonly base: string | undefined;
  /** Id of the top. */
  readonly top: string;
}

/** A plane is read from a disk: who made its checksums right may have put anything into it. */
function checkWithin({ zone }: Volume, { name }: Snapshot, end: number): void {
  if (end <= zone.capacity) return;
  throw damaged(
    `Cannot make an image of '${name}': a plane has VBN ${
      end - 1
    }, the volume ${zone.capacity} blocks`,
    "Run: volcast fsck",
  );
}

/** A planned image; nothing was read yet but planes. */
export class Image {
  readonly name: ImageName;
  readonly header: StreamHeader;
  readonly top: Snapshot;
  readonly base: Snapshot | undefined;
  /** Tops and bases besides these two. */
  readonly terms: readonly ImageTerm[];
  /** The image by ids, as a query of its URL; `undefined` for `top` and `top - base`. */
  readonly query: ImageParts["query"];
  /** Runs counted across pages: a run that goes on in the next page is one. */
  readonly longRuns: number;
  readonly #volume: Volume;
  /** As it was when this was planned: with staged blocks the volume may get another one. */
  readonly #io: BlockIo;
  readonly #plane: Plane;
  readonly #deallocated: Plane | undefined;
  readonly #termBytes: Uint8Array<ArrayBuffer>;
  /** Snapshots that are read. */
  readonly #read: readonly Snapshot[];
  /** Where the checksums of blocks are found. */
  readonly #pointers: { readonly roots: readonly Pointer[]; readonly excluded?: Plane };
  readonly #pages: PageCounts[];
  readonly #deallocatedPages: PageCounts[];
  /** Checksums of frames as far as they were read, by number of the frame; see `#known`. */
  #crcs: Uint32Array | undefined;
  #known: Uint8Array | undefined;
  #digest: Uint8Array | undefined;
  #indexCrc: number | undefined;
  #identity: string | undefined;
  /** What was sent last, of all streams. */
  readonly #shared = new SharedBatches();

  /**
   * Plans `top - base`, or all of `top`; with `parts` another image between them. Costs O(changed
   * pages), reads planes only.
   */
  constructor(volume: Volume, top: Snapshot, base?: Snapshot, parts: ImageParts = {}) {
    this.#volume = volume;
    this.#io = volume.io;
    this.top = top;
    this.base = base;
    this.terms = parts.terms ?? [];
    this.query = parts.query;
    const state = base !== undefined && isShadow(base)
      ? parts.state ?? stateFor(volume, base, top)
      : undefined;
    const baseText = base === undefined ? undefined : baseName(base, state);
    this.name = { volumeId: volume.volumeId, base: baseText, top: top.id };
    const planned = planesOf(volume, { top, base, state }, parts);
    const { plane, deallocated, excluded } = planned;
    this.#plane = plane;
    this.#deallocated = deallocated;
    const tops = this.terms.filter(({ role }) => role === "top").map(({ snapshot }) => snapshot);
    const roots = (parts.reaching ?? [top, ...tops]).map(({ root }) => root);
    this.#pointers = { roots, ...(excluded === undefined ? {} : { excluded }) };
    // Of a base that is not here only the plane is, in memory.
    const isLent = base !== undefined && volume.lent.base(base.id) !== undefined;
    const planes = [
      ...this.terms.map(({ snapshot }) => snapshot),
      state ?? (isLent ? undefined : base),
    ];
    this.#read = parts.read ?? [top, ...planes.filter((one) => one !== undefined)];
    this.#termBytes = encodeTerms(
      this.terms.map(({ role, snapshot }) => ({ role, ...endOf(snapshot) })),
    );
    const { sent, gone } = counted(planned);
    checkWithin(volume, top, sent.totals.end);
    this.#pages = sent.pages;
    this.longRuns = sent.totals.longRuns;
    this.#deallocatedPages = gone?.pages ?? [];
    const counts = {
      ...sent.totals,
      deallocated: gone?.totals.runs ?? 0,
      terms: this.terms.length,
    };
    this.header = {
      volumeId: volume.volumeId,
      capacity: volume.zone.capacity,
      dataStart: volume.zone.data.start,
      top: endOf(top),
      ...(base === undefined ? {} : { base: endOf(base) }),
      blockCount: counts.blocks,
      runCount: counts.runs,
      deallocatedCount: counts.deallocated,
      frameCount: counts.frames,
      byteCount: streamLength(counts),
      ...(counts.terms === 0
        ? {}
        : { terms: { count: counts.terms, crc: checksum(this.#termBytes) } }),
      ...(parts.fragment === true ? { fragment: true } : {}),
      ...(state === undefined ? {} : { shadowState: { cp: state.cp, crc: state.root.crc } }),
    };
  }

  /** The image that an expression selects. */
  static of(volume: Volume, selected: StorageImage): Image {
    return new Image(volume, selected.top, selected.base, selected);
  }

  /**
   * The image `top - base` where what leads from one to the other is known already, as from marks: it
   * costs nothing to choose then. The bytes are those of any other such image.
   *
   * @param change Must not change any more; `undefined`: the planes are compared.
   */
  static between(
    volume: Volume,
    top: Snapshot,
    base: Snapshot | undefined,
    change: PlaneChange | undefined,
  ): Image {
    const parts = change === undefined
      ? {}
      : { plane: change.allocated, deallocated: change.deallocated };
    return new Image(volume, top, base, parts);
  }

  /** Bytes of the whole stream. */
  get byteCount(): number {
    return this.header.byteCount;
  }

  /** Strong entity tag without quotes, equal at every node. */
  get etag(): string {
    const { volumeId, base, top } = this.name;
    const name = this.query === undefined ? `${base ?? "full"}.${top}` : this.identity;
    return `${STREAM_FORMAT_VERSION}.${volumeId}.${name}`;
  }

  /** See {@linkcode identityOf}. Costs the index once. */
  get identity(): string {
    return this.#identity ??= identityOf(this.header, this.#checksumOfIndex());
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
    const { leases: all, superblock: { cp } } = this.#volume;
    const leases = this.#read.map((snapshot) => all.take(snapshot, cp, () => void end()));
    const ahead = new ReadAhead(this.#io.store);
    const leave = this.#shared.join();
    const chunks = this.#chunks({ from, to }, ahead);
    let position = from;
    let ended = false;
    const end = async () => {
      if (ended) return;
      ended = true;
      await ahead.settled();
      for (const lease of leases) lease.release();
      leave();
      options.onEnd?.();
    };
    return new ReadableStream({
      pull: async (controller) => {
        try {
          while (position < to) {
            for (const lease of leases) lease.check();
            const next = chunks.next();
            assert(!next.done, "the stream is as long as was planned");
            if (!(next.value instanceof Uint8Array)) {
              // Nothing to send yet: the disks are at work, or others may want to run.
              await (next.value ?? this.#volume.options.clock.turn());
              continue;
            }
            const chunk = next.value.subarray(0, to - position);
            position += chunk.length;
            controller.enqueue(chunk);
            break;
          }
          if (position < to) return;
          await end();
          controller.close();
        } catch (error) {
          await end();
          controller.error(error);
        }
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  /**
   * Parts of the stream from byte `from` on, and no more work than those up to `to` need. Where there is
   * nothing to send yet: a promise to wait for, or `undefined` after work.
   */
  *#chunks({ from, to }: { from: number; to: number }, ahead: ReadAhead): Generator<Step> {
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
    yield* cut(this.#termBytes);
    const indexBytes = (header.runCount + header.deallocatedCount) * RUN_LAYOUT.size;
    if (skip >= indexBytes) skip -= indexBytes;
    else for (const part of this.#indexParts()) yield* cut(part);
    yield* cut(indexEnd);

    yield* this.#frameChunks({ from: skip, to: to - framesOffset(header) }, ahead);
    // What was not sent has to be read for the digest, unless it was sent to somebody before.
    yield* this.#readUnknown(ahead);
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

  /** The frames between two bytes of their part, several small ones in a chunk. */
  *#frameChunks(range: { from: number; to: number }, ahead: ReadAhead): Generator<Step> {
    const find = (planned: PlannedBatch) => this.#shared.find(planned);
    for (const batch of this.#sealed({ ...range, find }, ahead)) {
      yield batch === undefined || batch instanceof Promise
        ? batch
        : batch.bytes.subarray(batch.skip);
    }
  }

  /** Reads the frames whose checksums are not known yet, and now and then lets others run. */
  *#readUnknown(ahead: ReadAhead): Generator<Step> {
    const { known } = this.#checksums();
    if (this.#digest !== undefined || !known.includes(0)) return;
    let count = 0;
    for (const batch of this.#sealed({ isWanted: (number) => known[number] === 0 }, ahead)) {
      if (batch === undefined || batch instanceof Promise) yield batch;
      else if (++count % 16 === 0) yield undefined;
    }
  }

  /** Batches of frames whose blocks have been checked and whose headers were made. */
  *#sealed(
    wanted: Omit<Wanted, "plane" | "pages">,
    ahead: ReadAhead,
  ): Generator<Batch | Promise<void> | undefined> {
    const { crcs, known } = this.#checksums();
    const checksums = this.#newChecksums();
    const steps = ahead.batches({ plane: this.#plane, pages: this.#pages, ...wanted });
    for (const batch of steps) {
      if (batch instanceof Promise || batch.isSealed) {
        yield batch;
        continue;
      }
      for (const { run, number, bytes } of batch.frames) {
        yield* checksums.prepare(run.start);
        checksums.check(run.start, bytes.subarray(FRAME_LAYOUT.size));
        crcs[number] = sealFrame(bytes, run.start, run.count);
        known[number] = 1;
      }
      if (wanted.find !== undefined) this.#shared.keep({ ...batch, isSealed: true });
      yield batch;
    }
  }

  #newChecksums(): Checksums {
    return new Checksums(this.#io, { name: this.etag, ...this.#pointers });
  }
}

function endOf({ name, cp, root, time }: Snapshot): StreamSnapshot {
  return { name, cp, root, time };
}

/** The planes of an image. */
interface Planned {
  readonly plane: Plane;
  readonly deallocated?: Plane;
  readonly excluded?: Plane;
  /** The two whose differences `plane` and `deallocated` are. */
  readonly ends?: { readonly top: Plane; readonly base: Plane };
}

/** Counts the planes of an image; those of two snapshots by one look at both. */
function counted({ plane, deallocated, ends }: Planned): { sent: Counts; gone?: Counts } {
  if (ends !== undefined) {
    const change = countChange(ends.top, ends.base);
    return { sent: change.allocated, gone: change.deallocated };
  }
  const sent = countPages(plane);
  return deallocated === undefined ? { sent } : { sent, gone: countPages(deallocated) };
}

/** The planes of an image; where they are not given, those of `top - base`. */
function planesOf(
  volume: Volume,
  { top, base, state }: {
    top: Snapshot;
    base: Snapshot | undefined;
    state: Snapshot | undefined;
  },
  parts: ImageParts,
): Planned {
  const basePlane = base === undefined ? undefined : planeOfBase(volume, { base, state });
  // Below a block that a shadow has there may be one that it has not: bits go page by page, too.
  const excluded = parts.excluded ?? (state === undefined ? basePlane : undefined);
  const pruned = excluded === undefined ? {} : { excluded };
  if (parts.plane !== undefined) {
    const { plane, deallocated } = parts;
    return { plane, ...pruned, ...(deallocated === undefined ? {} : { deallocated }) };
  }
  const plane = volume.plane(top);
  if (basePlane === undefined) return { plane };
  return {
    plane: difference(plane, basePlane),
    deallocated: difference(basePlane, plane),
    ends: { top: plane, base: basePlane },
    ...pruned,
  };
}

/**
 * What an image is, by its header (which has the terms) and its index: equal only for equal bytes, since
 * the roots in the header fix the content of every block.
 */
export function identityOf(header: StreamHeader, indexCrc: number): string {
  return createHash("sha256").update(encodeStreamHeader(header)).update(encodeIndexEnd(indexCrc))
    .digest("hex").slice(0, 32);
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
  return STREAM_HEADER_LAYOUT.size + (header.terms?.count ?? 0) * TERM_LAYOUT.size +
    (header.runCount + header.deallocatedCount) * RUN_LAYOUT.size + INDEX_END_LAYOUT.size;
}
