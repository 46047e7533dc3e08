/**
 * What commands work on: a volume in a file, which they hold alone, or one that a server has. Both
 * give the same answers.
 *
 * @module
 */

import type { ImportOptions, ImportReport, TreeEntry } from "../archive/mod.ts";
import type { DeletePlan, Plan, RangedImage } from "../image/mod.ts";
import type { SnapshotInfo } from "../http/mod.ts";
import type { FileInfo, TreeChange } from "../volume/mod.ts";
import { VolcastError } from "../core/mod.ts";
import type { CommandCredentials } from "./credentials.ts";
import { HttpTarget } from "./http_target.ts";
import { LocalTarget } from "./local_target.ts";
import { isUrl } from "./local_volume.ts";

/** A pointer as commands show it. */
export interface PointerInfo {
  readonly name: string;
  /** Id of the snapshot. */
  readonly snapshot: string;
  readonly snapshotName: string;
}

/** A snapshot that became a shadow. */
export interface ShadowInfo extends SnapshotInfo {
  /** Blocks that nobody keeps any more. */
  readonly releasedBlocks: number;
}

/** What is known of a file in a volume. Times are ns since 1970. */
export interface FileDescription extends FileInfo {
  /** From the root, beginning with `/`. */
  readonly path: string;
  /** Last name of the path; empty for the root. */
  readonly name: string;
  /** Target of a symbolic link. */
  readonly target?: string;
  /** Extended attributes in base64, where there are any. */
  readonly xattrs?: Readonly<Record<string, string>>;
}

/** Which image: by expression, or of several snapshots (`all`, or names with commas between). */
export type ImageRequest = { readonly select: string } | { readonly snapshots: string };

/** An image that is being read. */
export interface ImageBytes {
  readonly stream: ReadableStream<Uint8Array>;
  readonly byteCount: number;
}

/** How a tree is published. */
export interface PublishOptions {
  /** Name of the snapshot. */
  readonly as: string;
  /** Pointer that is moved to it; `master` by default. */
  readonly pointer?: string;
  /** Compares content even where size and mtime are equal. */
  readonly checksum?: boolean;
  /** See {@linkcode ImportOptions}. */
  readonly progress?: ImportOptions["progress"];
}

/** Entries on their way in, at once or as they come. */
export type Entries = AsyncIterable<TreeEntry> | Iterable<TreeEntry>;

/** See the module. Every call throws {@linkcode VolcastError}. */
export interface Target extends AsyncDisposable {
  /** As the user gave it. */
  readonly name: string;
  /** Brings a tree in, durable when this returns. */
  importTree(entries: Entries, options?: ImportOptions): Promise<ImportReport>;
  /** Makes the file system be this tree, takes a snapshot of it and moves a pointer to it. */
  publish(
    entries: Entries,
    options: PublishOptions,
  ): Promise<{ report: ImportReport; snapshot: SnapshotInfo }>;
  /** A tree on its way out. @param ref `undefined`: `master` if it exists, else the active one. */
  entries(ref?: string, path?: string): Entries;
  /** What there is to say about the volume and who has it. */
  status(): Promise<Record<string, unknown>>;
  /** All snapshots and shadows, oldest first. */
  snapshots(): Promise<SnapshotInfo[]>;
  /** Takes a snapshot; pointers are moved to it in the same consistency point. */
  createSnapshot(name: string, options?: { pointers?: string[] }): Promise<SnapshotInfo>;
  /** Makes a shadow of a snapshot. @throws {VolcastError} `held` while a pointer names it. */
  shadowSnapshot(ref: string): Promise<ShadowInfo>;
  /** Deletes a snapshot or a shadow. @throws {VolcastError} `held`. */
  deleteSnapshot(ref: string): Promise<void>;
  /** All pointers. */
  pointers(): Promise<PointerInfo[]>;
  /** Moves or makes a pointer. */
  setPointer(name: string, ref: string): Promise<PointerInfo>;
  /** Counts what an expression selects. */
  plan(select: string): Promise<Plan>;
  /** Counts what deleting snapshots together would free. */
  planDelete(refs: readonly string[]): Promise<DeletePlan>;
  /** What is known of a file; a symbolic link at the end is not followed. */
  stat(path: string, ref?: string): Promise<FileDescription>;
  /** What is in a directory, in order of names; the file itself where it is none. */
  list(path: string, ref?: string): AsyncIterable<FileDescription>;
  /** The content of a file. */
  read(path: string, ref?: string): Promise<ReadableStream<Uint8Array>>;
  /** The paths that differ between two snapshots. */
  diff(from: string, to: string): AsyncIterable<TreeChange>;
  /** Makes a replica the origin. @returns As {@linkcode status}. */
  promote(): Promise<Record<string, unknown>>;
  /** An image as a stream. */
  image(wanted: ImageRequest): Promise<ImageBytes>;
  /** An image whose bytes are asked for in parts. @param signal Ends waiting for a server. */
  rangedImage(wanted: ImageRequest, signal: AbortSignal): Promise<RangedImage>;
  /** Gives the volume back. */
  close(): Promise<void>;
}

/**
 * Opens a VOLUME argument.
 *
 * @param options.token Bearer token, for a server.
 * @param options.credentials What to show a server, and whom to believe to be it.
 * @param options.localWrites Whether a replica in a file may be changed.
 * @throws {VolcastError} `not-found`, `busy` (naming who has it and its URL), `damaged`.
 */
export async function openTarget(
  volume: string,
  options: { token?: string; credentials?: CommandCredentials; localWrites?: boolean } = {},
): Promise<Target> {
  const { localWrites = false } = options;
  if (!isUrl(volume)) return await LocalTarget.open(volume, { localWrites });
  options.credentials?.nameServers([volume]);
  if (!localWrites) return new HttpTarget(volume, options);
  throw new VolcastError(
    "usage",
    `Cannot use --local-writes with ${volume}: its server decides that`,
    "Start the server with: volcast serve --local-writes",
  );
}
