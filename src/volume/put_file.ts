/**
 * Writing one large file into a volume so that its name never means half of it.
 *
 * Invariants:
 * 1. Content goes to a hidden name beside the one asked for; the file takes its name in one
 *    consistency point, when all of it is there, in the place of what had it.
 * 2. Consistency points are made as it grows: neither memory nor what a crash undoes grows with it. A
 *    crash leaves the hidden file, which the next attempt at the same name replaces.
 * 3. After an error the hidden file is gone, and that is durable.
 *
 * @module
 */

import { divCeil, inChunks, Pace, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checkFileName } from "../format/mod.ts";
import { checkPath } from "./file_system.ts";
import type { LiveFileSystem } from "./live_file_system.ts";
import { FULL_HINT } from "./space.ts";
import type { Volume } from "./volume.ts";
import type { Writer } from "./writer.ts";

/** Bytes gathered before they are written; whole blocks, so that none is written twice. */
const CHUNK_BYTES = 1024 * 1024;
/** Characters of a name that its hidden name repeats, so that it is not too long. */
const NAME_CHARS = 60;

/** How a file is put. */
export interface PutOptions {
  /** Takes the place of a file that is there. */
  readonly overwrite?: boolean;
  /** Makes directories that are missing. */
  readonly parents?: boolean;
  /** Bytes that will come, where that is known: what cannot fit is refused before anything is written. */
  readonly byteCount?: number;
  /** Ends it between two chunks. */
  readonly signal?: AbortSignal;
}

/**
 * Whether a file could be put there, as far as that can be told before.
 *
 * @throws {VolcastError} `not-found` (its directory), `exists`, `usage` (a directory, the name).
 */
export function checkPut(
  fs: Pick<LiveFileSystem, "resolve" | "stat" | "directory">,
  path: string,
  options: PutOptions = {},
): void {
  checkPath(path);
  const { parent, name } = split(path);
  checkFileName(name);
  const ino = find(fs, parent);
  if (ino === undefined) {
    if (options.parents) return;
    throw new VolcastError(
      "not-found",
      `Cannot write ${path}: its directory does not exist`,
      "Give --parents to have it made",
    );
  }
  const type = fs.stat(ino).type;
  if (type !== "directory") {
    throw new VolcastError("usage", `Cannot write ${path}: ${parent} is a ${type}`);
  }
  const present = fs.directory(ino).find(name);
  if (present === undefined) return;
  if (present.type === "directory") {
    throw new VolcastError("usage", `Cannot write ${path}: it is a directory`);
  }
  if (!options.overwrite) {
    throw new VolcastError(
      "exists",
      `Cannot write ${path}: it exists already`,
      "Choose another name, or give --force to write over it",
    );
  }
}

/**
 * Writes a file; durable, and there under its name, when this returns.
 *
 * @param path From the volume's root.
 * @throws {VolcastError} As {@linkcode checkPut}; `full`; `read-only` at a replica; what `chunks` throws.
 */
export function putFile(
  volume: Volume,
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  options: PutOptions = {},
): Promise<void> {
  return volume.exclusive(async (writer) => {
    const { fs } = writer;
    checkPut(fs, path, options);
    checkRoom(writer, path, options.byteCount ?? 0);
    const { parent, name } = split(path);
    const directory = makeDirectories(fs, parent);
    const hidden = hiddenName(name);
    if (fs.directory(directory).find(hidden) !== undefined) fs.removeTree(directory, hidden);
    const ino = fs.create(directory, hidden, { type: "file" });
    try {
      let offset = 0;
      const pace = new Pace(volume.options.clock);
      for await (const chunk of inChunks(chunks, CHUNK_BYTES)) {
        // Content that is at hand comes without a turn of the event loop, and so without signals.
        if (pace.isDue) await pace.turn();
        options.signal?.throwIfAborted();
        fs.write(ino, offset, chunk);
        offset += chunk.length;
        await writer.checkpointIfDue();
      }
      fs.rename({ parent: directory, name: hidden }, { parent: directory, name });
    } catch (error) {
      await undo(volume, writer, () => fs.remove(directory, hidden));
      throw error;
    }
    await writer.checkpoint();
  });
}

/** Takes the hidden file away; the error that led here is the one to be told. */
async function undo(volume: Volume, writer: Writer, remove: () => void): Promise<void> {
  if (volume.poisoned !== undefined) return;
  try {
    remove();
    await writer.checkpoint();
  } catch {
    // The next attempt at the same name takes it away.
  }
}

function find(fs: Pick<LiveFileSystem, "resolve">, path: string): number | undefined {
  try {
    return fs.resolve(path);
  } catch (error) {
    if (error instanceof VolcastError && error.kind === "not-found") return undefined;
    throw error;
  }
}

function checkRoom({ space }: Writer, path: string, byteCount: number): void {
  const count = divCeil(byteCount, BLOCK_SIZE);
  if (space.has(count)) return;
  throw new VolcastError(
    "full",
    `Cannot write ${path}: it needs ${count} blocks, and ` +
      `${Math.max(0, space.freeCount - space.reserve)} are free for data`,
    FULL_HINT,
  );
}

function makeDirectories(fs: LiveFileSystem, path: string): number {
  let walked = "/";
  let ino = fs.resolve(walked);
  for (const name of path.split("/").filter((part) => part !== "" && part !== ".")) {
    walked += `${name}/`;
    const present = fs.directory(ino).find(name);
    ino = present === undefined
      ? fs.create(ino, name, { type: "directory", permissions: 0o755 })
      : fs.resolve(walked);
    const { type } = fs.stat(ino);
    if (type === "directory") continue;
    throw new VolcastError("usage", `Cannot make ${walked}: there is a ${type} of this name`);
  }
  return ino;
}

function split(path: string): { parent: string; name: string } {
  const names = path.split("/").filter((part) => part !== "" && part !== ".");
  const name = names.pop() ?? "";
  return { parent: `/${names.join("/")}`, name };
}

function hiddenName(name: string): string {
  return `.${[...name].slice(0, NAME_CHARS).join("")}.part`;
}
