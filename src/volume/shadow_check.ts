/**
 * Checking shadows, as a part of fsck.
 *
 * A shadow's plane cannot be compared with what a root reaches: that root is gone. What can be checked:
 * that the file has the shape it should have, that no bit lies where no data is, and (as far as the old
 * root's pointers can still be followed through blocks that were not used again) that every block with
 * a bit that a root uses has the content that the old pointer to it says.
 *
 * @module
 */

import { hasBit, messageOf, type Plane, runsOf, sum, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  decodeSnapshots,
  INO,
  type Pointer,
  SHADOW_SLOTS,
  snapshotId,
} from "../format/mod.ts";
import { readAll } from "./live_file_system.ts";
import { shadowHeight } from "./shadows.ts";
import type { Shadow, Snapshot, Volume } from "./volume.ts";
import { ContentChecker, walkRoot } from "./walk.ts";

/** The file of shadow planes of one root: its shape, its slots, its bits. */
export function checkShadowFile(
  volume: Volume,
  snapshot: Snapshot,
  find: (problem: string) => void,
): void {
  const fs = volume.fileSystem(snapshot);
  const table = decodeSnapshots(readAll(fs, INO.snapshots));
  const slots = new Set(table.flatMap(({ slot }) => slot ?? []));
  const inode = fs.readInode(INO.shadows);
  if (slots.size === 0 || inode.mode === 0) {
    if (slots.size > 0) find("There are shadows, and no file of their planes");
    if (inode.mode !== 0) find("There is a file of shadow planes, and no shadow");
    return;
  }
  const { pageCount } = volume.plane(snapshot);
  const size = SHADOW_SLOTS * pageCount * BLOCK_SIZE;
  if (inode.size !== size || inode.height !== shadowHeight(pageCount)) {
    find(
      `The file of shadow planes has ${inode.size} bytes and height ${inode.height}, should have ` +
        `${size} and ${shadowHeight(pageCount)}`,
    );
    return;
  }
  fs.open(INO.shadows).tree.forEachPointer((_, level, index) => {
    const slot = Math.floor(index / pageCount);
    if (level === 0 && !slots.has(slot)) {
      find(`Block ${index} of the file of shadow planes lies in slot ${slot}, which no shadow has`);
    }
    return true;
  });
  for (const record of table) {
    if (record.slot === undefined) continue;
    checkBits(volume, volume.shadowPlane(snapshotId(record), snapshot), record.name, find);
  }
}

function checkBits(
  { zone }: Volume,
  plane: Plane,
  name: string,
  find: (problem: string) => void,
): void {
  for (const { start, count } of runsOf(plane)) {
    const inData = start >= zone.data.start && start + count <= zone.capacity;
    if (inData) continue;
    find(
      `The shadow '${name}' has the blocks ${start} to ${
        start + count - 1
      }, outside of the volume's data`,
    );
    return;
  }
}

/**
 * The shadows of a root against the blocks that are there.
 *
 * @param state The root, with all snapshots that its blocks may be of. What else has a bit may hold
 *   anything: at a replica local changes lie there, which only their own root knows of.
 */
export function checkShadowContent(
  volume: Volume,
  state: { readonly root: Snapshot; readonly snapshots: readonly Snapshot[] },
  find: (problem: string) => void,
): void {
  const roots = [...state.snapshots, state.root];
  const used = sum(...roots.map((root) => volume.plane(root)));
  for (const shadow of volume.shadowsIn(state.root)) {
    try {
      checkContent(volume, { shadow, state: state.root, roots, used }, find);
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
      find(`The shadow '${shadow.name}': ${error.message}`);
    }
  }
}

function checkContent(
  volume: Volume,
  { shadow, state, roots, used }: {
    shadow: Shadow;
    state: Snapshot;
    roots: readonly Snapshot[];
    used: Plane;
  },
  find: (problem: string) => void,
): void {
  const plane = volume.shadowPlane(shadow.id, state);
  for (const { name, cp, root } of roots) {
    // Every consistency point has a root of its own, so no older snapshot has its block.
    if (cp <= shadow.cp || !hasBit(plane, root.vbn)) continue;
    find(`The shadow '${shadow.name}' has VBN ${root.vbn}, the root of '${name}', which is newer`);
  }
  const differs = (vbn: number, error: unknown) =>
    find(
      `VBN ${vbn} was used again, and the shadow '${shadow.name}' still has it (${
        messageOf(error)
      })`,
    );
  const content = new ContentChecker(volume.io, differs);
  const visit = (pointer: Pointer, use: string): boolean => {
    if (!hasBit(plane, pointer.vbn)) return false;
    const inUse = hasBit(used, pointer.vbn);
    if (use === "content") {
      if (inUse) content.add(pointer);
      return true;
    }
    try {
      volume.io.read(pointer);
      return true;
    } catch (error) {
      if (inUse) differs(pointer.vbn, error);
      return false;
    }
  };
  walkRoot(volume.io, shadow.root, visit);
  content.flush();
}
