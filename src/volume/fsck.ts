/**
 * Checking a whole volume: every pointer, plane, table, directory and link count, of the current root,
 * of every snapshot, and of a replica's local changes. Writes nothing.
 *
 * @module
 */

import {
  BitPlane,
  equalPlanes,
  messageOf,
  PAGE_BITS,
  type Plane,
  popcount,
  sum,
  VolcastError,
} from "../core/mod.ts";
import { INO, type Pointer, typeOfMode } from "../format/mod.ts";
import type { FileSystem } from "./file_system.ts";
import { ownersOf } from "./owners.ts";
import { PlaneFile } from "./plane_file.ts";
import { checkShadowContent, checkShadowFile } from "./shadow_check.ts";
import type { Snapshot, Volume } from "./volume.ts";
import { ContentChecker, walkRoot } from "./walk.ts";

/** One thing that is wrong. */
export interface Finding {
  /** Name of the snapshot, `active` for the current root. */
  readonly snapshot: string;
  /** What is wrong, with numbers. */
  readonly problem: string;
  /** Of a bad block: where it lies. */
  readonly vbn?: number;
  /** Of a bad block: whose it is: paths, or a metafile. */
  readonly owners?: readonly string[];
}

/** Result of {@linkcode fsck}. */
export interface FsckReport {
  readonly clean: boolean;
  /** The first 1000 findings. */
  readonly findings: readonly Finding[];
  /** Number of all findings. */
  readonly findingCount: number;
  /** Snapshots checked, the current root included. */
  readonly roots: number;
  /** Blocks whose checksum was compared; one shared by snapshots counts once. */
  readonly blocks: number;
  readonly files: number;
  readonly directories: number;
  /**
   * Superblock slots that cannot be read. That alone is no damage: a crash while one was written leaves it,
   * and the other one is in force.
   */
  readonly badSuperblocks: readonly number[];
}

/** Most findings that are kept with their text. */
const MAX_FINDINGS = 1000;

/**
 * Checks a volume that nobody changes meanwhile.
 *
 * @param options.progress Called now and then with the blocks seen so far and expected in all.
 */
export function fsck(
  volume: Volume,
  options: { progress?: (done: number, total: number) => void } = {},
): FsckReport {
  const findings: Finding[] = [];
  const unnamed = new Map<Snapshot, Unnamed[]>();
  let findingCount = 0;
  const checked = new CheckedBlocks(volume.plane(volume.current).pageCount);
  const report = { files: 0, directories: 0 };
  const roots = uniqueRoots(volume);
  const total = roots.reduce((blocks, root) => blocks + root.blockCount, 0);
  let done = 0;
  const finder = (snapshot: Snapshot) => (problem: string, at?: { vbn: number; ino: number }) => {
    findingCount++;
    if (findings.length >= MAX_FINDINGS) return;
    if (at === undefined) findings.push({ snapshot: snapshot.name, problem });
    else {
      const owners: string[] = [];
      findings.push({ snapshot: snapshot.name, problem, vbn: at.vbn, owners });
      const waiting = unnamed.get(snapshot) ?? [];
      unnamed.set(snapshot, [...waiting, { ino: at.ino, owners }]);
    }
  };
  for (const snapshot of roots) {
    const find = finder(snapshot);
    try {
      checkBlocks(volume, snapshot, checked, find, () => {
        if (++done % 4096 === 0) options.progress?.(done, total);
      });
      checkShadowFile(volume, snapshot, find);
      const counts = checkNames(volume.fileSystem(snapshot), find);
      if (snapshot.id === volume.current.id) Object.assign(report, counts);
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
      find(error.message);
    }
  }
  for (const [snapshot, waiting] of unnamed) nameOwners(volume, snapshot, waiting);
  const hasSummary = volume.role === "origin" || volume.superblock.branch !== undefined;
  if (findingCount === 0) {
    if (hasSummary) checkSummary(volume, finder(volume.active));
    const { current, active } = volume;
    const applied = { root: current, snapshots: volume.snapshots() };
    checkShadowContent(volume, applied, finder(current));
    // Local changes use blocks again, and their own root alone says so.
    const local = { root: active, snapshots: volume.keptSnapshots() };
    if (active.id !== current.id) checkShadowContent(volume, local, finder(active));
  }
  return {
    clean: findingCount === 0,
    findings,
    findingCount,
    roots: roots.length,
    blocks: popcount(checked.plane),
    ...report,
    badSuperblocks: volume.badSuperblocks(),
  };
}

/** A bad block's inode, and where the names of that go. */
type Unnamed = { readonly ino: number; readonly owners: string[] };

function nameOwners(volume: Volume, snapshot: Snapshot, waiting: readonly Unnamed[]): void {
  try {
    const owners = ownersOf(volume.fileSystem(snapshot), new Set(waiting.map(({ ino }) => ino)));
    for (const { ino, owners: names } of waiting) names.push(...owners.get(ino) ?? []);
  } catch (error) {
    // The root itself: there is no file system to look into.
    if (!(error instanceof VolcastError)) throw error;
  }
}

function uniqueRoots(volume: Volume): Snapshot[] {
  const byId = new Map(volume.keptSnapshots().map((snapshot) => [snapshot.id, snapshot]));
  for (const root of [volume.current, volume.active]) byId.set(root.id, root);
  return [...byId.values()];
}

/** Every pointer's checksum, no block used twice, and the plane is exactly what is reached. */
function checkBlocks(
  volume: Volume,
  snapshot: Snapshot,
  checked: CheckedBlocks,
  find: (problem: string, at?: { vbn: number; ino: number }) => void,
  seen: () => void,
): void {
  const { io, zone } = volume;
  const reached = new BitPlane(checked.plane.pageCount);
  const content = new ContentChecker(
    io,
    (vbn, error, { ino }) => find(messageOf(error), { vbn, ino }),
  );
  const visit = (pointer: Pointer, use: string, ino: number): boolean => {
    seen();
    if (pointer.vbn < zone.data.start || pointer.vbn >= zone.capacity) {
      find(`Inode ${ino} points at VBN ${pointer.vbn}, outside of the volume's data`);
      return false;
    }
    if (reached.has(pointer.vbn)) {
      find(`VBN ${pointer.vbn} is used twice, the second time by inode ${ino}`);
      return false;
    }
    reached.set(pointer.vbn);
    const isKnown = checked.has(pointer);
    checked.add(pointer);
    if (use === "content") {
      if (!isKnown) content.add(pointer, ino);
      return true;
    }
    try {
      io.read(pointer);
      return true;
    } catch (error) {
      find(messageOf(error), { vbn: pointer.vbn, ino });
      return false;
    }
  };
  walkRoot(io, snapshot.root, visit);
  content.flush();
  comparePlane(volume.plane(snapshot), reached, snapshot.blockCount, find);
}

function comparePlane(
  plane: Plane,
  reached: Plane,
  blockCount: number,
  find: (problem: string) => void,
): void {
  const claimed = popcount(plane);
  if (claimed !== blockCount) {
    find(`The block map names ${claimed} blocks, its root counts ${blockCount}`);
  }
  if (equalPlanes(plane, reached)) return;
  const found = popcount(reached);
  find(`The block map names ${claimed} blocks, reached are ${found}, and they are not the same`);
}

/**
 * Blocks whose checksum was compared. A block that snapshots share is read once; a pointer to it with
 * another checksum is one more comparison, so a byte of each checksum is kept.
 */
class CheckedBlocks {
  readonly plane: BitPlane;
  readonly #crcs = new Map<number, Uint8Array>();

  constructor(pageCount: number) {
    this.plane = new BitPlane(pageCount);
  }

  has({ vbn, crc }: Pointer): boolean {
    return this.plane.has(vbn) &&
      this.#crcs.get(Math.floor(vbn / PAGE_BITS))?.[vbn % PAGE_BITS] === (crc & 0xff);
  }

  add({ vbn, crc }: Pointer): void {
    this.plane.set(vbn);
    const index = Math.floor(vbn / PAGE_BITS);
    let page = this.#crcs.get(index);
    if (page === undefined) this.#crcs.set(index, page = new Uint8Array(PAGE_BITS));
    page[vbn % PAGE_BITS] = crc & 0xff;
  }
}

/** Directories, and that each file has as many names as its link count says. */
function checkNames(
  fs: FileSystem,
  find: (problem: string) => void,
): { files: number; directories: number } {
  const names = new Map<number, number>();
  let directories = 0;
  const walk = (ino: number, path: string) => {
    directories++;
    let subdirectories = 0;
    try {
      const directory = fs.directory(ino);
      directory.verify();
      for (const entry of fs.list(ino)) {
        const type = typeOfMode(fs.open(entry.ino).inode.mode);
        if (type !== entry.type) {
          find(`${path}/${entry.name} is a ${type}, its directory says ${entry.type}`);
        }
        const known = names.get(entry.ino) ?? 0;
        names.set(entry.ino, known + 1);
        if (type !== "directory") continue;
        subdirectories++;
        if (known > 0) find(`The directory ${path}/${entry.name} has more than one name`);
        else walk(entry.ino, `${path}/${entry.name}`);
      }
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
      find(`${path || "/"}: ${error.message}`);
      return;
    }
    const { nlink } = fs.open(ino).inode;
    if (nlink !== subdirectories + 2) {
      find(`${path || "/"} has link count ${nlink}, should have ${subdirectories + 2}`);
    }
  };
  walk(INO.root, "");
  let used = 1;
  for (let ino = INO.firstUser; ino < fs.inodeLimit; ino++) {
    const inode = fs.readInode(ino);
    const count = names.get(ino) ?? 0;
    if (inode.mode === 0) continue;
    used++;
    if (count === 0) find(`Inode ${ino} is in use and has no name`);
    else if (typeOfMode(inode.mode) !== "directory" && inode.nlink !== count) {
      find(`Inode ${ino} has link count ${inode.nlink} and ${count} names`);
    }
  }
  if (used !== fs.root.inodeCount) {
    find(`The root counts ${fs.root.inodeCount} inodes, in use are ${used}`);
  }
  checkFreeInodes(fs, fs.inodeLimit - INO.firstUser - (used - 1), find);
  return { files: used - directories, directories };
}

/** The chain of free inodes has all of them and no other: what is taken from it is written over. */
function checkFreeInodes(
  fs: FileSystem,
  freeCount: number,
  find: (problem: string) => void,
): void {
  let chained = 0;
  // One more than there can be is enough to see a circle.
  for (let ino = fs.root.freeInode; ino !== 0 && chained <= freeCount; chained++) {
    if (ino < INO.firstUser || ino >= fs.inodeLimit || fs.readInode(ino).mode !== 0) {
      find(`Inode ${ino} is in the chain of free inodes, and in use or out of bounds`);
      return;
    }
    ino = fs.readInode(ino).rdev;
  }
  if (chained !== freeCount) {
    find(`The chain of free inodes has not all of ${freeCount}, or goes in a circle`);
  }
}

function checkSummary(volume: Volume, find: (problem: string) => void): void {
  const planes = volume.keptSnapshots().map((snapshot) => volume.plane(snapshot));
  const { tree } = volume.fileSystem(volume.active).open(INO.summary);
  const summary = new PlaneFile(tree, volume.plane(volume.active).pageCount);
  const expected = planes.length === 0 ? new BitPlane(summary.pageCount) : sum(...planes);
  if (!equalPlanes(summary, expected)) {
    find(
      `The summary has ${popcount(summary)} blocks, the snapshots together ${popcount(expected)}`,
    );
  }
}
