/**
 * Files inside volumes as a user names them: `b.vol:/backups/x.img`.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { openVolumeFile, type Volume } from "../volume/mod.ts";
import { isUrl } from "./local_volume.ts";

/** A file of a volume. */
export interface VolumePath {
  /** The volume's path on this host. */
  readonly volume: string;
  /** From the volume's root. */
  readonly path: string;
}

/** The volume and the file in it that a text means; `undefined` where it is another kind of name. */
export function volumePathOf(text: string): VolumePath | undefined {
  if (isUrl(text)) return undefined;
  const colon = text.indexOf(":/");
  if (colon <= 0) return undefined;
  const volume = text.slice(0, colon);
  // A directory of this host may end with a colon.
  return isDirectory(`${volume}:`) ? undefined : { volume, path: text.slice(colon + 1) };
}

/**
 * Opens the volume that a file is in.
 * @throws {VolcastError} As {@linkcode openVolumeFile}; the way there through a server, if one has it.
 */
export function openVolumeOf({ volume, path }: VolumePath): Volume {
  try {
    return openVolumeFile(volume);
  } catch (error) {
    const url = error instanceof VolcastError && error.kind === "busy"
      ? /serves it at (http\S+)/.exec(error.message)?.[1]
      : undefined;
    if (url === undefined) throw error;
    throw new VolcastError(
      "busy",
      (error as VolcastError).message,
      `Stop the server first; only to read, use ${url}/files${encodeURI(path)}?at=active`,
    );
  }
}

/**
 * Refuses files in the very volume that is worked on.
 * @throws {VolcastError} `usage`.
 */
export function checkOtherVolume(volume: string, names: readonly string[]): void {
  for (const name of names) {
    const inVolume = volumePathOf(name);
    if (inVolume === undefined || !isSameFile(inVolume.volume, volume)) continue;
    throw new VolcastError(
      "usage",
      `Cannot use ${name}: ${inVolume.volume} is the volume that the image is of or for`,
      "Use a file in another volume, or of this host",
    );
  }
}

function isSameFile(a: string, b: string): boolean {
  if (isUrl(b)) return false;
  try {
    return Deno.realPathSync(a) === Deno.realPathSync(b);
  } catch {
    return false;
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
