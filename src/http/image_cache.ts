/**
 * Planned images, kept: many sites ask for the same one, and a planned image also remembers its digest.
 *
 * @module
 */

import {
  type HistoryRequest,
  Image,
  resolveExpression,
  selectHistory,
  selectImage,
  selectRanges,
  type StorageImage,
} from "../image/mod.ts";
import type { Snapshot, Volume } from "../volume/mod.ts";

const MAX_IMAGES = 32;

/** Images by volume object, so that a replaced volume's are not found. */
const caches = new WeakMap<Volume, Map<string, Image>>();

/** The image of `top - base`, planned now or before. */
export function imageOf(volume: Volume, top: Snapshot, base?: Snapshot): Image {
  return kept(volume, nameOf(top, base), () => new Image(volume, top, base));
}

/**
 * The image of an expression.
 * @throws {VolcastError} `usage` for the text, `not-found` for a name in it.
 */
export function imageOfExpression(volume: Volume, text: string): Image {
  // The names are looked up each time: they may mean something else by now, or nothing.
  const resolved = resolveExpression(volume, text);
  const key = `select ${resolved.text}`;
  return kept(volume, key, () => Image.of(volume, selectImage(volume, resolved)));
}

/**
 * The image of a top and of the snapshots that travel along.
 * @throws {VolcastError} See {@linkcode selectHistory}.
 */
export function imageWithHistory(volume: Volume, request: HistoryRequest): Image {
  return imageOfSelected(volume, selectHistory(volume, request));
}

/**
 * The same by the ranges of its canonical name.
 * @throws {VolcastError} See {@linkcode selectRanges}.
 */
export function imageOfRanges(
  volume: Volume,
  request: { ranges: string; top: Snapshot; base?: Snapshot | undefined },
): Image {
  return imageOfSelected(volume, selectRanges(volume, request));
}

function imageOfSelected(volume: Volume, selected: StorageImage): Image {
  const { top, base, query } = selected;
  if (query === undefined) return imageOf(volume, top, base);
  const key = `${nameOf(top, base)} ${query.name} ${query.value}`;
  return kept(volume, key, () => Image.of(volume, selected));
}

function nameOf(top: Snapshot, base: Snapshot | undefined): string {
  return `${base?.id ?? "full"} ${top.id}`;
}

function kept(volume: Volume, key: string, make: () => Image): Image {
  let cache = caches.get(volume);
  if (cache === undefined) caches.set(volume, cache = new Map());
  const known = cache.get(key);
  if (known !== undefined) return known;
  if (cache.size >= MAX_IMAGES) cache.delete(cache.keys().next().value!);
  const image = make();
  cache.set(key, image);
  return image;
}
