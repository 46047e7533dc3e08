/**
 * Planned images, kept: many sites ask for the same one, and a planned image also remembers its digest.
 *
 * @module
 */

import { Image } from "../image/mod.ts";
import type { Snapshot, Volume } from "../volume/mod.ts";

const MAX_IMAGES = 32;

/** Images by volume object, so that a replaced volume's are not found. */
const caches = new WeakMap<Volume, Map<string, Image>>();

/** The image of `top - base`, planned now or before. */
export function imageOf(volume: Volume, top: Snapshot, base?: Snapshot): Image {
  let cache = caches.get(volume);
  if (cache === undefined) caches.set(volume, cache = new Map());
  const key = `${base?.id ?? "full"} ${top.id}`;
  const known = cache.get(key);
  if (known !== undefined) return known;
  if (cache.size >= MAX_IMAGES) cache.delete(cache.keys().next().value!);
  const image = new Image(volume, top, base);
  cache.set(key, image);
  return image;
}
