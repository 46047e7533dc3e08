/**
 * The writing side of a volume: who may change it, its consistency points, and the steps between roles.
 *
 * Invariants:
 * 1. Everything here happens one at a time, in order of arrival. Whoever changes something holds the
 *    volume alone until it is in memory whole.
 * 2. An origin has a writer. A replica has one only while it has local changes or begins some; they go
 *    before an image is written, and none begin until that has ended.
 * 3. Each step is one superblock; see the states in `superblocks.ts`.
 *
 * @module
 */

import { assert, pageCountOf, VolcastError } from "../core/mod.ts";
import { INO, type Root } from "../format/mod.ts";
import { BlockTree } from "./block_tree.ts";
import { writeCheckpoint } from "./checkpoint.ts";
import { LiveFileSystem } from "./live_file_system.ts";
import { Mutex } from "./mutex.ts";
import { emptyRoot, makeMetafiles } from "./new_volume.ts";
import { Space } from "./space.ts";
import type { Step } from "./superblocks.ts";
import { localChanges, makeWritable, nextEpoch } from "./takeover.ts";
import type { Flushed, Snapshot, Volume } from "./volume.ts";
import { Writer } from "./writer.ts";

/** Longest wait for readers of what no list has any more, ms. */
const DRAIN_MS = 10_000;

interface Parts {
  readonly volume: Volume;
  /** Writes and adopts the superblock behind a step. */
  readonly move: (step: Step) => Promise<void>;
  /** Puts staged blocks into their places. */
  readonly replay: () => Promise<void>;
  /** Runs something that writes; an error there poisons the volume. */
  readonly guarded: (work: () => Promise<void>) => Promise<void>;
  /** Nothing is written after this. */
  readonly poison: (error: VolcastError) => void;
  /** @throws What poisoned the volume, if anything did. */
  readonly checkHealthy: () => void;
  /** Makes what is in force durable once more, and takes writes again. */
  readonly retry: () => Promise<void>;
}

/** See the module. */
export class Writing {
  readonly #parts: Parts;
  readonly #volume: Volume;
  readonly #alone = new Mutex();
  #writer: Writer | undefined;
  /** Takes back the timer that makes a consistency point. */
  #timer: (() => void) | undefined;
  /** By the time that never goes back. */
  #lastCheckpoint = -Infinity;
  /** An image is coming in: its blocks lie where no plane is yet. */
  #receiving = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#volume = parts.volume;
  }

  /** The writer, if there is one now. */
  get writer(): Writer | undefined {
    return this.#writer;
  }

  /** Makes the first consistency point of a new volume. */
  async create(): Promise<void> {
    const { io, zone, volumeId, options: { now } } = this.#volume;
    const { live, space } = this.#live(emptyRoot(volumeId));
    makeMetafiles({ io, capacity: zone.capacity, now: now() }, live, space);
    await this.#commit({ live, space, kind: "commit" });
    this.open();
  }

  /** Begins to write where a writer is always there. */
  open(): void {
    if (this.#volume.role === "origin") this.#writer = this.#newWriter();
  }

  /** Runs `work` with the volume alone; see {@linkcode Volume.exclusive}. */
  exclusive<T>(work: (writer: Writer) => T | Promise<T>): Promise<T> {
    return this.#alone.run(async () => {
      this.#parts.checkHealthy();
      this.#checkWritable("change the volume");
      const writer = this.#writer ?? await this.#beginBranch();
      try {
        return await work(writer);
      } finally {
        this.#armTimer();
      }
    });
  }

  /** See {@linkcode Volume.settle}. */
  settle(drainMs?: number): Promise<void> {
    return this.#alone.run(() => this.#settle(drainMs));
  }

  async #settle(drainMs: number = DRAIN_MS): Promise<void> {
    const volume = this.#volume;
    if (!volume.hasRoot || volume.superblock.remap === undefined) return;
    this.#parts.checkHealthy();
    await this.endUnlisted(drainMs);
    await this.#parts.replay();
  }

  /** See {@linkcode Volume.recover}. */
  recover(): Promise<void> {
    return this.#alone.run(async () => {
      const volume = this.#volume;
      if (volume.poisoned === undefined || volume.isClosed) return;
      // It ends by itself: its next write is refused. Until then it may take for written what was lost.
      this.#checkNotReceiving("write again");
      await this.#parts.retry();
      const space = this.#writer?.space;
      this.stop();
      if (space === undefined) return;
      this.#writer = this.#newWriter();
      this.#writer.space.takeQuarantines(space);
    });
  }

  /** See {@linkcode Volume.endUnlisted}. */
  async endUnlisted(drainMs: number = DRAIN_MS): Promise<void> {
    const volume = this.#volume;
    const listed = new Set(volume.keptSnapshots().map(({ id }) => id)).add(volume.active.id);
    const gone = volume.leases.leased().filter(({ id }) => !listed.has(id)).map(({ id }) => id);
    await volume.leases.clear(new Set(gone), drainMs);
  }

  /** See {@linkcode Volume.beginReceiving}. */
  beginReceiving(): Promise<Flushed | undefined> {
    const volume = this.#volume;
    return this.#alone.run(async () => {
      this.#parts.checkHealthy();
      this.#checkWritable("take an image");
      assert(volume.role === "replica", "images come into replicas");
      await this.#settle();
      this.#receiving = true;
      this.stop();
      const flushed = localChanges(volume);
      if (flushed !== undefined) await this.#parts.move({ kind: "flush" });
      return flushed;
    });
  }

  /** The image is current, or did not come in whole. */
  endReceiving(): void {
    this.#receiving = false;
  }

  /** See {@linkcode Volume.promote}. */
  promote(): Promise<void> {
    const volume = this.#volume;
    return this.#alone.run(async () => {
      this.#parts.checkHealthy();
      this.#checkWritable("promote the volume");
      if (volume.role === "origin") {
        throw new VolcastError(
          "nothing",
          `Cannot promote the volume: it is an origin already, in epoch ${volume.root.epoch}`,
        );
      }
      await this.#settle();
      const writer = this.#writer ?? await this.#firstWriter();
      await this.#commit({ live: writer.fs, space: writer.space, kind: "promote" });
      this.#writer = writer;
    });
  }

  /** See {@linkcode Volume.goBack}. */
  goBack(to: Snapshot): Promise<void> {
    const volume = this.#volume;
    return this.#alone.run(async () => {
      this.#parts.checkHealthy();
      this.#checkWritable("go back");
      this.#checkNotReceiving("go back");
      await this.#settle();
      // What is readable now, and nothing that once was: the older root may list what is gone by now. For
      // the root in force this changes nothing, so a crash behind it does no harm.
      const held = volume.snapshots().map(({ id }) => id);
      await volume.updateLocal((state) => {
        state.held = held;
        delete state.transfer;
        // Another line may be followed from here on.
        delete state.moved;
        delete state.movedTo;
      });
      await this.#parts.move({ ...to, kind: "go-back" });
      this.stop();
    });
  }

  /** No writer from now on, and no timer that would want one. What it had in memory goes. */
  stop(): void {
    this.#writer = undefined;
    this.#disarmTimer();
  }

  /** A writer at a replica: it goes on with the local changes there are, or begins some. */
  async #beginBranch(): Promise<Writer> {
    const { options, hasRoot } = this.#volume;
    if (!options.localWrites || !hasRoot) {
      throw new VolcastError(
        "read-only",
        "Cannot change the volume: it is a replica and follows its parent",
        "Publish at the origin. To change it here until the next image comes in, use --local-writes",
      );
    }
    await this.#settle();
    return this.#writer = await this.#firstWriter();
  }

  async #firstWriter(): Promise<Writer> {
    const volume = this.#volume;
    this.#checkNotReceiving("change the volume");
    if (volume.superblock.branch !== undefined) return this.#newWriter();
    // Blocks of an image that was cut off lie where no plane is: they may be written over from now on.
    if (volume.local.transfer !== undefined) {
      await volume.updateLocal((state) => {
        delete state.transfer;
      });
    }
    await this.endUnlisted();
    const writer = this.#newWriter();
    await makeWritable(volume, writer.fs, writer.space);
    return writer;
  }

  #newWriter(): Writer {
    const volume = this.#volume;
    const { live, space } = this.#live(volume.activeRoot);
    const trees = [INO.blockMap, INO.summary].map((ino) => {
      const inode = live.readInode(ino);
      return new BlockTree(volume.io, inode.height, inode.slots, space);
    });
    space.attach(trees[0], trees[1]);
    const shadows = live.readInode(INO.shadows);
    if (shadows.mode !== 0) space.attachShadows(volume.io, shadows);
    space.tableBlocks = () => live.tableBlocks;
    space.reclaim = () => volume.leases.endAll();
    return new Writer({
      volume,
      live,
      space,
      commit: () =>
        this.#commit({ live, space, kind: volume.role === "origin" ? "commit" : "branch" }),
      lastCommit: () => this.#lastCheckpoint,
    });
  }

  #live(root: Root): { live: LiveFileSystem; space: Space } {
    const { io, zone, options } = this.#volume;
    const space = new Space(zone.data, pageCountOf(zone.capacity));
    space.contradicted = (error) => this.#parts.poison(error);
    return { live: new LiveFileSystem(io, root, space, options.now), space };
  }

  /** Makes a consistency point, and with it the step that `kind` names. */
  async #commit(
    { live, space, kind }: {
      live: LiveFileSystem;
      space: Space;
      kind: "commit" | "branch" | "promote";
    },
  ): Promise<void> {
    const volume = this.#volume;
    const { now, clock } = volume.options;
    const before = volume.hasRoot ? volume.activeRoot : live.root;
    await this.#parts.guarded(async () => {
      const { pointer, root } = writeCheckpoint({
        io: volume.io,
        live,
        space,
        oldRoot: volume.hasRoot ? volume.active.root.vbn : 0,
        time: now(),
        volumeId: volume.volumeId,
        nonce: clock.nonce(8),
        line: kind === "promote" ? nextEpoch(before, volume.superblock.cp, clock.nonce(8)) : before,
      });
      await volume.io.store.sync();
      await this.#parts.move({ kind, cp: root.cp, root: pointer });
      live.cp = root.cp + 1;
      space.committed(root.cp, volume.leases.oldest);
      this.#lastCheckpoint = clock.elapsed();
      this.#disarmTimer();
    });
  }

  #checkWritable(action: string): void {
    const { readOnlyBecause } = this.#volume.options;
    if (readOnlyBecause === "") return;
    throw new VolcastError(
      "read-only",
      `Cannot ${action}: ${readOnlyBecause}`,
      "Restore it first: volcast reintegrate BASE MIRROR -o VOLUME",
    );
  }

  #checkNotReceiving(action: string): void {
    if (!this.#receiving) return;
    throw new VolcastError(
      "busy",
      `Cannot ${action}: an image is coming in`,
      "Try again when it has come in",
    );
  }

  /** Something changed: a consistency point will have it in time even if nobody asks for one. */
  #armTimer(): void {
    const volume = this.#volume;
    if (this.#timer !== undefined || volume.isClosed || !this.#writer?.isDirty) return;
    this.#timer = volume.options.clock.timer(volume.options.checkpointMs, () => {
      this.#timer = undefined;
      // A failure poisons the volume, and the next caller is told.
      if (!volume.isClosed) volume.checkpoint().catch(() => {});
    }, { background: true });
  }

  #disarmTimer(): void {
    this.#timer?.();
    this.#timer = undefined;
  }
}
