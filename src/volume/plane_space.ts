/**
 * What planes take on disk, found by walking the files they lie in.
 *
 * @module
 */

import { BitPlane, pageCountOf, popcount } from "../core/mod.ts";
import { INO } from "../format/mod.ts";
import type { Snapshot, Volume } from "./volume.ts";

/** Blocks of files with planes, one that several roots share counted once. */
export interface PlaneBlocks {
  /** Blocks with bits. */
  readonly pages: number;
  /** Blocks of pointers to them. */
  readonly pointers: number;
}

/** One plane. */
export interface PlaneSize {
  readonly id: string;
  readonly name: string;
  readonly kind: "active" | "regular" | "shadow";
  /** Blocks that have a bit: of a shadow, those that were not used again. */
  readonly blocks: number;
  /** Blocks on disk that its bits take; others may share them. */
  readonly pages: number;
}

/** See the module. */
export interface PlaneSpace {
  /** Every plane, oldest first, the active file system's last. */
  readonly planes: readonly PlaneSize[];
  /** All block maps together. */
  readonly blockMaps: PlaneBlocks;
  /** The summary of the current root. */
  readonly summary: PlaneBlocks;
  /** The file of shadow planes of the current root. */
  readonly shadows: PlaneBlocks;
  /** Summaries and shadow planes as they were, kept by snapshots, where they differ from those of now. */
  readonly older: PlaneBlocks;
}

/** Walks the block maps, summaries and shadow planes of the current root and of all snapshots. */
export function planeSpace(volume: Volume): PlaneSpace {
  const { current } = volume;
  const roots = [...volume.snapshots().filter(({ id }) => id !== current.id), current];
  const seen = new BitPlane(pageCountOf(volume.zone.capacity));
  const blocksOf = (snapshots: readonly Snapshot[], ...inos: number[]): PlaneBlocks => {
    const found = { pages: 0, pointers: 0 };
    for (const snapshot of snapshots) {
      const fs = volume.fileSystem(snapshot);
      for (const ino of inos) {
        if (fs.readInode(ino).mode === 0) continue;
        fs.open(ino).tree.forEachPointer(({ vbn }, level) => {
          if (seen.has(vbn)) return false;
          seen.set(vbn);
          found[level === 0 ? "pages" : "pointers"]++;
          return true;
        });
      }
    }
    return found;
  };
  const planes: PlaneSize[] = roots.map((root) => ({
    id: root.id,
    name: root.name,
    kind: root === current ? "active" : "regular",
    blocks: root.blockCount,
    pages: [...volume.plane(root).pages()].length,
  }));
  for (const { id, name } of volume.shadows()) {
    const plane = volume.shadowPlane(id);
    const pages = [...plane.pages()].length;
    planes.push({ id, name, kind: "shadow", blocks: popcount(plane), pages });
  }
  const cp = ({ id }: PlaneSize) => Number(id.split("-")[0]);
  return {
    planes: planes.sort((a, b) => cp(a) - cp(b)),
    blockMaps: blocksOf(roots, INO.blockMap),
    // What the current root has counts here, whoever shares it.
    summary: blocksOf([current], INO.summary),
    shadows: blocksOf([current], INO.shadows),
    older: blocksOf(roots, INO.summary, INO.shadows),
  };
}
