/**
 * What may be done with a volume by whoever holds it alone.
 *
 * Invariants:
 * 1. Taking a snapshot is two consistency points: one that is the snapshot, and one that lists it.
 *    A crash between leaves the first only, which is nothing but a consistency point.
 * 2. A snapshot and the pointer that is moved to it are in the same consistency point.
 * 3. The summary is the sum of the planes of all snapshots in the table.
 *
 * @module
 */

import { PAGE_WORDS, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  checkLabel,
  decodePointers,
  decodeSnapshots,
  encodePointers,
  encodeSnapshots,
  INO,
  type PointerRecord,
  snapshotId,
  type SnapshotRecord,
} from "../format/mod.ts";
import type { LiveFileSystem } from "./live_file_system.ts";
import { type PlaneFile, wordsOf } from "./plane_file.ts";
import type { Space } from "./space.ts";
import type { Snapshot, Volume } from "./volume.ts";

/** Most snapshots a volume keeps. */
export const MAX_SNAPSHOTS = 4096;

interface Parts {
  readonly volume: Volume;
  readonly live: LiveFileSystem;
  readonly space: Space;
  /** Makes a consistency point. */
  readonly commit: () => Promise<void>;
  /** When the last one was made, ms since 1970. */
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
    const { dirtyBytes, checkpointMs } = this.#parts.volume.options;
    if (
      this.dirtyBytes > dirtyBytes || this.space.isShort ||
      (this.isDirty && Date.now() - this.#parts.lastCommit() > checkpointMs)
    ) {
      await this.#parts.commit();
    }
  }

  /** Number of the consistency point that a snapshot taken now would be. */
  get snapshotCp(): number {
    const { cp } = this.#parts.volume.superblock;
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
   * @throws {VolcastError} `exists`, `full` (no more snapshots), `usage` (name).
   */
  async takeSnapshot(
    name: string,
    options: { pointers?: string[]; taken?: (snapshot: Snapshot) => void } = {},
  ): Promise<Snapshot> {
    const { volume } = this.#parts;
    this.checkSnapshotName(name);
    const table = this.#snapshots();
    for (const pointer of options.pointers ?? []) this.#checkPointerName(pointer, table);
    this.space.require(16);
    if (this.snapshotCp !== volume.superblock.cp) await this.#parts.commit();
    const record: SnapshotRecord = {
      name,
      cp: volume.superblock.cp,
      root: volume.superblock.root,
      time: volume.root.time,
      blockCount: volume.root.blockCount,
    };
    const id = snapshotId(record);
    const snapshot = { ...record, id };
    options.taken?.(snapshot);
    this.#addToSummary(volume.plane(snapshot), table.at(-1));
    this.fs.writeMetafile(INO.snapshots, encodeSnapshots([...table, record]));
    this.#movePointers(options.pointers ?? [], id);
    await this.#parts.commit();
    return snapshot;
  }

  /** Whether a snapshot of this name can be taken. @throws {VolcastError} As `takeSnapshot`. */
  checkSnapshotName(name: string): void {
    checkLabel("snapshot", name);
    const table = this.#snapshots();
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

  /** Deletes a snapshot. @throws {VolcastError} `held`, naming the pointer or the site that needs it. */
  async deleteSnapshot(id: string): Promise<void> {
    const { volume } = this.#parts;
    const snapshot = this.#listed(id);
    const pointing = volume.pointers().filter((pointer) => pointer.snapshot === id);
    if (pointing.length > 0) {
      throw new VolcastError(
        "held",
        `Cannot delete the snapshot '${snapshot.name}': the pointer '${pointing[0].name}' names it`,
        "Move the pointer first: volcast pointer set",
      );
    }
    for (const [site, state] of Object.entries(volume.local.sites)) {
      if (state.snapshot !== id && !state.needs.includes(id)) continue;
      throw new VolcastError(
        "held",
        `Cannot delete the snapshot '${snapshot.name}': the site '${site}' stands on it`,
        `Wait until it has moved on, or forget the site: DELETE /sites/${site}`,
      );
    }
    const rest = this.#snapshots().filter((record) => snapshotId(record) !== id);
    const next = rest.find((record) => record.cp > snapshot.cp) ?? rest.at(-1);
    this.#removeFromSummary(volume.plane(snapshot), rest, next);
    this.fs.writeMetafile(INO.snapshots, encodeSnapshots(rest));
    await this.#parts.commit();
  }

  /** Moves (or makes) a pointer, durable when this returns. */
  async setPointer(name: string, id: string): Promise<void> {
    this.#checkPointerName(name, this.#snapshots());
    this.#listed(id);
    this.#movePointers([name], id);
    await this.#parts.commit();
  }

  /** A snapshot of the table: the active file system is none, and nothing keeps its blocks. */
  #listed(id: string): Snapshot {
    const found = this.#parts.volume.snapshots().find((snapshot) => snapshot.id === id);
    if (found !== undefined) return found;
    throw new VolcastError(
      "not-found",
      `Cannot find the snapshot ${id}: it is not in the list of snapshots`,
      "Take a snapshot first: volcast snapshot create",
    );
  }

  #snapshots(): SnapshotRecord[] {
    return decodeSnapshots(this.fs.readAll(INO.snapshots));
  }

  #checkPointerName(name: string, table: readonly SnapshotRecord[]): void {
    checkLabel("pointer", name);
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

  /** @param near The snapshot next to it: only where the two differ anything can go. */
  #removeFromSummary(
    plane: PlaneFile,
    rest: readonly SnapshotRecord[],
    near?: SnapshotRecord,
  ): void {
    const { volume } = this.#parts;
    const { summary, map } = this.space;
    const planeOf = (record: SnapshotRecord) => volume.plane({ ...record, id: snapshotId(record) });
    const others = rest.map(planeOf);
    const pages = near === undefined ? undefined : plane.differing(planeOf(near));
    for (const index of [...pages ?? plane.pages()]) {
      const gone = plane.page(index).slice();
      for (const other of others) {
        const page = other.page(index);
        for (let i = 0; i < PAGE_WORDS; i++) gone[i] &= ~page[i];
      }
      if (gone.every((word) => word === 0)) continue;
      const words = wordsOf(summary.writableBlock(index));
      const active = wordsOf(map.block(index));
      for (let i = 0; i < PAGE_WORDS; i++) {
        words[i] &= ~gone[i];
        gone[i] &= ~active[i];
      }
      this.space.released(index, gone);
    }
  }
}
