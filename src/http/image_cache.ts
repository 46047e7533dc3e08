/**
 * Planned images, kept: many sites ask for the same one, and a planned image also remembers its digest.
 *
 * @module
 */

import {
  baseName,
  type HistoryRequest,
  Image,
  resolveExpression,
  selectHistory,
  selectImage,
  selectRanges,
  stateFor,
  type StorageImage,
} from "../image/mod.ts";
import { isShadow, type Snapshot, type Volume } from "../volume/mod.ts";

const MAX_IMAGES = 32;

/** Images by volume object, so that a replaced volume's are not found. */
const caches = new WeakMap<Volume, Map<string, Image>>();

/**
 * The image of `top - base`, planned now or before.
 * @param state Of a base that is a shadow: the root as of which its plane is read.
 */
export function imageOf(volume: Volume, top: Snapshot, base?: Snapshot, state?: Snapshot): Image {
  const asOf = state ??
    (base !== undefined && isShadow(base) ? stateFor(volume, base, top) : undefined);
  const make = () => new Image(volume, top, base, { state: asOf });
  return kept(volume, nameOf(top, base, asOf), make);
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
  request: Parameters<typeof selectRanges>[1],
): Image {
  return imageOfSelected(volume, selectRanges(volume, request));
}

function imageOfSelected(volume: Volume, selected: StorageImage): Image {
  const { top, base, state, query } = selected;
  if (query === undefined) return imageOf(volume, top, base, state);
  const key = `${nameOf(top, base, state)} ${query.name} ${query.value}`;
  return kept(volume, key, () => Image.of(volume, selected));
}

function nameOf(
  top: Snapshot,
  base: Snapshot | undefined,
  state: Snapshot | undefined,
): string {
  return `${base === undefined ? "full" : baseName(base, state)} ${top.id}`;
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
