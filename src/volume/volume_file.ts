/**
 * Volumes as files of the host: making and opening them. How a volume lies in its files (plain, packed,
 * striped, on a block device) is seen from the files themselves.
 *
 * @module
 */

import { divCeil, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, zoneOf } from "../format/mod.ts";
import {
  type BlockStore,
  createStore,
  FileStore,
  openStore,
  PackedStore,
  peekStore,
  removeFiles,
  storeFiles,
  type StoreKind,
  syncNames,
} from "../store/mod.ts";
import { discardUnused } from "./discard.ts";
import { LocalZone, readOwner } from "./local_state.ts";
import { type CreateOptions, Volume, type VolumeOptions } from "./volume.ts";

export { exists, storeFiles, type StoreKind } from "../store/mod.ts";

/** How a new volume is made. */
export interface CreateFileOptions extends CreateOptions {
  /** `plain` by default; for `striped` the path names all members: `a.vol,b.vol,c.vol`. */
  readonly kind?: StoreKind;
}

/**
 * Makes a volume of `byteCount` bytes in new files. They are sparse: they take only what is written.
 *
 * @throws {VolcastError} `exists`, `usage` (size), `denied`, `io`. No file is left behind then.
 */
export async function createVolumeFile(
  path: string,
  byteCount: number,
  options: CreateFileOptions = {},
): Promise<Volume> {
  const capacity = divCeil(byteCount, BLOCK_SIZE);
  const zone = zoneOf(capacity);
  const kind = options.kind ?? "plain";
  const files = kind === "striped" ? path.split(",") : [path];
  const store = createStore({ kind, files }, capacity);
  try {
    // So that the first owner's note, which nobody syncs, has its place already.
    if (kind === "packed") store.write(zone.owner.start, new Uint8Array(BLOCK_SIZE));
    const volume = await Volume.create(store, options);
    syncNames(files);
    return volume;
  } catch (error) {
    store.close();
    removeFiles(files);
    throw error;
  }
}

/**
 * Opens the volume behind a path and takes its locks. Where the host lets nobody write it, it can be read:
 * whatever would change it is refused, and says why.
 *
 * @param path A file, a block device, one member of a stripe, or all of them: `a.vol,b.vol,c.vol`.
 * @throws {VolcastError} `busy`, naming the owner and its URL where it has one; see also
 *   {@linkcode Volume.open}.
 */
export function openVolumeFile(path: string, options: VolumeOptions = {}): Volume {
  const store = openOwned(path, { orReadOnly: true });
  try {
    checkNoMirror(store, path);
    const volume = Volume.open(store, options);
    if (store.readOnly !== undefined) return volume;
    // Nobody reads yet, and an origin has no transfer under way: what no plane has is free.
    if (volume.role === "origin") discardUnused(volume);
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

/** The file of an incremental mirror is half of a volume. */
function checkNoMirror(store: BlockStore, path: string): void {
  if (!(store instanceof PackedStore)) return;
  const { base } = new LocalZone(store, zoneOf(store.capacity)).read();
  if (base === undefined) return;
  throw new VolcastError(
    "read-only",
    `Cannot open ${path} for this: it is an incremental mirror, which is written by its source only`,
    `Restore it first: volcast reintegrate ${base.path} ${path} -o VOLUME`,
  );
}

/** What a volume's files take. */
export interface VolumeFileInfo {
  readonly kind: StoreKind;
  readonly files: readonly string[];
  /** Sizes of the files. */
  readonly bytes: number;
  /** What they take on disk; `null` where the host does not tell. */
  readonly allocatedBytes: number | null;
}

/** Looks at the files of a volume. */
export function volumeFileInfo(path: string): VolumeFileInfo {
  const { kind, files } = storeFiles(path);
  const infos = files.map((file) => {
    const { size, blocks, isBlockDevice } = Deno.statSync(file);
    if (!isBlockDevice) return { bytes: size, allocated: blocks === null ? null : blocks * 512 };
    const device = FileStore.peek(file);
    device.close();
    return { bytes: device.capacity * BLOCK_SIZE, allocated: null };
  });
  return {
    kind,
    files,
    bytes: infos.reduce((sum, { bytes }) => sum + bytes, 0),
    allocatedBytes: infos.reduce<number | null>(
      (sum, { allocated }) => sum === null || allocated === null ? null : sum + allocated,
      0,
    ),
  };
}

/** Opens a store; when somebody has it, says who. @throws {VolcastError} See {@linkcode openStore}. */
export function openOwned(path: string, options: { orReadOnly?: boolean } = {}): BlockStore {
  try {
    return openStore(path, options);
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

/** Who has the volume open, read past the locks; undefined where that cannot be told. */
function ownerOf(path: string): ReturnType<typeof readOwner> {
  try {
    const store = peekStore(path);
    try {
      return readOwner(store, zoneOf(store.capacity));
    } finally {
      store.close();
    }
  } catch {
    return undefined;
  }
}
