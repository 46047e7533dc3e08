/**
 * Where full images come in: beside the volume, in files that take its name when they are complete, or
 * in place, on a block device, which cannot be renamed.
 *
 * A full image for PATH comes into `PATH.incoming`, a volume of the same kind; that of a striped volume
 * into one such file a member. A crash leaves the old volume, and incoming files that are gone on with;
 * one between two renames of members is made good by the next opening, see `store/open_store.ts`.
 *
 * In place there is no volume from the first write on until the image is complete.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, snapshotId, zoneOf } from "../format/mod.ts";
import {
  adoptFiles,
  type BlockStore,
  createStore,
  exists,
  FileStore,
  INCOMING,
  packedBlocks,
  PackedStore,
  removeFiles,
  type StoreFiles,
  storeFiles,
} from "../store/mod.ts";
import { readSuperblock } from "./superblocks.ts";
import { Volume, type VolumeOptions } from "./volume.ts";
import { openOwned } from "./volume_file.ts";

/** Blocks at both ends of a device that are looked at before it is written: 1 MiB. */
const BLANK_BLOCKS = 256;

/** What must be known of an image before it comes. */
export interface IncomingImage {
  readonly volumeId: string;
  readonly capacity: number;
  /** Id of its top. */
  readonly top: string;
}

/** Options of {@linkcode openIncoming}. */
export interface IncomingOptions extends VolumeOptions {
  /** Whether the new volume is packed, whatever the old one is. */
  readonly packed?: boolean;
}

/** Path of what a full image for `path` comes into: as many files as the volume has or will have. */
export function incomingPath(path: string): string {
  return incomingFiles(path).join(",");
}

/**
 * Opens or makes the files that a full image comes into. Those that were left half filled by the same
 * volume's image are gone on with, those that are complete and only lack their name are taken as they
 * are; any others are made anew.
 *
 * @throws {VolcastError} `unsupported` for a block device.
 */
export function openIncoming(
  path: string,
  image: IncomingImage,
  options: IncomingOptions = {},
): Volume {
  zoneOf(image.capacity);
  if (isBlockDevice(path)) {
    throw new VolcastError(
      "unsupported",
      `Cannot put a full image in the place of ${path}: it is a block device, and nothing lies beside it`,
      `Write it in place while nobody reads: volcast copy SOURCE ${path} --overwrite`,
    );
  }
  const target = targetOf(path, options.packed ?? false);
  const files = incomingFiles(path);
  if (exists(files.join(","))) {
    const volume = reopen(files, target, image, options);
    if (volume !== undefined) return volume;
    removeFiles(files);
  }
  return Volume.incoming(createStore(target, image.capacity, INCOMING), image.volumeId, options);
}

/** Gives a complete incoming volume the name it was made for; what had the name is gone then. */
export function adoptIncoming(path: string): void {
  adoptFiles(storeFiles(path).files);
}

/** Removes what a full image came into. */
export function removeIncoming(path: string): void {
  removeFiles(incomingFiles(path));
}

/** Where a volume lies, as far as full images that take its place need to know. */
export interface VolumeHome {
  /** See {@linkcode openIncoming}. */
  openIncoming(image: IncomingImage, options?: VolumeOptions): Volume;
  /** See {@linkcode adoptIncoming}. */
  adoptIncoming(): void;
  /** See {@linkcode removeIncoming}. */
  removeIncoming(): void;
}

/** The home of the volume at a path. */
export function homeAt(path: string): VolumeHome {
  return {
    openIncoming: (image, options) => openIncoming(path, image, options),
    adoptIncoming: () => adoptIncoming(path),
    removeIncoming: () => removeIncoming(path),
  };
}

/** Options of {@linkcode openInPlace}. */
export interface InPlaceOptions extends VolumeOptions {
  readonly packed?: boolean;
  /** Whether what is there may be written over. */
  readonly overwrite?: boolean;
  /** Blocks that the image has, to see whether a packed one fits. */
  readonly blockCount: number;
}

/**
 * Makes a block device ready for a full image. From here on there is no volume on it until the image
 * is complete. A transfer of the same image that was interrupted there is gone on with.
 *
 * @throws {VolcastError} `exists` when something is there, `full` when the device is too small, `busy`.
 */
export async function openInPlace(
  path: string,
  image: IncomingImage,
  options: InPlaceOptions,
): Promise<Volume> {
  const zone = zoneOf(image.capacity);
  const packed = options.packed ?? false;
  const half = reopenInPlace(path, image, options);
  if (half !== undefined) return half;
  const device = FileStore.open(path);
  try {
    const needed = packed ? packedBlocks(options.blockCount + zone.data.start) : image.capacity;
    if (device.capacity < needed) throw tooSmall(path, device.capacity, needed, packed);
    if (!options.overwrite && !isBlank(device)) {
      throw new VolcastError(
        "exists",
        `Cannot copy to ${path}: the device is not empty`,
        "Give --overwrite to write over what is on it",
      );
    }
    const zeros = new Uint8Array(BLOCK_SIZE);
    // The superblocks or headers first: what was there must not be taken for a volume any more.
    const [first, second] = zone.localSlots;
    for (const vbn of [0, 1, zone.owner.start, first.start, second.start]) {
      if (vbn < device.capacity) device.write(vbn, zeros);
    }
    await device.sync();
    if (packed) {
      const store = PackedStore.create(device, image.capacity);
      store.write(zone.owner.start, zeros);
      return Volume.incoming(store, image.volumeId, options);
    }
  } catch (error) {
    device.close();
    throw error;
  }
  device.close();
  const store = FileStore.open(path, { capacity: image.capacity });
  return Volume.incoming(store, image.volumeId, options);
}

/** Whether a path is a block device, or a node of one. */
export function isBlockDevice(path: string): boolean {
  try {
    return Deno.statSync(path).isBlockDevice === true;
  } catch {
    return false;
  }
}

/** How the volume lies that will have the name. */
function targetOf(path: string, packed: boolean): StoreFiles {
  const { kind, files } = storeFiles(path);
  return { kind: packed && kind === "plain" ? "packed" : kind, files };
}

function incomingFiles(path: string): string[] {
  return storeFiles(path).files.map((file) => file + INCOMING);
}

function reopen(
  files: readonly string[],
  target: StoreFiles,
  image: IncomingImage,
  options: VolumeOptions,
): Volume | undefined {
  const path = files.join(",");
  let store: BlockStore;
  try {
    if (!files.every(exists) || kindOf(files) !== target.kind) return undefined;
    store = openOwned(path);
  } catch (error) {
    // Left by a crash before it was whole; but what somebody is filling is not to be removed.
    if (error instanceof VolcastError && error.kind !== "busy") return undefined;
    throw error;
  }
  const volume = store.capacity === image.capacity
    ? resumeIncoming(store, image, options)
    : undefined;
  if (volume === undefined) store.close();
  return volume;
}

/** The volume in a store if it is the image's, complete or half. */
export function resumeIncoming(
  store: BlockStore,
  image: IncomingImage,
  options: VolumeOptions,
): Volume | undefined {
  try {
    const superblock = readSuperblock(store);
    const complete = superblock.volumeId === image.volumeId &&
      snapshotId(superblock) === image.top;
    return complete ? Volume.open(store, options) : undefined;
  } catch {
    const volume = Volume.incoming(store, image.volumeId, options);
    return volume.local.transfer === undefined ? undefined : volume;
  }
}

/** A device that has a part of this very image, and no volume. */
function reopenInPlace(
  path: string,
  image: IncomingImage,
  options: InPlaceOptions,
): Volume | undefined {
  const packed = options.packed ?? false;
  if (kindOf([path]) !== (packed ? "packed" : "plain")) return undefined;
  const store = packed ? openOwned(path) : FileStore.open(path, image);
  try {
    if (store.capacity === image.capacity && !hasSuperblock(store)) {
      const volume = Volume.incoming(store, image.volumeId, options);
      if (volume.local.transfer?.top === image.top) return volume;
    }
  } catch (error) {
    // A local zone that cannot be read is of something else.
    if (!(error instanceof VolcastError)) throw error;
  }
  store.close();
  return undefined;
}

function kindOf(files: readonly string[]): StoreFiles["kind"] | undefined {
  try {
    return storeFiles(files[0]).kind;
  } catch (error) {
    if (error instanceof VolcastError) return undefined;
    throw error;
  }
}

function hasSuperblock(store: BlockStore): boolean {
  try {
    readSuperblock(store);
    return true;
  } catch {
    return false;
  }
}

/** Whether nothing lies where volumes, partition tables and most file systems have their marks. */
function isBlank(device: BlockStore): boolean {
  const count = Math.min(BLANK_BLOCKS, device.capacity);
  const bytes = new Uint8Array(count * BLOCK_SIZE);
  return [0, device.capacity - count].every((vbn) => {
    device.read(vbn, bytes);
    return bytes.every((byte) => byte === 0);
  });
}

function tooSmall(path: string, has: number, needs: number, packed: boolean): VolcastError {
  return new VolcastError(
    "full",
    `Cannot copy to ${path}: it has ${has} blocks, ${
      packed ? "the image and the map of it need" : "the volume has"
    } ${needs}`,
    packed ? "Use a larger device" : "Give --packed to take only the room of what is in the volume",
  );
}
