/**
 * The file of an incremental mirror: a packed file that has what is newer than a base image, kept
 * elsewhere on slower storage. Together they are a volume.
 *
 * Invariants:
 * 1. A block that is not in the file is the base image's. The base is never written.
 * 2. The file has the superblock, the local zone, and of what the current root reaches the blocks that
 *    came after the base; nothing else once a round has ended. So its size follows the true difference.
 * 3. The local zone says which base it is. With another one, or without one, the file is no volume.
 *
 * A crash leaves the root before or the one after, as with any replica: blocks are given up only when
 * no root in force reaches them any more.
 *
 * Source: WO 00/07104, incremental mirrors.
 *
 * @module
 */

import { assert, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, zoneOf } from "../format/mod.ts";
import {
  adoptFiles,
  type BlockStore,
  createStore,
  exists,
  FileStore,
  INCOMING,
  OverlayStore,
  PackedStore,
  peekStore,
  removeFiles,
  storeFiles,
} from "../store/mod.ts";
import { discardUnused } from "./discard.ts";
import { type BaseImage, LocalZone } from "./local_state.ts";
import { Volume, type VolumeOptions } from "./volume.ts";
import { openOwned } from "./volume_file.ts";

/** What lies in the file of an incremental mirror. */
export interface MirrorFileInfo {
  readonly base: BaseImage;
  /** Blocks of the file system, its metadata included, that are in the file. */
  readonly dataBlocks: number;
}

/**
 * Looks whether a path is that of an incremental mirror, past its lock.
 * @returns `undefined` when it is anything else, or nothing.
 */
export function peekMirrorFile(path: string): MirrorFileInfo | undefined {
  if (storeFiles(path).kind !== "packed") return undefined;
  const store = peekStore(path);
  try {
    assert(store instanceof PackedStore, "a packed file");
    const zone = zoneOf(store.capacity);
    const { base } = new LocalZone(store, zone).read();
    return base && { base, dataBlocks: store.countIn(zone.data.start, zone.data.count) };
  } finally {
    store.close();
  }
}

/** What a new mirror stands on. */
export interface NewMirror extends BaseImage {
  readonly volumeId: string;
  /** Its name among the source's sites; its own from here on, wherever the file is moved to. */
  readonly site: string;
  /** Its blocks; closed with the volume. */
  readonly store: BlockStore;
}

/**
 * Makes the file of a mirror that is at its base.
 *
 * @param adopt Makes the base's top the current root of the volume, which has none; durable when it
 *   returns. The file gets its name after that.
 * @throws {VolcastError} `exists`, `busy` (another process makes it now), `io`, and what `adopt` throws.
 *   No file is left behind then.
 */
export async function createMirrorFile(
  path: string,
  { volumeId, site, store: base, top, path: basePath }: NewMirror,
  adopt: (volume: Volume) => Promise<void>,
): Promise<Volume> {
  const files = [path];
  // What a crash left of an attempt before; another process that is at work there has its lock.
  if (exists(path + INCOMING)) {
    FileStore.open(path + INCOMING).close();
    removeFiles([path + INCOMING]);
  }
  const upper = createStore({ kind: "packed", files }, base.capacity, INCOMING);
  assert(upper instanceof PackedStore, "a mirror is packed");
  try {
    // So that the first owner's note, which nobody syncs, has its place already.
    upper.write(zoneOf(upper.capacity).owner.start, new Uint8Array(BLOCK_SIZE));
    const volume = Volume.incoming(new OverlayStore(base, upper), volumeId);
    await volume.updateLocal((state) => {
      state.site = site;
      state.base = { top, path: basePath };
    });
    await adopt(volume);
    if (exists(path)) throw new VolcastError("exists", `Cannot make ${path}: it exists already`);
    adoptFiles(files);
    return volume;
  } catch (error) {
    upper.close();
    removeFiles([path + INCOMING]);
    throw error;
  }
}

/**
 * Opens a mirror over its base.
 *
 * @param base Blocks of the base image whose top is `base.top`; closed with the volume.
 * @throws {VolcastError} `diverged` when it is not this mirror's base; see also `openVolumeFile`.
 */
export function openMirrorFile(
  path: string,
  base: { readonly store: BlockStore; readonly top: string; readonly path: string },
  options: VolumeOptions = {},
): Volume {
  const isRead = (options.readOnlyBecause ?? "") !== "";
  const upper = openOwned(path, { orReadOnly: isRead });
  try {
    const wanted = upper instanceof PackedStore
      ? new LocalZone(upper, zoneOf(upper.capacity)).read().base
      : undefined;
    if (wanted?.top !== base.top || upper.capacity !== base.store.capacity) {
      throw new VolcastError(
        "diverged",
        wanted === undefined
          ? `Cannot open ${path} over ${base.path}: it is no incremental mirror`
          : `Cannot open ${path}: it stands on the image of ${wanted.top}, ${base.path} is that of ` +
            base.top,
        wanted === undefined ? "" : `Give its own base, which was at ${wanted.path}`,
      );
    }
    const volume = Volume.open(new OverlayStore(base.store, upper as PackedStore), options);
    if (upper.readOnly === undefined) volume.noteOwner(undefined);
    return volume;
  } catch (error) {
    upper.close();
    throw error;
  }
}

/**
 * Gives up what only older roots reach (invariant 2); durable when this returns. Nobody reads them.
 *
 * @param volume A mirror over its base.
 */
export async function trimMirror(volume: Volume): Promise<void> {
  await volume.updateLocal((state) => {
    state.held = [];
  });
  discardUnused(volume);
  await volume.syncReceived();
}
