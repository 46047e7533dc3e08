/**
 * The base images of incremental mirrors: a full image in a file, or in the segments in a directory.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "node:path";
import { VolcastError } from "../core/mod.ts";
import { decodeRoot, idOf } from "../format/mod.ts";
import { describeImage, ImageStore, Pieces } from "../image/mod.ts";
import { BlockCache, BlockIo } from "../volume/mod.ts";
import { openPieces } from "./image_source.ts";
import { Media } from "./media.ts";
import { infoOf } from "./output.ts";

/** A base image that is open. */
export interface OpenedBase {
  /** Its blocks. Closing this closes everything. */
  readonly store: ImageStore;
  /** Where to read it as a stream. */
  readonly pieces: Pieces;
  /** Id of its top. */
  readonly top: string;
  readonly path: string;
}

/**
 * Opens a base image and reads its index.
 *
 * @param note Told of files in the directory that are no segments, and of such as cannot be read.
 * @throws {VolcastError} `not-found`, `damaged` (what is missing), `diverged` (several images, or no
 *   full one), `usage` (a pipe).
 */
export async function openBase(
  path: string,
  note: (text: string) => void = () => {},
): Promise<OpenedBase> {
  return await withPieces(path, note, async (pieces, close) => {
    if (pieces.header.base !== undefined) {
      throw new VolcastError(
        "diverged",
        `Cannot use ${path} as a base: it has ${
          describeImage(pieces.header)
        }, which is no full image`,
        "Give a full image, or a path where there is none yet: it is made there",
      );
    }
    pieces.checkComplete();
    const store = await ImageStore.open([pieces], close);
    return { store, pieces, top: idOf(pieces.header.top), path };
  });
}

/** Which image the segments in a directory are of; `undefined` where none is. @throws As {@linkcode openBase}. */
export async function partsOf(path: string): Promise<{ top: string; name: string } | undefined> {
  if (!hasBase(path)) return undefined;
  return await withPieces(path, () => {}, ({ header: { top } }, close) => {
    close();
    return Promise.resolve({ top: idOf(top), name: top.name });
  });
}

/** Opens the pieces at a path; `close` is for `work`, unless it throws. */
async function withPieces<T>(
  path: string,
  note: (text: string) => void,
  work: (pieces: Pieces, close: () => void) => Promise<T>,
): Promise<T> {
  // Nothing here waits for anybody.
  const media = new Media(new AbortController().signal);
  const close = () => void media[Symbol.asyncDispose]();
  try {
    return await work(new Pieces(await openPieces(media, filesOf(path), note), note), close);
  } catch (error) {
    close();
    throw error;
  }
}

/** The line of history that a base's top is in. @throws {VolcastError} `damaged`. */
export function epochOf({ store }: OpenedBase): number {
  return decodeRoot(new BlockIo(store, new BlockCache(0)).read(store.root)).epoch;
}

/** Whether a path means, or will mean, a directory of segments. */
export function isDirectory(path: string): boolean {
  return path.endsWith("/") || infoOf(path)?.isDirectory === true;
}

/** Whether a path is that of a base, or of a file in its directory; there may be no base yet. */
export function isOfBase(path: string, base: string): boolean {
  const [file, whole] = [realPathOf(path), realPathOf(base)];
  if (file === whole) return true;
  return isDirectory(base) && file.startsWith(`${whole}/`) && infoOf(file)?.isFile === true;
}

/** A path without links, as far as it is there. */
function realPathOf(path: string): string {
  const whole = resolve(path);
  try {
    return Deno.realPathSync(whole);
  } catch {
    // It is not there yet.
    return whole === "/" ? whole : join(realPathOf(dirname(whole)), basename(whole));
  }
}

/** Whether there is anything of a base image at a path. */
export function hasBase(path: string): boolean {
  return isDirectory(path)
    ? infoOf(path) !== undefined && filesOf(path).length > 0
    : infoOf(path) !== undefined;
}

/** The files of a base; what is hidden or not whole yet is left out. */
function filesOf(path: string): string[] {
  if (!isDirectory(path)) return [path];
  if (infoOf(path) === undefined) {
    throw new VolcastError("not-found", `Cannot read ${path}: there is no such directory`);
  }
  return [...Deno.readDirSync(path)]
    .filter(({ name, isFile }) => isFile && !name.startsWith(".") && !name.endsWith(".part"))
    .map(({ name }) => `${path.replace(/\/+$/, "")}/${name}`).sort();
}
