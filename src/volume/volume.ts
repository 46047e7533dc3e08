/**
 * A volume: one file system, its snapshots and its pointers over a block store.
 *
 * Invariants (I2, I3, I6 of the design, as they bind this module):
 * 1. Between consistency points nothing on disk changes meaning: blocks go to free places, then a
 *    sync, then one superblock slot, then a sync. The slots are written in turn.
 * 2. Whoever changes something holds the volume alone (`exclusive`) until it is in memory whole; it
 *    is acknowledged after the consistency point that has it.
 * 3. The first error while writing poisons the volume: nothing is written after it, and the state on
 *    disk is that of the last consistency point.
 * 4. A replica's blocks change only through a received image; its root moves only by `flip`.
 * 5. A snapshot is listed here only if the current root lists it (or is it) and its blocks are all
 *    here.
 *
 * States: open -> (write error) poisoned -> closed; open -> closed. A volume that a full image is
 * filling is `incoming`: it has no root until `flip`.
 *
 * @module
 */

import { assert, damaged, messageOf, pageCountOf, VolcastError } from "../core/mod.ts";
import {
  bytesToHex,
  decodePointers,
  decodeRoot,
  decodeSnapshots,
  INO,
  type Pointer,
  type PointerRecord,
  type Root,
  SNAPSHOT_ID_PATTERN,
  snapshotId,
  type SnapshotRecord,
  type Superblock,
  type Zone,
  zoneOf,
} from "../format/mod.ts";
import { type BlockStore, GatheringStore } from "../store/mod.ts";
import { BlockCache, BlockIo } from "./block_io.ts";
import { BlockTree } from "./block_tree.ts";
import { writeCheckpoint } from "./checkpoint.ts";
import { FileSystem } from "./file_system.ts";
import { type Lease, Leases } from "./leases.ts";
import { LiveFileSystem, readAll } from "./live_file_system.ts";
import { EMPTY_LOCAL_STATE, type LocalState, LocalZone } from "./local_state.ts";
import { Mutex } from "./mutex.ts";
import { emptyRoot, makeMetafiles } from "./new_volume.ts";
import { PlaneFile } from "./plane_file.ts";
import { Space } from "./space.ts";
import { readSuperblock, type Step, Superblocks } from "./superblocks.ts";
import { Writer } from "./writer.ts";

/** Settings of an open volume. */
export interface VolumeOptions {
  /** Most bytes of the block cache; 64 MiB by default. */
  readonly cacheBytes?: number;
  /** Changed metadata kept in memory before a consistency point is made; 32 MiB by default. */
  readonly dirtyBytes?: number;
  /** Longest time between a change and the consistency point that has it, ms; 10,000 by default. */
  readonly checkpointMs?: number;
  /** ns since 1970; the host's clock by default. */
  readonly now?: () => bigint;
}

/** What a new volume is made with. */
export interface CreateOptions extends VolumeOptions {
  /** 32 hexadecimal digits; random by default. */
  readonly volumeId?: string;
}

/** A snapshot as it can be used here. */
export interface Snapshot extends SnapshotRecord {
  /** The same at every node. */
  readonly id: string;
}

/** A file system held for reading. Release it when done: its blocks are kept until then. */
export interface View {
  readonly snapshot: Snapshot;
  /** @throws {VolcastError} `busy` when the lease was ended. */
  readonly fs: FileSystem;
  /** Ends the hold; more than once is fine. */
  release(): void;
}

/** Name under which the last consistency point can be read. */
export const ACTIVE = "active";
/** Name of the pointer that sites follow. */
export const MASTER = "master";

/** See the module. */
export class Volume {
  readonly zone: Zone;
  readonly io: BlockIo;
  readonly leases: Leases;
  readonly options: Required<VolumeOptions>;
  readonly #store: GatheringStore;
  readonly #localZone: LocalZone;
  readonly #exclusive = new Mutex();
  readonly #localMutex = new Mutex();
  readonly #fileSystems = new Map<string, FileSystem>();
  readonly volumeId: string;
  readonly #superblocks: Superblocks;
  #local: LocalState;
  #root: Root | undefined;
  #snapshots: SnapshotRecord[] = [];
  #pointers: PointerRecord[] = [];
  #writer: Writer | undefined;
  /** What `snapshots` gives until the root or the local state changes. */
  #listed: readonly Snapshot[] | undefined;
  #poison: VolcastError | undefined;
  #closed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastCheckpoint = 0;

  private constructor(
    store: BlockStore,
    parts: { zone: Zone; volumeId: string; options: VolumeOptions; superblock?: Superblock },
  ) {
    this.options = {
      cacheBytes: parts.options.cacheBytes ?? 64 * 2 ** 20,
      dirtyBytes: parts.options.dirtyBytes ?? 32 * 2 ** 20,
      checkpointMs: parts.options.checkpointMs ?? 10_000,
      now: parts.options.now ?? (() => BigInt(Date.now()) * 1_000_000n),
    };
    this.zone = parts.zone;
    this.volumeId = parts.volumeId;
    this.#store = new GatheringStore(store);
    this.io = new BlockIo(this.#store, new BlockCache(this.options.cacheBytes));
    this.#superblocks = new Superblocks(this.io, parts, parts.superblock);
    this.leases = new Leases(() => this.#writer?.space.expire(this.leases.oldest));
    this.#localZone = new LocalZone(this.#store, this.zone);
    this.#local = this.#localZone.read();
  }

  /** Makes a new, empty volume that takes the whole store. */
  static async create(store: BlockStore, options: CreateOptions = {}): Promise<Volume> {
    const zone = zoneOf(store.capacity);
    const volumeId = options.volumeId ?? bytesToHex(crypto.getRandomValues(new Uint8Array(16)));
    const volume = new Volume(store, { zone, volumeId, options });
    volume.#local = structuredClone(EMPTY_LOCAL_STATE);
    const root = emptyRoot(volumeId);
    const space = new Space(zone.data, pageCountOf(zone.capacity));
    const live = new LiveFileSystem(volume.io, root, space, volume.options.now);
    const { io, options: { now } } = volume;
    makeMetafiles({ io, capacity: zone.capacity, now: now() }, live, space);
    await volume.#localZone.write(volume.#local);
    await volume.#commitRoot(live, space, 0);
    volume.#startWriting();
    return volume;
  }

  /**
   * Opens a volume: takes the newest valid superblock, checks its root, reads the tables.
   *
   * @throws {VolcastError} `damaged` (not a volume, truncated, no valid root) or `unsupported`.
   */
  static open(store: BlockStore, options: VolumeOptions = {}): Volume {
    const superblock = readSuperblock(store);
    if (store.capacity < superblock.capacity) {
      throw damaged(
        `Cannot open the volume: it has ${superblock.capacity} blocks, its file only ${store.capacity}`,
        "The file was cut off: copy it again from where it came",
      );
    }
    const zone = zoneOf(superblock.capacity);
    if (zone.data.start !== superblock.dataStart) {
      throw new VolcastError(
        "unsupported",
        `Cannot open the volume: its data begins at VBN ${superblock.dataStart}, here at ${zone.data.start}`,
      );
    }
    const { volumeId } = superblock;
    const volume = new Volume(store, { zone, volumeId, options, superblock });
    volume.#loadRoot();
    if (superblock.role === "origin") volume.#startWriting();
    return volume;
  }

  /**
   * A volume that a full image will fill; it has no root until {@linkcode flip}. A store that was
   * filled in part before goes on from its local zone.
   */
  static incoming(
    store: BlockStore,
    volumeId: string,
    options: VolumeOptions = {},
  ): Volume {
    return new Volume(store, { zone: zoneOf(store.capacity), volumeId, options });
  }

  /** Whether this node writes the volume, or follows a parent. */
  get role(): "origin" | "replica" {
    return this.#superblocks.inForce?.role ?? "replica";
  }

  /** Whether there is a root: false until a full image has come in whole. */
  get hasRoot(): boolean {
    return this.#superblocks.inForce !== undefined;
  }

  /** The superblock in force. */
  get superblock(): Superblock {
    const { inForce } = this.#superblocks;
    assert(inForce !== undefined, "the volume has a root");
    return inForce;
  }

  /** The root in force: that of the last consistency point. */
  get root(): Root {
    assert(this.#root !== undefined, "the volume has a root");
    return this.#root;
  }

  /** What this node knows for itself. Read-only: see {@linkcode updateLocal}. */
  get local(): Readonly<LocalState> {
    return this.#local;
  }

  /** Blocks that can be given out now; unknown (0) at a replica. */
  get freeBlocks(): number {
    return this.#writer?.space.freeCount ?? 0;
  }

  /** Bytes of changed metadata in memory. */
  get dirtyBytes(): number {
    return this.#writer === undefined ? 0 : this.#writer.dirtyBytes;
  }

  /** The error after which nothing is written any more, if there was one. */
  get poisoned(): VolcastError | undefined {
    // Content is written outside of consistency points too, and the store knows what failed there.
    return this.#poison ?? this.#store.failure;
  }

  /** The snapshot that is the current root: what was applied here, or the last consistency point. */
  get current(): Snapshot {
    const { cp, root, applied } = this.superblock;
    return {
      id: snapshotId({ cp, root }),
      name: applied?.name ?? ACTIVE,
      cp,
      root,
      time: applied?.time ?? this.root.time,
      blockCount: this.root.blockCount,
    };
  }

  /** Snapshots that can be read here, oldest first. At a replica the current one is the last. */
  snapshots(): readonly Snapshot[] {
    return this.#listed ??= this.#listSnapshots();
  }

  #listSnapshots(): Snapshot[] {
    const listed = this.#snapshots.map((record) => ({ ...record, id: snapshotId(record) }));
    if (this.role === "origin") return listed;
    const held = new Set(this.#local.held);
    return [...listed.filter((snapshot) => held.has(snapshot.id)), this.current];
  }

  /** Named pointers. At a replica `master` is what was applied, whatever the root's table says. */
  pointers(): PointerRecord[] {
    const present = new Set(this.snapshots().map((snapshot) => snapshot.id));
    const listed = this.#pointers.filter((pointer) => present.has(pointer.snapshot));
    if (this.role === "origin") return listed;
    return [
      { name: MASTER, snapshot: this.current.id },
      ...listed.filter((pointer) => pointer.name !== MASTER),
    ];
  }

  /**
   * The snapshot that a pointer, an id or a name means; `active` is the last consistency point.
   * @throws {VolcastError} `not-found`, naming what there is.
   */
  resolve(ref: string): Snapshot {
    const found = this.find(ref);
    if (found !== undefined) return found;
    const names = this.snapshots().map((snapshot) => snapshot.name);
    throw new VolcastError(
      "not-found",
      `Cannot find a snapshot or pointer '${ref}'`,
      names.length > 0
        ? `There are: ${names.slice(-8).join(", ")}`
        : "There is no snapshot yet: take one with volcast publish or volcast snapshot create",
    );
  }

  /** Like {@linkcode resolve}, `undefined` when there is none. */
  find(ref: string): Snapshot | undefined {
    const snapshots = this.snapshots();
    const pointer = this.pointers().find((candidate) => candidate.name === ref);
    const wanted = pointer?.snapshot ?? ref;
    if (wanted === ACTIVE) return this.current;
    return SNAPSHOT_ID_PATTERN.test(wanted)
      ? snapshots.find((snapshot) => snapshot.id === wanted) ??
        (this.current.id === wanted ? this.current : undefined)
      : snapshots.find((snapshot) => snapshot.name === wanted);
  }

  /** Holds a file system for reading. @param ref As in {@linkcode resolve}. */
  view(ref: string = ACTIVE): View {
    const snapshot = this.resolve(ref);
    const lease: Lease = this.leases.take(snapshot, this.superblock.cp);
    const fs = this.fileSystem(snapshot);
    return {
      snapshot,
      get fs(): FileSystem {
        lease.check();
        return fs;
      },
      release: () => lease.release(),
    };
  }

  /** The file system of a snapshot, without a lease: for who excludes changes otherwise. */
  fileSystem(snapshot: { id: string; root: Pointer }): FileSystem {
    let fs = this.#fileSystems.get(snapshot.id);
    if (fs === undefined) {
      fs = new FileSystem(this.io, decodeRoot(this.io.read(snapshot.root)));
      if (this.#fileSystems.size >= 16) this.#fileSystems.clear();
      this.#fileSystems.set(snapshot.id, fs);
    }
    return fs;
  }

  /** The plane of a snapshot: the block map as of it. */
  plane(snapshot: { id: string; root: Pointer }): PlaneFile {
    const { tree } = this.fileSystem(snapshot).open(INO.blockMap);
    return new PlaneFile(tree, pageCountOf(this.zone.capacity));
  }

  /**
   * Runs `work` with the volume alone. What it changes becomes durable with the next consistency
   * point: call `writer.checkpoint()` before acknowledging.
   *
   * @throws {VolcastError} `read-only` at a replica; the first write error for ever after it.
   */
  exclusive<T>(work: (writer: Writer) => T | Promise<T>): Promise<T> {
    return this.#exclusive.run(async () => {
      this.#checkWritable();
      try {
        return await work(this.#writer!);
      } finally {
        this.#armTimer();
      }
    });
  }

  /** Makes what was changed durable. */
  checkpoint(): Promise<void> {
    return this.exclusive((writer) => writer.checkpoint());
  }

  /** Changes this node's own state and makes it durable; callers that come together share one write. */
  async updateLocal(change: (state: LocalState) => void): Promise<void> {
    const next = structuredClone(this.#local);
    change(next);
    this.#localZone.check(next);
    this.#local = next;
    this.#listed = undefined;
    await this.#localMutex.run(async () => {
      // Somebody before in the queue has written this change already, with a later one.
      if (this.#writtenLocal === this.#local) return;
      const state = this.#local;
      await this.#guarded(() => this.#localZone.write(state));
      this.#writtenLocal = state;
    });
  }
  #writtenLocal: LocalState | undefined;

  /** Notes who has the volume open, for others' messages. */
  noteOwner(url: string | undefined): void {
    this.#localZone.writeOwner({ pid: Deno.pid, ...(url === undefined ? {} : { url }) });
    this.#store.flush();
  }

  /** Replica: writes blocks of an image that is coming in; nothing reaches them yet. */
  writeReceived(vbn: number, bytes: Uint8Array): void {
    assert(this.role === "replica", "images come into replicas");
    this.#checkHealthy();
    this.io.writeRun(vbn, bytes);
  }

  /** Makes received blocks durable. */
  async syncReceived(): Promise<void> {
    await this.#guarded(() => this.#store.sync());
  }

  /**
   * Replica: makes a received root the current one. Its blocks are all here, verified and durable;
   * the caller has seen to that (I6).
   */
  async flip(next: { cp: number; root: Pointer; name: string; time: bigint }): Promise<void> {
    await this.#guarded(() => this.#store.sync());
    await this.#move({ ...next, kind: "apply" });
  }

  /** Commits what is in memory, ends every lease and gives the store back. */
  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    try {
      if (this.#writer?.isDirty && this.poisoned === undefined) await this.checkpoint();
      await this.#localMutex.run(() => {});
    } finally {
      this.#closed = true;
      this.leases.endAll();
      if (this.#timer !== undefined) clearTimeout(this.#timer);
      this.#store.close();
    }
  }

  /** Closes the store as it is, as a crash would: nothing is committed. */
  abandon(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#closed = true;
    this.leases.endAll();
    this.#store.close();
  }

  #loadRoot(): void {
    const { root, volumeId, cp } = this.superblock;
    const decoded = decodeRoot(this.io.read(root));
    if (decoded.volumeId !== volumeId || decoded.cp !== cp) {
      throw damaged(
        `Cannot open the volume: the root says volume ${decoded.volumeId} and CP ${decoded.cp}, the ` +
          `superblock ${volumeId} and ${cp}`,
      );
    }
    this.#root = decoded;
    this.#listed = undefined;
    const fs = this.fileSystem({ id: snapshotId({ cp, root }), root });
    this.#snapshots = decodeSnapshots(readAll(fs, INO.snapshots));
    this.#pointers = decodePointers(readAll(fs, INO.pointers));
  }

  #startWriting(): void {
    const { zone } = this;
    const root = this.root;
    const space = new Space(zone.data, pageCountOf(zone.capacity));
    const live = new LiveFileSystem(this.io, root, space, this.options.now);
    const trees = [INO.blockMap, INO.summary].map((ino) => {
      const inode = live.readInode(ino);
      return new BlockTree(this.io, inode.height, inode.slots, space);
    });
    space.attach(trees[0], trees[1]);
    space.reclaim = () => this.leases.endAll();
    this.#writer = new Writer({
      volume: this,
      live,
      space,
      commit: () => this.#commitRoot(live, space, this.superblock.root.vbn),
      lastCommit: () => this.#lastCheckpoint,
    });
  }

  async #commitRoot(live: LiveFileSystem, space: Space, oldRoot: number): Promise<void> {
    await this.#guarded(async () => {
      const { pointer, root } = writeCheckpoint({
        io: this.io,
        live,
        space,
        oldRoot,
        time: this.options.now(),
        volumeId: this.volumeId,
        line: live.root,
      });
      await this.#store.sync();
      await this.#move({ kind: "commit", cp: root.cp, root: pointer });
      live.cp = root.cp + 1;
      space.committed(root.cp, this.leases.oldest);
      this.#lastCheckpoint = Date.now();
      if (this.#timer !== undefined) clearTimeout(this.#timer);
      this.#timer = undefined;
    });
  }

  async #move(step: Step): Promise<void> {
    await this.#guarded(() => this.#superblocks.move(step, () => this.#loadRoot()));
  }

  /** Runs something that writes; any error there poisons the volume. */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    this.#checkHealthy();
    try {
      return await work();
    } catch (error) {
      this.#poison ??= error instanceof VolcastError
        ? error
        : new VolcastError("io", `Cannot write the volume: ${messageOf(error)}`, "", {
          cause: error,
        });
      throw error;
    }
  }

  #checkHealthy(): void {
    assert(!this.#closed, "the volume is open");
    const { poisoned } = this;
    if (poisoned === undefined) return;
    throw new VolcastError(
      poisoned.kind,
      `Cannot write: an earlier write failed (${poisoned.message})`,
      "Nothing was written after it. Put the cause right and open the volume again",
      { cause: poisoned },
    );
  }

  #checkWritable(): void {
    this.#checkHealthy();
    if (this.#writer !== undefined) return;
    throw new VolcastError(
      "read-only",
      "Cannot change the volume: it is a replica and follows its parent",
      "Publish at the origin",
    );
  }

  /** Something changed: a consistency point will have it in time even if nobody asks for one. */
  #armTimer(): void {
    if (this.#timer !== undefined || this.#closed || !this.#writer?.isDirty) return;
    const timer = setTimeout(() => {
      this.#timer = undefined;
      // A failure poisons the volume, and the next caller is told.
      if (!this.#closed) this.checkpoint().catch(() => {});
    }, this.options.checkpointMs);
    Deno.unrefTimer(timer);
    this.#timer = timer;
  }
}
