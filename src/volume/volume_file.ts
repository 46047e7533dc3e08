/**
 * Volumes as files of the host: making, opening, and putting a new one in the place of an old one.
 *
 * A full image comes into a file of its own, `PATH.incoming`, which takes the name only when it is
 * complete. A crash leaves the old file, and an incoming one that is gone on with.
 *
 * @module
 */

import { divCeil, messageOf, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, snapshotId, zoneOf } from "../format/mod.ts";
import { FileStore } from "../store/mod.ts";
import { readOwner } from "./local_state.ts";
import { readSuperblock } from "./superblocks.ts";
import { type CreateOptions, Volume, type VolumeOptions } from "./volume.ts";

/**
 * Makes a volume of `byteCount` bytes in a new file. The file is sparse: it takes only what is
 * written.
 *
 * @throws {VolcastError} `exists`, `usage` (size), `denied`, `io`. No file is left behind then.
 */
export async function createVolumeFile(
  path: string,
  byteCount: number,
  options: CreateOptions = {},
): Promise<Volume> {
  const capacity = divCeil(byteCount, BLOCK_SIZE);
  zoneOf(capacity);
  const store = FileStore.open(path, { create: true, capacity });
  try {
    const volume = await Volume.create(store, options);
    syncDirectoryOf(path);
    return volume;
  } catch (error) {
    store.close();
    Deno.removeSync(path);
    throw error;
  }
}

/**
 * Opens the volume in a file and takes its lock.
 *
 * @throws {VolcastError} `busy`, naming the owner and its URL where it has one; see also
 *   {@linkcode Volume.open}.
 */
export function openVolumeFile(path: string, options: VolumeOptions = {}): Volume {
  const store = openStore(path);
  try {
    const volume = Volume.open(store, options);
    // Who finds the file locked is told by whom; a server adds its URL.
    volume.noteOwner(undefined);
    return volume;
  } catch (error) {
    store.close();
    if (!(error instanceof VolcastError)) throw error;
    const message = error.message.replace("Cannot open the volume", `Cannot open ${path}`);
    throw new VolcastError(error.kind, message, error.hint, { cause: error });
  }
}

/** Path of the file that a full image for `path` comes into. */
export function incomingPath(path: string): string {
  return `${path}.incoming`;
}

/**
 * Opens or makes the file that a full image comes into. One that was left half filled by the same
 * volume's image is gone on with, one that is complete and only lacks its name is taken as it is; any
 * other is made anew.
 */
export function openIncoming(
  path: string,
  image: { volumeId: string; capacity: number; top: string },
  options: VolumeOptions = {},
): Volume {
  zoneOf(image.capacity);
  const file = incomingPath(path);
  if (exists(file)) {
    const store = openStore(file);
    if (store.capacity === image.capacity) {
      const volume = reopenIncoming(store, image, options);
      if (volume !== undefined) return volume;
    }
    store.close();
    Deno.removeSync(file);
  }
  const store = FileStore.open(file, { create: true, capacity: image.capacity });
  return Volume.incoming(store, image.volumeId, options);
}

/** Gives a complete incoming volume the name it was made for; what had the name is gone then. */
export function adoptIncoming(path: string): void {
  Deno.renameSync(incomingPath(path), path);
  syncDirectoryOf(path);
}

/** Whether something has this path. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw new VolcastError("io", `Cannot look at ${path}: ${messageOf(error)}`);
  }
}

function reopenIncoming(
  store: FileStore,
  image: { volumeId: string; top: string },
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

function openStore(path: string): FileStore {
  try {
    return FileStore.open(path);
  } catch (error) {
    if (!(error instanceof VolcastError) || error.kind !== "busy") throw error;
    const owner = ownerOf(path);
    throw new VolcastError(
      "busy",
      owner === undefined
        ? error.message
        : `Cannot open ${path}: process ${owner.pid} has it open${
          owner.url === undefined ? "" : ` and serves it at ${owner.url}`
        }`,
      owner?.url === undefined ? "Wait for it, or stop it" : `Use ${owner.url} in its place`,
    );
  }
}

/** Who has the file open, read past the lock; undefined where that cannot be told. */
function ownerOf(path: string): ReturnType<typeof readOwner> {
  try {
    const store = FileStore.peek(path);
    try {
      return readOwner(store, zoneOf(store.capacity));
    } finally {
      store.close();
    }
  } catch {
    return undefined;
  }
}

/** A new name is durable only when the directory that has it is. */
function syncDirectoryOf(path: string): void {
  const slash = path.lastIndexOf("/");
  FileStore.syncDirectory(slash < 0 ? "." : path.slice(0, slash) || "/");
}
