/**
 * What may be done with a volume by whoever holds it alone.
 *
 * Invariants:
 * 1. Taking a snapshot is two consistency points: one that is the snapshot, and one that lists it.
 *    A crash between leaves the first only, which is nothing but a consistency point.
 * 2. A snapshot and the pointer that is moved to it are in the same consistency point.
 * 3. The summary is the sum of the planes of all snapshots in the table.
 * 4. Local changes at a replica leave the parent's snapshots and pointers as they are.
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

  /**
   * Takes a snapshot of the file system as it is now, durable when this returns.
   *
   * @param options.pointers Pointers to move to it in the same consistency point.
   * @throws {VolcastError} `exists`, `full` (no more snapshots), `usage` (name), `read-only` (a pointer
   *   of the parent's).
   */
  async takeSnapshot(name: string, options: { pointers?: string[] } = {}): Promise<Snapshot> {
    const { volume } = this.#parts;
    this.checkSnapshotName(name, options.pointers);
    const table = this.#snapshots();
    this.space.require(16);
    // Two snapshots of one root would have one id.
    const same = table.some((snapshot) => snapshot.cp === volume.active.cp);
    if (this.isDirty || same) await this.#parts.commit();
    const { cp, root, time, blockCount } = volume.active;
    const record: SnapshotRecord = { name, cp, root, time, blockCount };
    const id = snapshotId(record);
    const snapshot = { ...record, id };
    this.#addToSummary(volume.plane(snapshot), table.at(-1));
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

  /** Deletes a snapshot. @throws {VolcastError} `held`, naming the pointer or the site that needs it. */
  async deleteSnapshot(id: string): Promise<void> {
    const { volume } = this.#parts;
    const snapshot = this.#listed(id);
    this.#refuseParents(snapshot);
    const pointing = [...volume.pointers(), ...volume.localPointers()]
      .filter((pointer) => pointer.snapshot === id);
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
    this.#removeFromSummary(volume.plane(snapshot), rest);
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
    const found = this.#parts.volume.keptSnapshots().find((snapshot) => snapshot.id === id);
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

  #removeFromSummary(plane: PlaneFile, rest: readonly SnapshotRecord[]): void {
    const { volume } = this.#parts;
    const { summary, map } = this.space;
    const others = rest.map((record) => volume.plane({ ...record, id: snapshotId(record) }));
    for (const index of [...plane.pages()]) {
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
