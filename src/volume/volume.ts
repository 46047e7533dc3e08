/**
 * A volume: one file system, its snapshots and its pointers over a block store.
 *
 * Invariants (I2, I3, I6 of the design, as they bind this module):
 * 1. Between consistency points nothing on disk changes meaning: blocks go to free places, then a
 *    sync, then one superblock slot, then a sync. The slots are written in turn.
 * 2. Whoever changes something holds the volume alone (`exclusive`) until it is in memory whole; it
 *    is acknowledged after the consistency point that has it.
 * 3. The first error while writing poisons the volume: nothing is written after it, and the state on
 *    disk is that of the last consistency point. `recover` goes on from there, when writing works again.
 * 4. A replica's applied root moves only by `flip` and `goBack`. What is written beside it (a branch of
 *    local changes) goes to blocks under no plane of what is held, and is gone before an image comes in.
 * 5. A snapshot is listed here only if the current root lists it (or is it) and its blocks are all
 *    here.
 *
 * States: open -> (write error) poisoned -> (recover) open; open, poisoned -> closed. A volume that a full image is
 * filling is `incoming`: it has no root until `flip`. The roles, and what leads from one to another, are
 * in `superblocks.ts`; how a received root becomes one that can be written is in `takeover.ts`.
 *
 * @module
 */

import {
  assert,
  type Clock,
  damaged,
  HOST_CLOCK,
  messageOf,
  paced,
  pageCountOf,
  VolcastError,
} from "../core/mod.ts";
import {
  bytesToHex,
  checksum,
  decodeRoot,
  decodeSnapshots,
  INO,
  type Pointer,
  type PointerRecord,
  type RemapHead,
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
import { FileSystem } from "./file_system.ts";
import type { History } from "./history.ts";
import { type Lease, Leases } from "./leases.ts";
import { LentPlanes } from "./lent_planes.ts";
import { type ListedRoot, readListedRoot } from "./listed_root.ts";
import { readAll } from "./live_file_system.ts";
import { EMPTY_LOCAL_STATE, type LocalState, LocalZone } from "./local_state.ts";
import { Mutex } from "./mutex.ts";
import { PlaneFile } from "./plane_file.ts";
import { readStaging, replaySteps, StagedView, type Staging, writeStaging } from "./staging.ts";
import { readSuperblock, type RootPlace, type Step, Superblocks } from "./superblocks.ts";
import type { Writer } from "./writer.ts";
import { Writing } from "./writing.ts";

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
  /** What waiting is measured by; the host's clock by default. */
  readonly clock?: Clock;
  /** At a replica: whether it may be changed until the next image flushes that; no by default. */
  readonly localWrites?: boolean;
  /** Why its file system is only read, whatever its role is; empty by default: it is not. */
  readonly readOnlyBecause?: string;
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

/** A shadow snapshot: the plane of one whose blocks may be used again. It can only be a base. */
export interface Shadow extends Snapshot {
  readonly slot: number;
}

/** A file system held for reading. Release it when done: its blocks are kept until then. */
export interface View {
  readonly snapshot: Snapshot;
  /** @throws {VolcastError} `busy` when the lease was ended. */
  readonly fs: FileSystem;
  /** Ends the hold; more than once is fine. */
  release(): void;
}

/** Local changes that went because an image came in. */
export interface Flushed {
  /** Files made, changed and removed by them. */
  readonly files: number;
  /** Names of the snapshots taken of them. */
  readonly snapshots: readonly string[];
}

/** Name under which the last consistency point can be read. */
export const ACTIVE = "active";
/** Name of the pointer that sites follow. */
export const MASTER = "master";

/** See the module. */
export class Volume {
  readonly zone: Zone;
  readonly leases: Leases;
  /** Planes of snapshots that are not here. */
  readonly lent: LentPlanes = new LentPlanes(this);
  readonly options: Required<VolumeOptions>;
  readonly #store: GatheringStore;
  readonly #localZone: LocalZone;
  readonly #localMutex = new Mutex();
  readonly #fileSystems = new Map<string, FileSystem>();
  readonly volumeId: string;
  readonly #superblocks: Superblocks;
  #io: BlockIo;
  /** The view that has staged blocks where they lie, while there are some. */
  #staged: StagedView | undefined;
  #local: LocalState;
  #root: Root | undefined;
  #activeRoot: Root | undefined;
  #snapshots: SnapshotRecord[] = [];
  #pointers: PointerRecord[] = [];
  /** What the local changes' own tables add to the two above. */
  #localSnapshots: Snapshot[] = [];
  #localPointers: PointerRecord[] = [];
  readonly #writing: Writing;
  /** What `snapshots` gives until the root or the local state changes. */
  #listed: readonly Snapshot[] | undefined;
  #poison: VolcastError | undefined;
  #closed = false;

  private constructor(
    store: BlockStore,
    parts: { zone: Zone; volumeId: string; options: VolumeOptions; superblock?: Superblock },
  ) {
    const { clock = HOST_CLOCK } = parts.options;
    this.options = {
      clock,
      cacheBytes: parts.options.cacheBytes ?? 64 * 2 ** 20,
      dirtyBytes: parts.options.dirtyBytes ?? 32 * 2 ** 20,
      checkpointMs: parts.options.checkpointMs ?? 10_000,
      now: parts.options.now ?? (() => BigInt(clock.now()) * 1_000_000n),
      localWrites: parts.options.localWrites ?? false,
      readOnlyBecause: parts.options.readOnlyBecause ?? "",
    };
    this.zone = parts.zone;
    this.volumeId = parts.volumeId;
    this.#store = new GatheringStore(store);
    this.#io = new BlockIo(this.#store, new BlockCache(this.options.cacheBytes));
    this.#superblocks = new Superblocks(this.#io, parts, parts.superblock);
    this.#writing = new Writing({
      volume: this,
      move: (step) => this.#move(step),
      replay: () => this.#replay(),
      guarded: (work) => this.#guarded(work),
      poison: (error) => void (this.#poison ??= error),
      checkHealthy: () => this.#checkHealthy(),
      retry: () => this.#retry(),
    });
    this.leases = new Leases(
      () => this.#writing.writer?.space.expire(this.leases.oldest),
      clock,
    );
    this.#localZone = new LocalZone(this.#store, this.zone);
    this.#local = this.#localZone.read();
  }

  /** Makes a new, empty volume that takes the whole store. */
  static async create(store: BlockStore, options: CreateOptions = {}): Promise<Volume> {
    const zone = zoneOf(store.capacity);
    const volumeId = options.volumeId ?? bytesToHex(crypto.getRandomValues(new Uint8Array(16)));
    const volume = new Volume(store, { zone, volumeId, options });
    volume.#local = structuredClone(EMPTY_LOCAL_STATE);
    await volume.#localZone.write(volume.#local);
    await volume.#writing.create();
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
    const { remap } = superblock;
    if (remap !== undefined) {
      volume.#adoptView(volume.stagedView(readStaging(volume.io, remap, zone.data)));
    }
    volume.#loadRoot();
    volume.#writing.open();
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

  /**
   * Verified access to the blocks under the current root's plane, wherever they lie. Another one takes
   * its place when an image with staged blocks becomes current: who reads an older root keeps this one.
   */
  get io(): BlockIo {
    return this.#io;
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

  /** The root that a writer goes on from: of the local changes where there are some. */
  get activeRoot(): Root {
    return this.#activeRoot ?? this.root;
  }

  /** What this node knows for itself. Read-only: see {@linkcode updateLocal}. */
  get local(): Readonly<LocalState> {
    return this.#local;
  }

  /** Blocks that can be given out now; unknown (0) at a replica. */
  get freeBlocks(): number {
    return this.#writing.writer?.space.freeCount ?? 0;
  }

  /** Bytes of changed metadata in memory. */
  get dirtyBytes(): number {
    return this.#writing.writer?.dirtyBytes ?? 0;
  }

  /** Whether it was closed or abandoned. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** The error after which nothing is written any more, if there was one. */
  get poisoned(): VolcastError | undefined {
    // Content is written outside of consistency points too, and the store knows what failed there.
    return this.#poison ?? this.#store.failure;
  }

  /** Why nothing can be written: the host lets nobody write its file, or a write failed. */
  get unwritable(): VolcastError | undefined {
    return this.#store.readOnly ?? this.poisoned;
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

  /**
   * The file system that is read as `active`: at a replica with local changes those, else the current
   * one. Parents and children know nothing of it.
   */
  get active(): Snapshot {
    const { branch } = this.superblock;
    if (branch === undefined) return this.current;
    const { time, blockCount } = this.#activeRoot!;
    return { ...branch, id: snapshotId(branch), name: ACTIVE, time, blockCount };
  }

  /** Where this node's history stands: that of its current root. */
  get history(): History {
    const { epoch, takeovers } = this.root;
    return { epoch, takeovers, cp: this.superblock.cp };
  }

  /** Snapshots of local changes at a replica, oldest first. The next image takes them away. */
  localSnapshots(): readonly Snapshot[] {
    return this.#localSnapshots;
  }

  /** Snapshots that the table a writer goes on from lists: nothing else keeps blocks from being used. */
  keptSnapshots(): readonly Snapshot[] {
    return [...this.snapshots(), ...this.#localSnapshots];
  }

  /** Pointers that local changes have added. */
  localPointers(): readonly PointerRecord[] {
    return this.#localPointers;
  }

  /** Snapshots that can be read here, oldest first. At a replica the current one is the last. */
  snapshots(): readonly Snapshot[] {
    return this.#listed ??= this.#listSnapshots();
  }

  /** Regular snapshots that the table of the current root lists, also those that are not here. */
  listed(): readonly Snapshot[] {
    return this.#snapshots.filter(({ slot }) => slot === undefined).map(withId);
  }

  #listSnapshots(): readonly Snapshot[] {
    const listed = this.listed();
    if (this.role === "origin") return listed;
    const held = new Set(this.#local.held);
    return [...listed.filter((snapshot) => held.has(snapshot.id)), this.current];
  }

  /** Shadows of the current root, oldest first. They are no snapshots: nothing can be read from them. */
  shadows(): readonly Shadow[] {
    return this.#snapshots.map(withId).filter(isShadow);
  }

  /** Shadows of any root that is here: what its own table says. */
  shadowsIn(state: { id: string; root: Pointer }): readonly Shadow[] {
    return decodeSnapshots(readAll(this.fileSystem(state), INO.snapshots)).map(withId)
      .filter(isShadow);
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
    const shadow = this.findBase(ref);
    if (shadow !== undefined) {
      throw new VolcastError(
        "usage",
        `Cannot read the snapshot '${shadow.name}': it is a shadow: its blocks may be used again`,
        "It can only be the base of an image",
      );
    }
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
    const snapshots = this.keptSnapshots();
    const pointers = [...this.pointers(), ...this.#localPointers];
    const wanted = pointers.find((pointer) => pointer.name === ref)?.snapshot ?? ref;
    if (wanted === ACTIVE) return this.active;
    return SNAPSHOT_ID_PATTERN.test(wanted)
      ? [...snapshots, this.current, this.active].find((snapshot) => snapshot.id === wanted)
      : snapshots.find((snapshot) => snapshot.name === wanted);
  }

  /** Like {@linkcode find}, a shadow or one with a lent plane too: whatever can be the base of an image. */
  findBase(ref: string): Snapshot | undefined {
    return this.find(ref) ?? this.shadows().find(({ id, name }) => id === ref || name === ref) ??
      this.lent.base(ref);
  }

  /** Like {@linkcode resolve}, a shadow too. @throws {VolcastError} `not-found`. */
  resolveBase(ref: string): Snapshot {
    return this.findBase(ref) ?? this.resolve(ref);
  }

  /** Holds a file system for reading. @param ref As in {@linkcode resolve}. */
  view(ref: string = ACTIVE): View {
    const snapshot = this.resolve(ref);
    const lease: Lease = this.leases.take(snapshot, this.active.cp);
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
   * The plane of a shadow as of a root. What it has of the blocks of that root, or of any snapshot
   * between the shadow and that root, holds what it held in the shadow's snapshot. The same at every
   * node that has the root.
   *
   * @param id Of the shadow.
   * @param state The root; the current one by default.
   * @throws {VolcastError} `not-found` when it is no shadow in that root.
   */
  shadowPlane(id: string, state: { id: string; root: Pointer } = this.current): PlaneFile {
    const shadow = this.shadowsIn(state).find((candidate) => candidate.id === id);
    if (shadow === undefined) {
      throw new VolcastError(
        "not-found",
        `Cannot find the shadow ${id}: it is none in ${state.id}`,
        "Ask for it as of a later snapshot",
      );
    }
    const pageCount = pageCountOf(this.zone.capacity);
    const { tree } = this.fileSystem(state).open(INO.shadows);
    return new PlaneFile(tree, pageCount, shadow.slot * pageCount);
  }

  /**
   * Runs `work` with the volume alone. What it changes becomes durable with the next consistency
   * point: call `writer.checkpoint()` before acknowledging.
   *
   * @throws {VolcastError} `read-only` at a replica that takes no local changes, `busy` at one that does
   *   while an image comes in; the first write error for ever after it.
   */
  exclusive<T>(work: (writer: Writer) => T | Promise<T>): Promise<T> {
    return this.#writing.exclusive(work);
  }

  /** Makes what was changed durable. */
  async checkpoint(): Promise<void> {
    // At a replica that only may have local changes, none begin with this.
    if (this.#writing.writer === undefined && this.options.localWrites) return;
    await this.exclusive((writer) => writer.checkpoint());
  }

  /** Changes this node's own state and makes it durable; callers that come together share one write. */
  async updateLocal(change: (state: LocalState) => void): Promise<void> {
    this.#checkHealthy();
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
    if (this.#store.readOnly !== undefined) return;
    this.#localZone.writeOwner({ pid: Deno.pid, ...(url === undefined ? {} : { url }) });
    this.#store.flush();
  }

  /** Replica: the volume as it will be when an image with staged blocks is current. */
  stagedView(staging: Staging): StagedView {
    return new StagedView(this.#store, staging, this.options.cacheBytes);
  }

  /**
   * Replica: writes blocks of an image that is coming in; nothing reaches them yet.
   * @param io Where some blocks are staged, that of the {@linkcode stagedView}.
   */
  writeReceived(vbn: number, bytes: Uint8Array, io: BlockIo = this.io): void {
    assert(this.role === "replica", "images come into replicas");
    this.#checkHealthy();
    io.writeRun(vbn, bytes);
  }

  /**
   * Puts a block back that is not what the pointer to it says. Durable after {@linkcode syncHealed}.
   * @param bytes What the pointer says: checked here again, since it goes under a plane.
   */
  heal(pointer: Pointer, bytes: Uint8Array): void {
    assert(checksum(bytes) === pointer.crc, "a block is healed with what the pointer to it says");
    const { data } = this.zone;
    if (pointer.vbn < data.start || pointer.vbn >= data.start + data.count) {
      throw damaged(
        `Cannot heal VBN ${pointer.vbn}: no plane covers it, they begin at ${data.start} and end ` +
          `before ${data.start + data.count}`,
        "The block that points there is not what it should be: run volcast fsck",
      );
    }
    this.#checkHealthy();
    this.io.writeRun(pointer.vbn, bytes);
  }

  /** Slots whose superblock cannot be read, or is not the one in force where that should be. */
  badSuperblocks(): number[] {
    return this.#superblocks.bad();
  }

  /**
   * Writes superblocks that are bad from the one in force, durably. None is touched while another step is
   * being written. @returns The slots that were written.
   */
  async healSuperblocks(): Promise<number[]> {
    if (this.badSuperblocks().length === 0) return [];
    return await this.#guarded(() => this.#superblocks.heal());
  }

  /** Makes blocks durable that were healed. */
  async syncHealed(): Promise<void> {
    await this.#guarded(() => this.#store.sync());
  }

  /** Makes received blocks durable. */
  async syncReceived(): Promise<void> {
    await this.#guarded(() => this.#store.sync());
  }

  /**
   * Replica: makes a received root the current one. Its blocks are all here, verified and durable;
   * the caller has seen to that (I6).
   *
   * @param staged Where some of them lie elsewhere; {@linkcode settle} puts them into their places.
   */
  async flip(
    next: { cp: number; root: Pointer; name: string; time: bigint },
    staged?: StagedView,
  ): Promise<void> {
    let remap: RemapHead | undefined;
    await this.#guarded(() => {
      if (staged !== undefined) remap = writeStaging(this.#store, staged.staging);
      return this.#store.sync();
    });
    await this.#move({ ...next, kind: "apply", remap }, staged);
  }

  /**
   * Puts staged blocks into their places, if there are any. Readers of roots that are in no list any
   * more end first: they read what lies there now.
   *
   * @param drainMs Longest wait for them, ms; 10,000 by default.
   */
  settle(drainMs?: number): Promise<void> {
    return this.#writing.settle(drainMs);
  }

  /** Lets readers of roots that no list has any more end, or ends them after `drainMs`, 10,000 by default. */
  endUnlisted(drainMs?: number): Promise<void> {
    return this.#writing.endUnlisted(drainMs);
  }

  async #replay(): Promise<void> {
    const staged = this.#staged;
    assert(staged !== undefined, "there are staged blocks");
    await this.#guarded(async () => {
      await paced(replaySteps(this.#store, staged.staging.remap), this.options.clock);
      await this.#store.sync();
    });
    await this.#move({ kind: "settle" });
    staged.settle();
    this.#staged = undefined;
  }

  /**
   * Replica: an image is about to be written. Local changes go now, since its blocks may lie where
   * theirs do, and none are taken until {@linkcode endReceiving}.
   *
   * @returns What went, `undefined` when there was nothing.
   */
  beginReceiving(): Promise<Flushed | undefined> {
    return this.#writing.beginReceiving();
  }

  /** The image is current, or did not come in whole. */
  endReceiving(): void {
    this.#writing.endReceiving();
  }

  /**
   * Makes a replica an origin: a new epoch begins, and what is here can be written. Local changes stay,
   * as the active file system. One superblock is written: a crash leaves the replica, or the origin.
   *
   * @throws {VolcastError} `nothing` at an origin, `busy` while an image comes in, `full`.
   */
  promote(): Promise<void> {
    return this.#writing.promote();
  }

  /**
   * Makes an older snapshot the applied root, and the volume a replica that can follow on from there.
   * Whatever came after the snapshot is gone then. One superblock is written.
   *
   * @param to One of {@linkcode snapshots}.
   */
  goBack(to: Snapshot): Promise<void> {
    return this.#writing.goBack(to);
  }

  /**
   * After a write error: tries again what failed, and when that works goes back to the last consistency
   * point and takes writes again. Who reads is not disturbed. What was changed since and never
   * acknowledged is gone, as after a crash.
   *
   * @throws {VolcastError} Why nothing can be written still; `busy` while an image comes in.
   */
  recover(): Promise<void> {
    return this.#writing.recover();
  }

  async #retry(): Promise<void> {
    // Until the end, whatever the store says: nobody may write in between.
    this.#poison ??= this.#store.failure;
    try {
      await this.#store.retry();
      await this.#superblocks.rollBack();
      await this.#localMutex.run(async () => {
        const state = this.#local;
        await this.#localZone.write(state);
        this.#writtenLocal = state;
      });
      if (this.hasRoot) this.#loadRoot();
    } catch (error) {
      this.#poison = asPoison(error);
      throw error;
    }
    this.#poison = undefined;
  }

  /** Commits what is in memory, ends every lease and gives the store back. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      if (this.#writing.writer?.isDirty && this.poisoned === undefined) await this.checkpoint();
      await this.#localMutex.run(() => {});
    } finally {
      this.#closed = true;
      this.leases.endAll();
      this.#writing.stop();
      this.#store.close();
    }
  }

  /** Closes the store as it is, as a crash would: nothing is committed. */
  abandon(): void {
    this.#closed = true;
    this.leases.endAll();
    this.#writing.stop();
    this.#store.close();
  }

  #loadRoot(): void {
    const { branch } = this.superblock;
    const { root, snapshots, pointers } = this.#readRoot(this.superblock);
    const local = branch === undefined ? undefined : this.#readRoot(branch);
    this.#root = root;
    this.#activeRoot = local?.root ?? root;
    this.#listed = undefined;
    this.#snapshots = snapshots;
    this.#pointers = pointers;
    this.#localSnapshots = (local?.snapshots ?? [])
      .filter(({ cp, slot }) => cp > root.cp && slot === undefined).map(withId);
    const names = new Set([MASTER, ...pointers.map(({ name }) => name)]);
    this.#localPointers = (local?.pointers ?? []).filter(({ name }) => !names.has(name));
  }

  #readRoot(place: RootPlace): ListedRoot {
    const fs = this.fileSystem({ id: snapshotId(place), root: place.root });
    return readListedRoot(fs, { volumeId: this.volumeId, cp: place.cp }, "open the volume");
  }

  async #move(step: Step, staged?: StagedView): Promise<void> {
    await this.#guarded(() =>
      this.#superblocks.move(step, () => {
        if (staged !== undefined) this.#adoptView(staged);
        this.#loadRoot();
      })
    );
  }

  #adoptView(staged: StagedView): void {
    staged.io.noted = this.#io.noted;
    this.#staged = staged;
    this.#io = staged.io;
    this.#fileSystems.clear();
  }

  /** Runs something that writes; any error there poisons the volume. */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    this.#checkHealthy();
    try {
      return await work();
    } catch (error) {
      this.#poison ??= asPoison(error);
      throw error;
    }
  }

  #checkHealthy(): void {
    assert(!this.#closed, "the volume is open");
    const { readOnly } = this.#store;
    if (readOnly !== undefined) {
      throw new VolcastError(
        readOnly.kind,
        `Cannot change the volume: it was opened to be read only (${readOnly.message})`,
        `${readOnly.hint}, and open it again`,
      );
    }
    const { poisoned } = this;
    if (poisoned === undefined) return;
    throw new VolcastError(
      poisoned.kind,
      `Cannot write: an earlier write failed (${poisoned.message})`,
      `${poisoned.hint === "" ? "" : `${poisoned.hint}. `}` +
        "A server goes on by itself when that helped, within seconds; all else opens the volume again",
      { cause: poisoned },
    );
  }
}

function asPoison(error: unknown): VolcastError {
  if (error instanceof VolcastError) return error;
  return new VolcastError("io", `Cannot write the volume: ${messageOf(error)}`, "", {
    cause: error,
  });
}

function withId(record: SnapshotRecord): Snapshot {
  return { ...record, id: snapshotId(record) };
}

/** Whether a snapshot is a shadow: its plane alone is here. */
export function isShadow(snapshot: Snapshot): snapshot is Shadow {
  return snapshot.slot !== undefined;
}
