/**
 * What may be done with a volume by whoever holds it alone.
 *
 * Invariants:
 * 1. Taking a snapshot is two consistency points: one that is the snapshot, and one that lists it.
 *    A crash between leaves the first only, which is nothing but a consistency point.
 * 2. A snapshot and the pointer that is moved to it are in the same consistency point.
 * 3. The summary is the sum of the planes of all regular snapshots in the table; shadows keep nothing,
 *    and their block maps are never read: those blocks may be used again.
 * 4. Local changes at a replica leave the parent's snapshots and pointers as they are.
 *
 * @module
 */

import { PAGE_WORDS, pageCountOf, pagesOnlyIn, popcountPage, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checkLabel,
  decodePointers,
  decodeSnapshots,
  emptyInode,
  encodePointers,
  encodeSnapshots,
  INO,
  type PointerRecord,
  snapshotId,
  type SnapshotRecord,
} from "../format/mod.ts";
import { BlockTree } from "./block_tree.ts";
import type { LiveFileSystem } from "./live_file_system.ts";
import { noteMove } from "./moved.ts";
import { type PlaneFile, wordsOf } from "./plane_file.ts";
import { newShadowInode, type ShadowFile, slotForShadow } from "./shadows.ts";
import type { Space } from "./space.ts";
import type { Shadow, Snapshot, Volume } from "./volume.ts";

/** Most snapshots a volume keeps, shadows included. */
export const MAX_SNAPSHOTS = 4096;
/** Most pointers of a volume. */
export const MAX_POINTERS = 4096;

/** Blocks of a page of plane. */
type Page = Readonly<{ index: number; words: Uint32Array }>;

interface Parts {
  readonly volume: Volume;
  readonly live: LiveFileSystem;
  readonly space: Space;
  /** Makes a consistency point. */
  readonly commit: () => Promise<void>;
  /** When the last one was made, by the time that never goes back. */
  readonly lastCommit: () => number;
}

/** See the module. */
export class Writer {
  readonly fs: LiveFileSystem;
  readonly space: Space;
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.fs = parts.live;
    this.space = parts.space;
  }

  /** Whether a consistency point would have anything to write. */
  get isDirty(): boolean {
    return this.fs.isDirty || this.space.summary.isDirty;
  }

  /** Bytes of changed metadata in memory. */
  get dirtyBytes(): number {
    return this.space.dirtyCount * BLOCK_SIZE + this.fs.dirtyInodeCount * 1024;
  }

  /** Makes everything changed durable; returns at once when nothing was. */
  async checkpoint(): Promise<void> {
    if (this.isDirty) await this.#parts.commit();
  }

  /** A consistency point, if much has gathered in memory, space is short, or the last one is long ago. */
  async checkpointIfDue(): Promise<void> {
    const { dirtyBytes, checkpointMs, clock } = this.#parts.volume.options;
    if (
      this.dirtyBytes > dirtyBytes || this.space.isShort ||
      (this.isDirty && clock.elapsed() - this.#parts.lastCommit() > checkpointMs)
    ) {
      await this.#parts.commit();
    }
  }

  /** Number of the consistency point that a snapshot taken now would be. */
  get snapshotCp(): number {
    const { cp } = this.#parts.volume.active;
    // Two snapshots of one root would have one id.
    const same = this.#snapshots().some((snapshot) => snapshot.cp === cp);
    return this.isDirty || same ? this.fs.cp : cp;
  }

  /**
   * Takes a snapshot of the file system as it is now, durable when this returns.
   *
   * @param options.pointers Pointers to move to it in the same consistency point.
   * @param options.taken Called at the consistency point that is the snapshot, before anything changes
   *   after it: the block map in memory is the snapshot's plane.
   * @throws {VolcastError} `exists`, `full` (no more snapshots), `usage` (name), `read-only` (a pointer
   *   of the parent's).
   */
  async takeSnapshot(
    name: string,
    options: { pointers?: string[]; taken?: (snapshot: Snapshot) => void } = {},
  ): Promise<Snapshot> {
    const { volume } = this.#parts;
    this.checkSnapshotName(name, options.pointers);
    const table = this.#snapshots();
    this.space.require(16);
    if (this.snapshotCp !== volume.active.cp) await this.#parts.commit();
    const { cp, root, time, blockCount } = volume.active;
    const record: SnapshotRecord = { name, cp, root, time, blockCount };
    const id = snapshotId(record);
    const snapshot = { ...record, id };
    options.taken?.(snapshot);
    this.#addToSummary(volume.plane(snapshot), table.filter(isRegular).at(-1));
    this.fs.writeMetafile(INO.snapshots, encodeSnapshots([...table, record]));
    this.#movePointers(options.pointers ?? [], id);
    await this.#parts.commit();
    return snapshot;
  }

  /** Whether a snapshot of this name can be taken, and pointers moved to it. @throws {VolcastError} As `takeSnapshot`. */
  checkSnapshotName(name: string, moved: readonly string[] = []): void {
    checkLabel("snapshot", name);
    const table = this.#snapshots();
    for (const pointer of moved) this.#checkPointerName(pointer, table);
    const present = table.some((snapshot) => snapshot.name === name);
    const pointers = decodePointers(this.fs.readAll(INO.pointers));
    if (present || pointers.some((pointer) => pointer.name === name)) {
      throw new VolcastError(
        "exists",
        `Cannot take the snapshot '${name}': there is a ${
          present ? "snapshot" : "pointer"
        } of this name`,
        "Choose another name, or delete the old one",
      );
    }
    if (table.length >= MAX_SNAPSHOTS) {
      throw new VolcastError(
        "full",
        `Cannot take the snapshot '${name}': the volume has ${table.length}, the limit is ${MAX_SNAPSHOTS}`,
        "Delete snapshots that are not needed",
      );
    }
  }

  /**
   * Deletes a snapshot or a shadow.
   * @throws {VolcastError} `held`, naming the pointer or the site that needs it.
   */
  async deleteSnapshot(id: string): Promise<void> {
    const { volume } = this.#parts;
    const shadow = volume.shadows().find((candidate) => candidate.id === id);
    const snapshot = shadow ?? this.#listed(id);
    this.#refuseParents(snapshot);
    this.#refusePointed(snapshot, "delete");
    for (const [site, state] of Object.entries(volume.local.sites)) {
      if (state.snapshot !== id && !state.needs.includes(id)) continue;
      throw new VolcastError(
        "held",
        `Cannot delete the ${
          shadow ? "shadow" : "snapshot"
        } '${snapshot.name}': the site '${site}' ` +
          "stands on it",
        `Wait until it has moved on, or forget the site: DELETE /sites/${site}` +
          (shadow ? "" : ". To get its blocks back now: volcast snapshot shadow"),
      );
    }
    const rest = this.#snapshots().filter((record) => snapshotId(record) !== id);
    const gone = shadow === undefined ? this.#keptOnlyBy(snapshot) : [];
    this.space.requireForRelease(this.fs.tableBlocks + gone.length);
    if (shadow === undefined) this.#removeFromSummary(gone);
    else this.#dropShadow(shadow, rest);
    this.fs.writeMetafile(INO.snapshots, encodeSnapshots(rest));
    await this.#parts.commit();
  }

  /**
   * Makes a shadow of a snapshot: its blocks may be used again, and its plane, which loses the bit of
   * each block that is, can be the base of images still. Sites that stand on it do not forbid it.
   *
   * @returns The shadow, and how many blocks nobody keeps any more.
   * @throws {VolcastError} `held`, naming the pointer; `nothing` when it is a shadow already.
   */
  async shadowSnapshot(id: string): Promise<{ shadow: Shadow; released: number }> {
    const { volume } = this.#parts;
    const { shadows } = this.space;
    const present = volume.shadows().find((shadow) => shadow.id === id);
    if (present !== undefined) {
      throw new VolcastError(
        "nothing",
        `Cannot make a shadow of '${present.name}' (${id}): it is a shadow already`,
      );
    }
    const snapshot = this.#listed(id);
    this.#refuseParents(snapshot);
    this.#refusePointed(snapshot, "make a shadow of");
    const gone = this.#keptOnlyBy(snapshot);
    this.space.requireForRelease(gone.length + 1);
    // Room for what must be written comes before room for the plane, which may lose pages.
    for (const { index } of gone) this.space.summary.writableBlock(index);
    const file = shadows ?? this.#makeShadowFile();
    const { slot, table } = slotForShadow(this.#snapshots(), file);
    file.put(slot, volume.plane(snapshot));
    this.space.shadowsChanged();
    const released = this.#removeFromSummary(gone);
    const records = table.map((record) => snapshotId(record) === id ? { ...record, slot } : record);
    this.fs.writeMetafile(INO.snapshots, encodeSnapshots(records));
    await this.#parts.commit();
    return { shadow: { ...snapshot, slot }, released };
  }

  /** Moves (or makes) a pointer, durable when this returns. */
  async setPointer(name: string, id: string): Promise<void> {
    const table = this.#snapshots();
    this.#checkPointerName(name, table);
    const snapshot = this.#listed(id);
    this.space.requireForChange();
    const { volume } = this.#parts;
    if (volume.role === "origin") {
      const at = { epoch: volume.root.epoch, cp: this.fs.cp };
      await volume.updateLocal((state) => noteMove(state, snapshot, at, table.map(snapshotId)));
    }
    this.#movePointers([name], id);
    await this.#parts.commit();
  }

  /** A snapshot of the table: the active file system is none, and nothing keeps its blocks. */
  #listed(id: string): Snapshot {
    const found = this.#parts.volume.keptSnapshots().find((snapshot) => snapshot.id === id);
    if (found !== undefined) return found;
    // A shadow, and what is not there at all, has an error of its own.
    this.#parts.volume.resolve(id);
    throw new VolcastError(
      "not-found",
      `Cannot find the snapshot ${id}: it is not in the list of snapshots`,
      "Take a snapshot first: volcast snapshot create",
    );
  }

  #snapshots(): SnapshotRecord[] {
    return decodeSnapshots(this.fs.readAll(INO.snapshots));
  }

  /** Local changes must not take away what was applied. @throws {VolcastError} `read-only`. */
  #refuseParents({ id, name }: Snapshot): void {
    const { volume } = this.#parts;
    if (volume.role === "origin" || !volume.snapshots().some((one) => one.id === id)) return;
    throw new VolcastError(
      "read-only",
      `Cannot change the snapshot '${name}': it is the parent's, here are local changes only`,
      "Delete it at the origin, or make this node the origin: volcast promote",
    );
  }

  #checkPointerName(name: string, table: readonly SnapshotRecord[]): void {
    checkLabel("pointer", name);
    const { volume } = this.#parts;
    if (volume.role === "replica" && volume.pointers().some((pointer) => pointer.name === name)) {
      throw new VolcastError(
        "read-only",
        `Cannot move the pointer '${name}': it is the parent's, here are local changes only`,
        "Use a pointer of another name, for example --pointer local, or import without a snapshot",
      );
    }
    const pointers = decodePointers(this.fs.readAll(INO.pointers));
    if (!pointers.some((pointer) => pointer.name === name)) {
      if (pointers.length >= MAX_POINTERS) {
        throw new VolcastError(
          "full",
          `Cannot make the pointer '${name}': the volume has ${pointers.length}, the limit is ${MAX_POINTERS}`,
          "Move one that is there",
        );
      }
      this.space.require(8);
    }
    if (!table.some((snapshot) => snapshot.name === name)) return;
    throw new VolcastError(
      "exists",
      `Cannot make the pointer '${name}': there is a snapshot of this name`,
      "Choose another name",
    );
  }

  #movePointers(names: readonly string[], id: string): void {
    if (names.length === 0) return;
    const table = decodePointers(this.fs.readAll(INO.pointers));
    const kept: PointerRecord[] = table.filter((pointer) => !names.includes(pointer.name));
    const moved = names.map((name) => ({ name, snapshot: id }));
    this.fs.writeMetafile(INO.pointers, encodePointers([...kept, ...moved]));
  }

  /** The snapshot's blocks are kept from now on. Reads only where it differs from the one before. */
  #addToSummary(plane: PlaneFile, last: SnapshotRecord | undefined): void {
    const { volume } = this.#parts;
    const { summary } = this.space;
    const before = last === undefined ? undefined : volume.plane({ ...last, id: snapshotId(last) });
    const pages = before === undefined ? plane.pages() : plane.differing(before) ?? plane.pages();
    for (const index of [...pages]) {
      const kept = wordsOf(summary.block(index));
      const added = plane.page(index);
      if (kept.every((word, i) => (added[i] & ~word) === 0)) continue;
      const words = wordsOf(summary.writableBlock(index));
      for (let i = 0; i < PAGE_WORDS; i++) words[i] |= added[i];
    }
    // The allocator's picture of the page stays right: all these blocks are in use already.
  }

  /** Blocks that only this snapshot and perhaps the active file system have. Changes nothing. */
  #keptOnlyBy(snapshot: Snapshot): Page[] {
    const { volume } = this.#parts;
    // Those next to it in age are most alike: only where it differs from them is anything read.
    const others = volume.keptSnapshots().filter(({ id }) => id !== snapshot.id)
      .sort((a, b) => Math.abs(a.cp - snapshot.cp) - Math.abs(b.cp - snapshot.cp));
    const planes = others.map((other) => volume.plane(other));
    return [...pagesOnlyIn([volume.plane(snapshot)], planes)];
  }

  /** @returns How many of the blocks are not in use any more. */
  #removeFromSummary(gone: readonly Page[]): number {
    const { summary, map } = this.space;
    let released = 0;
    for (const { index, words } of gone) {
      const kept = wordsOf(summary.writableBlock(index));
      const active = wordsOf(map.block(index));
      for (let i = 0; i < PAGE_WORDS; i++) {
        kept[i] &= ~words[i];
        words[i] &= ~active[i];
      }
      released += popcountPage(words);
      this.space.released(index, words);
    }
    return released;
  }

  #makeShadowFile(): ShadowFile {
    const { volume } = this.#parts;
    const inode = newShadowInode(pageCountOf(volume.zone.capacity));
    const file = this.space.attachShadows(volume.io, inode);
    this.fs.storeInode(INO.shadows, inode, file.tree);
    return file;
  }

  #dropShadow({ slot }: Shadow, rest: readonly SnapshotRecord[]): void {
    if (rest.some((record) => record.slot === slot)) return;
    if (rest.some((record) => !isRegular(record))) {
      this.space.shadows?.drop(slot);
      return;
    }
    // Without shadows there is no file of their planes: what is not there costs nothing to look at.
    this.space.detachShadows();
    const free = emptyInode();
    this.fs.storeInode(INO.shadows, free, new BlockTree(this.#parts.volume.io, 0, free.slots));
  }

  #refusePointed({ id, name }: Snapshot, what: string): void {
    const { volume } = this.#parts;
    const pointer = [...volume.pointers(), ...volume.localPointers()]
      .find(({ snapshot }) => snapshot === id);
    if (pointer === undefined) return;
    throw new VolcastError(
      "held",
      `Cannot ${what} the snapshot '${name}': the pointer '${pointer.name}' names it`,
      "Move the pointer first: volcast pointer set",
    );
  }
}

function isRegular({ slot }: SnapshotRecord): boolean {
  return slot === undefined;
}
