/**
 * Where commands write large results to: a file of this host, a device, a file in a volume
 * (`b.vol:/backups/x.img`), or standard output. A name never means half of a result.
 *
 * @module
 */

import { dirname } from "node:path";
import { messageOf, VolcastError } from "../core/mod.ts";
import { hostError, syncNames } from "../store/mod.ts";
import { checkPut, putFile } from "../volume/mod.ts";
import { makePart } from "./partial_file.ts";
import type { Terminal } from "./terminal.ts";
import { openVolumeOf, volumePathOf } from "./volume_path.ts";

/** How something is written. */
export interface OutputOptions {
  /** Writes over a file that is there. */
  readonly force: boolean;
  /** Makes directories that are missing. */
  readonly parents: boolean;
}

/** What is written. */
export interface Content {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly byteCount: number;
  /** Bytes that pipes and devices take with one write each; as they come by default. */
  readonly recordBytes?: number;
}

/** Refuses standard output where it is a terminal and nobody asked for that. */
export function checkNoTerminal(wasNamed: boolean): void {
  if (wasNamed || !Deno.stdout.isTerminal()) return;
  throw new VolcastError(
    "usage",
    "Cannot write the image: standard output is a terminal",
    "Name a file: -o june5.img",
  );
}

/**
 * Looks whether something can be written there, before the work for it is done.
 * @throws {VolcastError} `exists`, `usage` (a directory), `not-found` (its directory).
 */
export async function checkOutput(name: string, options: OutputOptions): Promise<void> {
  const inVolume = volumePathOf(name);
  if (name === "-") return;
  if (inVolume !== undefined) {
    const volume = openVolumeOf(inVolume);
    try {
      await volume.exclusive(({ fs }) =>
        checkPut(fs, inVolume.path, { overwrite: options.force, parents: options.parents })
      );
    } finally {
      await volume.close();
    }
    return;
  }
  const info = infoOf(name);
  if (info === undefined) return;
  if (info.isDirectory) throw new VolcastError("usage", `Cannot write ${name}: it is a directory`);
  if (info.isFile && !options.force) {
    throw new VolcastError(
      "exists",
      `Cannot write ${name}: it exists already`,
      "Choose another name, or give --force to write over it",
    );
  }
}

/**
 * Writes it; durable when this returns, but for pipes and devices.
 * @throws {VolcastError} As {@linkcode checkOutput}; `full`, `denied`, `read-only`, `io`; what the
 *   content throws.
 */
export async function writeOutput(
  name: string,
  content: Content,
  options: OutputOptions & { signal: AbortSignal; terminal: Terminal },
): Promise<void> {
  const inVolume = volumePathOf(name);
  if (name === "-") {
    for await (const chunk of recordsOf(content)) options.terminal.write(chunk);
  } else if (inVolume !== undefined) {
    const volume = openVolumeOf(inVolume);
    try {
      await putFile(volume, inVolume.path, content.chunks, {
        overwrite: options.force,
        parents: options.parents,
        byteCount: content.byteCount,
        signal: options.signal,
      });
    } finally {
      await volume.close();
    }
  } else await writeFile(name, content, options);
}

/** Chunks of one record each, where records matter. */
async function* recordsOf({ chunks, recordBytes }: Content): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    const step = recordBytes ?? chunk.length;
    for (let at = 0; at < chunk.length; at += step) yield chunk.subarray(at, at + step);
  }
}

/** Writes under another name first, so that the name never means half of it. */
async function writeFile(
  path: string,
  content: Content,
  options: OutputOptions & { signal: AbortSignal },
): Promise<void> {
  const info = infoOf(path);
  // A device or a pipe cannot be replaced by a file.
  const isSpecial = info !== undefined && !info.isFile;
  let part: string | undefined;
  try {
    if (options.parents) await Deno.mkdir(dirname(path), { recursive: true });
    const opened = isSpecial
      ? { name: undefined, file: await Deno.open(path, { write: true }) }
      : await makePart(path);
    part = opened.name;
    using file = opened.file;
    for await (const chunk of isSpecial ? recordsOf(content) : content.chunks) {
      options.signal.throwIfAborted();
      for (let at = 0; at < chunk.length;) at += await file.write(chunk.subarray(at));
    }
    if (part === undefined) return;
    await file.syncData();
    await Deno.rename(part, path);
    syncNames([path]);
  } catch (error) {
    if (part !== undefined) await Deno.remove(part).catch(() => {});
    if (error instanceof VolcastError || !isOfHost(error)) throw error;
    if (!(error instanceof Deno.errors.NotFound)) throw hostError(`Cannot write ${path}`, error);
    throw new VolcastError(
      "not-found",
      `Cannot write ${path}: its directory does not exist`,
      "Give --parents to have it made",
      { cause: error },
    );
  }
}

/** What the host knows of a path, if anything. */
export function infoOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    // If there is more to it than that nothing is there, opening it will tell.
    return undefined;
  }
}

/** Whether the host refused something. */
function isOfHost(error: unknown): boolean {
  return Object.values(Deno.errors).some((kind) => error instanceof kind) ||
    /os error/.test(messageOf(error));
}
