/**
 * Applying an image: its blocks are put in their places, everything is checked, then one superblock
 * makes the new root current.
 *
 * Invariants:
 * 1. Until the flip nothing that the current root or a held snapshot reaches is changed: the image of
 *    `A - B` holds only VBNs that B does not have, and snapshots whose blocks come in are dropped (and
 *    that is durable) before the first write.
 * 2. I6: before the flip every frame, the counts and the end record have been checked; the set of VBNs
 *    received is A's plane without B's, as computed from the planes held here now; and every pointer
 *    below A's root into a received block has that block's checksum. Where an image has several tops,
 *    that holds for each, A being their sum.
 * 3. Blocks of an image that its bases here have already are compared, never written.
 * 4. What has arrived is recorded only after it is durable, so going on never skips a lost block.
 *
 * A crash leaves: before the first write the old state; while blocks come in the old root, and a record
 * of how far it got; after the flip the new root.
 *
 * @module
 */

import { createHash } from "node:crypto";
import {
  damaged,
  difference,
  hasBit,
  intersects,
  paced,
  pageCountOf,
  type Plane,
  type Run,
  sum,
  VolcastError,
} from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checkEnd,
  checkFrame,
  decodeRoot,
  encodeIndexEnd,
  encodeStreamHeader,
  END_LAYOUT,
  equalBytes,
  FRAME_BLOCKS,
  FRAME_LAYOUT,
  idOf,
  INO,
  sealFrame,
  type StreamHeader,
} from "../format/mod.ts";
import {
  type BlockIo,
  discardUnused,
  FileSystem,
  type Flushed,
  type Leased,
  PlaneFile,
  planStaging,
  retractedBy,
  type Snapshot,
  type StagedView,
  type Volume,
} from "../volume/mod.ts";
import { ByteReader, CutError } from "./byte_reader.ts";
import { countPages, FrameCursor } from "./frames.ts";
import { framesOffset, identityOf } from "./image.ts";
import type { ArrivedRoot } from "./plane_sums.ts";
import { readIndex, type StreamIndex } from "./stream_index.ts";
import { basesHere, checkFits, planeOfAll, topsOf, verifyReceived } from "./verify.ts";

/** Where an image's bytes come from: a file, or one parent after another. */
export interface ImageSource {
  /** The bytes from `offset` on. @throws What makes it impossible; then the transfer ends. */
  open(offset: number): Promise<ReadableStream<Uint8Array>>;
  /** The stream was cut or was not as it should be: whether to open it again, here or elsewhere. */
  retry(error: unknown, progressed: boolean): Promise<boolean>;
}

/** Options of {@linkcode applyImage}. */
export interface ApplyOptions {
  /** Called with bytes received and bytes in all. */
  readonly progress?: (done: number, total: number) => void;
  /** Longest wait for readers of snapshots that must go, ms; 10,000 by default. */
  readonly drainMs?: number;
  /** Bytes between two records of progress; 64 MiB by default. */
  readonly recordBytes?: number;
  /** A frame that is wrong may be so because of the line: those before it are kept all the same. */
  readonly isOverLine?: boolean;
  /** Ends the transfer between two frames; what has arrived is recorded. */
  readonly signal?: AbortSignal;
  /**
   * Looks at what has come in and is verified, before it becomes current; throws to refuse it.
   * @param header What the image says of itself.
   */
  readonly authenticate?: (header: StreamHeader, root: ArrivedRoot) => Promise<void>;
  /** Called with the header before any block comes; throws to refuse the image. */
  readonly accept?: (header: StreamHeader) => void;
  /** Called when local changes went: that is so even if the image does not come in whole. */
  readonly flushed?: (flushed: Flushed) => void;
}

/** What was done. */
export interface Applied {
  /** Id of the snapshot that is current now. */
  readonly top: string;
  readonly name: string;
  /** Id of the base, absent after a full image. */
  readonly base?: string;
  /** Names of the older snapshots that came along, oldest first; absent without any. */
  readonly along?: readonly string[];
  readonly blocks: number;
  /** Bytes taken from the source. */
  readonly bytes: number;
  /** Bytes of the whole stream. */
  readonly byteCount: number;
  /** Snapshots that went because their blocks were used again. */
  readonly dropped: readonly string[];
  /** Local changes that went, absent when there were none. */
  readonly flushed?: Flushed;
}

/**
 * Receives an image into a replica and makes it current. A volume without a root takes a full image,
 * one with a root an increment of which its current snapshot is a base.
 *
 * @throws {VolcastError} `diverged` (other volume, other base), `unsupported` (a fragment), `damaged`,
 *   `nothing` (it is current already), `io`, `full`. The volume then is as it was.
 */
export async function applyImage(
  volume: Volume,
  source: ImageSource,
  options: ApplyOptions = {},
): Promise<Applied> {
  const transfer = new Transfer(volume, source, options);
  return await transfer.run();
}

class Transfer {
  readonly #volume: Volume;
  readonly #source: ImageSource;
  readonly #options: ApplyOptions;
  #reader: ByteReader | undefined;
  #index: StreamIndex | undefined;
  /** Blocks of its bases here, where the image has some of them too. */
  #shared: Plane | undefined;
  #dropped: readonly Snapshot[] = [];
  #flushed: Flushed | undefined;
  /** Where blocks go that would come to lie on live ones. */
  #staged: StagedView | undefined;
  #bytes = 0;
  /** Frames that have arrived. */
  #done = 0;

  constructor(volume: Volume, source: ImageSource, options: ApplyOptions) {
    this.#volume = volume;
    this.#source = source;
    this.#options = options;
  }

  async run(): Promise<Applied> {
    try {
      this.#index = await this.#again(() => this.#readIndex());
      const { header, terms, plane } = this.#index;
      const bases = basesHere(this.#volume, this.#index);
      const known = planeOfAll(this.#volume, bases);
      const overlaps = known !== undefined && intersects(plane, known);
      if (overlaps && header.shadowState === undefined) this.#shared = known;
      const received = this.#shared === undefined ? plane : difference(plane, this.#shared);
      await this.#makeRoom(received, new Set(bases.map(({ id }) => id)));
      if (overlaps && header.shadowState !== undefined) await this.#stage(plane, known);
      await this.#receiveFrames(this.#index);
      await this.#volume.syncReceived();
      await verifyReceived(this.#volume, { header, terms, received, known, io: this.#io });
      const along = topsOf(this.#index).slice(0, -1);
      await this.#authenticate(header, received);
      await this.#finish(header, along.map(idOf));
      return {
        top: idOf(header.top),
        name: header.top.name,
        ...(header.base === undefined ? {} : { base: idOf(header.base) }),
        ...(along.length === 0 ? {} : { along: along.map(({ name }) => name) }),
        blocks: header.blockCount,
        bytes: this.#bytes,
        byteCount: header.byteCount,
        // What came along again is not gone.
        dropped: this.#dropped.filter((snapshot) => !along.some((top) => idOf(top) === snapshot.id))
          .map(({ name }) => name),
        ...(this.#flushed === undefined ? {} : { flushed: this.#flushed }),
      };
    } catch (error) {
      await this.#keepProgress(error);
      throw error;
    } finally {
      this.#volume.endReceiving();
      await this.#reader?.cancel();
    }
  }

  /** Runs a step from a place where the stream can be opened again. */
  async #again<T>(step: () => Promise<T>, progress: () => number = () => 0): Promise<T> {
    for (;;) {
      const before = progress();
      try {
        return await step();
      } catch (error) {
        const transient = error instanceof CutError ||
          error instanceof VolcastError && error.kind === "damaged";
        await this.#reader?.cancel();
        this.#reader = undefined;
        if (!transient || !(await this.#source.retry(error, progress() > before))) {
          throw error instanceof CutError ? cutOff(error) : error;
        }
      }
    }
  }

  async #authenticate(header: StreamHeader, received: Plane): Promise<void> {
    const { authenticate } = this.#options;
    if (authenticate === undefined) return;
    const io = this.#io;
    const { tree } = new FileSystem(io, decodeRoot(io.read(header.top.root))).open(INO.blockMap);
    const plane = new PlaneFile(tree, pageCountOf(this.#volume.zone.capacity));
    await authenticate(header, { volume: this.#volume, plane, received, io });
  }

  async #open(offset: number): Promise<ByteReader> {
    await this.#reader?.cancel();
    this.#reader = new ByteReader(await this.#source.open(offset));
    return this.#reader;
  }

  async #readIndex(): Promise<StreamIndex> {
    const index = await readIndex(
      await this.#open(0),
      (front) => {
        checkFits(this.#volume, front);
        this.#options.accept?.(front.header);
      },
    );
    this.#bytes += framesOffset(index.header);
    return index;
  }

  /**
   * Drops local changes, and the snapshots whose blocks come in, once nobody reads them; `kept` are not
   * among those.
   */
  async #makeRoom(plane: Plane, kept: ReadonlySet<string>): Promise<void> {
    const volume = this.#volume;
    if (!volume.hasRoot) return;
    this.#flushed = await volume.beginReceiving();
    if (this.#flushed !== undefined) this.#options.flushed?.(this.#flushed);
    const isInTheWay = (snapshot: Leased) =>
      !kept.has(snapshot.id) && intersects(plane, volume.plane(snapshot));
    const gone = volume.snapshots().filter(isInTheWay);
    const ids = new Set(gone.map((snapshot) => snapshot.id));
    if (gone.length > 0) {
      await volume.updateLocal((state) => {
        state.held = state.held.filter((id) => !ids.has(id));
      });
      this.#dropped = gone;
    }
    // Somebody may still read a snapshot that no list has any more.
    for (const leased of volume.leases.leased()) if (isInTheWay(leased)) ids.add(leased.id);
    if (ids.size > 0) await volume.leases.clear(ids, this.#options.drainMs ?? 10_000);
  }

  /**
   * Chooses places for the blocks that would come to lie on live ones of the base.
   * @throws {VolcastError} `full` when there are too few.
   */
  async #stage(received: Plane, live: Plane): Promise<void> {
    const volume = this.#volume;
    // What no list has any more may lie there too.
    await volume.endUnlisted(this.#options.drainMs);
    const kept = volume.snapshots().map((snapshot) => volume.plane(snapshot));
    const staging = planStaging({
      received,
      live,
      taken: sum(received, live, ...kept),
      data: volume.zone.data,
    });
    if (staging !== undefined) this.#staged = volume.stagedView(staging);
  }

  /** Where blocks are written to and read back from. */
  get #io(): BlockIo {
    return this.#staged?.io ?? this.#volume.io;
  }

  async #receiveFrames({ header, plane, indexCrc }: StreamIndex): Promise<void> {
    const { frames: frameCount } = countPages(plane).totals;
    if (frameCount !== header.frameCount) {
      throw damaged(
        `Cannot read the image: its index makes ${frameCount} frames, its header says ${header.frameCount}`,
      );
    }
    const crcs = new Uint32Array(frameCount);
    const frames = new FrameCursor(plane);
    const buffer = new Uint8Array(FRAME_LAYOUT.size + FRAME_BLOCKS * BLOCK_SIZE);
    let offset = framesOffset(header) + await this.#readBack(frames, crcs, buffer);
    if (this.#done > 0) {
      await this.#reader?.cancel();
      this.#reader = undefined;
    }
    const recordBytes = this.#options.recordBytes ?? 64 * 2 ** 20;
    let recorded = offset;
    await this.#again(async () => {
      const reader = this.#reader ?? await this.#open(offset);
      for (let run = frames.current; run !== undefined; run = frames.current) {
        this.#options.signal?.throwIfAborted();
        const frame = buffer.subarray(0, FRAME_LAYOUT.size + run.count * BLOCK_SIZE);
        await reader.fill(frame);
        crcs[this.#done] = checkFrame(frame, run.start, run.count);
        this.#put(run.start, frame.subarray(FRAME_LAYOUT.size));
        offset += frame.length;
        this.#bytes += frame.length;
        this.#done++;
        frames.advance();
        this.#options.progress?.(offset, header.byteCount);
        if (offset - recorded >= recordBytes) {
          await this.#record(header, this.#done);
          recorded = offset;
        }
      }
      const end = await reader.take(END_LAYOUT.size);
      checkEnd(end, frameCount, digestOf(header, indexCrc, crcs));
      if (!(await reader.atEnd())) throw damaged("Cannot read the image: bytes follow its end");
      this.#bytes += end.length;
    }, () => this.#done);
    this.#options.progress?.(header.byteCount, header.byteCount);
  }

  /** Writes blocks to their places; those that are there already must be the same (invariant 3). */
  #put(start: number, blocks: Uint8Array): void {
    if (this.#shared === undefined) {
      return this.#volume.writeReceived(start, blocks, this.#io);
    }
    const present = new Uint8Array(BLOCK_SIZE);
    for (let at = 0; at < blocks.length; at += BLOCK_SIZE) {
      const vbn = start + at / BLOCK_SIZE;
      const block = blocks.subarray(at, at + BLOCK_SIZE);
      if (!hasBit(this.#shared, vbn)) {
        this.#volume.writeReceived(vbn, block);
        continue;
      }
      this.#volume.io.store.read(vbn, present);
      if (equalBytes(block, present)) continue;
      throw damaged(
        `Cannot apply the image: it has another block at VBN ${vbn} than the snapshot here`,
        "Run: volcast fsck. If the volume is clean, the image is of another history",
      );
    }
  }

  /**
   * What an interrupted transfer of this very image left: read back, so that it is known to be there.
   * @returns Bytes of the frames that need not come again.
   */
  async #readBack(
    frames: FrameCursor,
    crcs: Uint32Array,
    buffer: Uint8Array,
  ): Promise<number> {
    const { transfer } = this.#volume.local;
    if (transfer === undefined || transfer.image !== this.#identity()) return 0;
    let byteCount = 0;
    const readOne = ({ start, count }: Run) => {
      const frame = buffer.subarray(0, FRAME_LAYOUT.size + count * BLOCK_SIZE);
      this.#io.store.read(start, frame.subarray(FRAME_LAYOUT.size));
      crcs[this.#done++] = sealFrame(frame, start, count);
      byteCount += frame.length;
      frames.advance();
      // Reading much of it back takes long: somebody waits to see that it goes on.
      const { header } = this.#index!;
      this.#options.progress?.(framesOffset(header) + byteCount, header.byteCount);
    };
    const limit = transfer.frames;
    const done = () => this.#done;
    await paced(
      (function* () {
        while (done() < limit && frames.current !== undefined) yield readOne(frames.current);
      })(),
      this.#volume.options.clock,
    );
    return byteCount;
  }

  /**
   * The transfer ended early: what has arrived is recorded for the next one. Not if something was wrong
   * with it: the next one begins anew then, or it would fail in the same way for ever. A frame that came
   * over a line may have been wrong on its way; it is none of what has arrived.
   */
  async #keepProgress(error: unknown): Promise<void> {
    const volume = this.#volume;
    if (volume.poisoned !== undefined) return;
    try {
      const isDamaged = error instanceof VolcastError &&
        ["damaged", "untrusted"].includes(error.kind) &&
        !(error.cause instanceof CutError) &&
        !(this.#options.isOverLine === true && this.#done !== this.#index?.header.frameCount);
      if (!isDamaged && this.#index !== undefined && this.#done > 0) {
        await this.#record(this.#index.header, this.#done);
      } else if (isDamaged && volume.local.transfer !== undefined) {
        await volume.updateLocal((state) => {
          delete state.transfer;
        });
      }
    } catch {
      // The error that ended the transfer is the one to be told.
    }
  }

  async #record(header: StreamHeader, frames: number): Promise<void> {
    await this.#volume.syncReceived();
    await this.#volume.updateLocal((state) => {
      state.transfer = {
        top: idOf(header.top),
        ...(header.base === undefined ? {} : { base: idOf(header.base) }),
        image: this.#identity(),
        frames,
      };
    });
  }

  #identity(): string {
    const { header, indexCrc } = this.#index!;
    const identity = identityOf(header, indexCrc);
    if (this.#staged === undefined) return identity;
    // Staged blocks are found again where they were put, or not at all.
    const { to } = this.#staged.staging.remap;
    return createHash("sha256").update(identity)
      .update(new Uint8Array(to.buffer, to.byteOffset, to.byteLength))
      .digest("hex").slice(0, identity.length);
  }

  async #finish(header: StreamHeader, along: readonly string[]): Promise<void> {
    const volume = this.#volume;
    // Before the flip: the base is complete and will be a snapshot of the new root, if that lists it.
    // So are the tops that came along.
    const retracted = retractedBy(volume, header.top);
    await volume.updateLocal((state) => {
      state.retracted = retracted;
      const listed = volume.hasRoot ? volume.snapshots().map((snapshot) => snapshot.id) : [];
      state.held = [...new Set([...listed, ...along])];
      delete state.transfer;
    });
    await volume.flip(header.top, this.#staged);
    // The new root is current, read from where its blocks are staged; now they go to their places.
    await volume.settle(this.#options.drainMs);
    discardUnused(volume);
  }
}

function digestOf(header: StreamHeader, indexCrc: number, crcs: Uint32Array): Uint8Array {
  return createHash("sha256")
    .update(encodeStreamHeader(header))
    .update(encodeIndexEnd(indexCrc))
    .update(new Uint8Array(crcs.buffer))
    .digest();
}

function cutOff(error: CutError): VolcastError {
  return new VolcastError(
    "damaged",
    `Cannot apply the image: it is incomplete (${error.message})`,
    "Fetch the rest, for example with curl -C -",
    { cause: error },
  );
}
