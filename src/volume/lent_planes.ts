/**
 * Planes of snapshots that are not here, brought by sites that stand on them: all that is needed to make
 * the increment since such a snapshot.
 *
 * A replica lists the snapshots that its current root lists, and has the blocks of some. A site that comes
 * from another parent may stand on one of the others. Both that one and what is here are regular in one
 * root, so no block of either was used again in between (I2): `top - base` by planes alone lacks nothing.
 *
 * When a node goes back to an older release, the sites below stand on one that its current root does not
 * list, since it is newer. That one is noted as retracted, with the snapshots that were regular in it: if
 * all that is here is among those, the same holds.
 *
 * Invariants:
 * 1. A plane is lent only for a snapshot that is not here, and that is regular in the current root, or in
 *    whose root everything that is here is regular.
 * 2. It was read block by block through the pointer to the snapshot's root, which the table of the current
 *    root has, or the local zone: so it is that snapshot's, whoever brought it.
 * 3. Nothing is read but the plane; in memory, a bounded number of them.
 *
 * @module
 */

import { BitPlane, pageCountOf, type Plane } from "../core/mod.ts";
import { BLOCK_SIZE, decodeRoot, INO, type Pointer, snapshotId } from "../format/mod.ts";
import { BlockCache, BlockIo } from "./block_io.ts";
import { BlockTree } from "./block_tree.ts";
import { FileSystem } from "./file_system.ts";
import type { Retracted } from "./local_state.ts";
import { PlaneFile } from "./plane_file.ts";
import type { Snapshot, Volume } from "./volume.ts";

/** Most planes kept; of a volume of 1 TiB one takes up to 32 MiB. */
const MAX_PLANES = 16;
/** Releases that were gone back from, and snapshots regular in one, that are noted. */
const MAX_RETRACTED = 8;
const MAX_REGULAR = 64;

/** See the module. */
export class LentPlanes {
  readonly #volume: Volume;
  readonly #planes = new Map<string, Plane>();

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  /** The snapshot of this id, if it is not here and its plane would do. */
  missing(id: string): Snapshot | undefined {
    const volume = this.#volume;
    if (!volume.hasRoot) return undefined;
    const here = volume.snapshots();
    if (here.some((snapshot) => snapshot.id === id)) return undefined;
    const listed = volume.listed().find((snapshot) => snapshot.id === id);
    if (listed !== undefined) return listed;
    const retracted = volume.local.retracted?.find((one) => snapshotId(one) === id);
    const isRegular = (snapshot: Snapshot) => retracted!.regular.includes(snapshot.id);
    if (retracted === undefined || !here.every(isRegular)) return undefined;
    const { name, cp, root, time, blockCount } = retracted;
    return { id, name, cp, root, time: BigInt(time), blockCount };
  }

  /** A missing snapshot whose plane was brought. */
  base(id: string): Snapshot | undefined {
    return this.#planes.has(id) ? this.missing(id) : undefined;
  }

  /** The plane of one that {@linkcode base} gives. */
  plane(id: string): Plane | undefined {
    return this.base(id) === undefined ? undefined : this.#planes.get(id);
  }

  /**
   * Takes the plane of a missing snapshot.
   * @param blocks Has the blocks that {@linkcode planeBlocks} names; each is checked.
   * @throws {VolcastError} `damaged` when a block is not what the pointer to it says.
   */
  lend(snapshot: Snapshot, blocks: ReadonlyMap<number, Uint8Array>): void {
    const io = new BlockIo(storeOf(blocks, this.#volume.zone.capacity), new BlockCache(0));
    const { tree } = new FileSystem(io, decodeRoot(io.read(snapshot.root))).open(INO.blockMap);
    const plane = BitPlane.copyOf(new PlaneFile(tree, pageCountOf(this.#volume.zone.capacity)));
    for (const id of this.#planes.keys()) {
      const isOld = this.#planes.size >= MAX_PLANES || this.missing(id) === undefined;
      if (isOld) this.#planes.delete(id);
    }
    this.#planes.set(snapshot.id, plane);
  }
}

/**
 * What a node has retracted when an image has brought it to a snapshot: what it goes back from, and what
 * it went back from before that is newer still.
 *
 * @param volume As it is before.
 */
export function retractedBy(volume: Volume, top: { readonly cp: number }): Retracted[] {
  const known = (volume.local.retracted ?? []).filter(({ cp }) => cp > top.cp);
  if (!volume.hasRoot || volume.role === "origin" || volume.current.cp <= top.cp) return known;
  const { id, name, cp, root, time, blockCount } = volume.current;
  const regular = volume.listed().map((snapshot) => snapshot.id).slice(-MAX_REGULAR);
  const added = { name, cp, root, time: String(time), blockCount, regular };
  return [...known.filter((one) => snapshotId(one) !== id), added].slice(-MAX_RETRACTED);
}

/** The blocks from which the plane of a snapshot that is here is read, its root first of all. */
export function planeBlocks(volume: Volume, snapshot: Snapshot): BitPlane {
  const { io, zone } = volume;
  const blocks = new BitPlane(pageCountOf(zone.capacity));
  const note = (pointer: Pointer): true => {
    blocks.set(pointer.vbn);
    return true;
  };
  note(snapshot.root);
  const { inodeFile } = decodeRoot(io.read(snapshot.root));
  const inodes = new BlockTree(io, inodeFile.height, inodeFile.slots);
  // The inode of the block map is in the first block of the inode file.
  inodes.forEachPointer((pointer, _, index) => index === 0 && note(pointer));
  volume.plane(snapshot).tree.forEachPointer(note);
  return blocks;
}

function storeOf(blocks: ReadonlyMap<number, Uint8Array>, capacity: number): BlockIo["store"] {
  const only = (): never => {
    throw new Error("planes that were brought are only read");
  };
  return {
    capacity,
    read(vbn: number, target: Uint8Array): void {
      // What was not brought has the checksum of nothing that a pointer means.
      for (let at = 0; at < target.length; at += BLOCK_SIZE) {
        const block = blocks.get(vbn + at / BLOCK_SIZE);
        if (block === undefined) target.fill(0, at, at + BLOCK_SIZE);
        else target.set(block, at);
      }
    },
    write: only,
    sync: only,
    close: () => {},
  };
}
