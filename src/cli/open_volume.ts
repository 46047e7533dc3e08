/**
 * Opening the volume behind a path, whatever it is: also an incremental mirror, over its base.
 *
 * A mirror knows where its base was. Where the base is elsewhere now the user says so: `MIRROR+BASE`.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import {
  exists,
  openMirrorFile,
  openVolumeFile,
  peekMirrorFile,
  type Volume,
  type VolumeOptions,
} from "../volume/mod.ts";
import { openBase } from "./base_image.ts";

/** An incremental mirror as a user names it. */
export interface MirrorPath {
  readonly mirror: string;
  /** Where the base is. */
  readonly base: string;
  /** Whether that is as the command takes it from its user, who names it in no other way. */
  readonly isNamed?: boolean;
}

/** The mirror that a path means, `undefined` where it is another kind of path. */
export function mirrorPathOf(path: string): MirrorPath | undefined {
  const plus = exists(path) ? -1 : path.lastIndexOf("+");
  const mirror = plus < 0 ? path : path.slice(0, plus);
  if (!exists(mirror)) return undefined;
  const found = peekMirrorFile(mirror);
  if (found === undefined) return undefined;
  return { mirror, base: plus < 0 ? found.base.path : path.slice(plus + 1) };
}

/**
 * Opens a volume; an incremental mirror over its base, and only for reading.
 * @throws {VolcastError} As `openVolumeFile`; `not-found` when a base is not where it was, `diverged`
 *   when it is another one.
 */
export async function openVolume(path: string, options: VolumeOptions = {}): Promise<Volume> {
  const found = mirrorPathOf(path);
  if (found === undefined) return openVolumeFile(path, options);
  return await openMirror(found, {
    ...options,
    readOnlyBecause:
      `${found.mirror} is an incremental mirror, which is written by its source only`,
  });
}

/** Opens an incremental mirror over its base. @throws {VolcastError} See {@linkcode openVolume}. */
export async function openMirror(
  { mirror, base: path, isNamed = false }: MirrorPath,
  options: VolumeOptions = {},
): Promise<Volume> {
  const base = await openBase(path).catch((error) => {
    if (!(error instanceof VolcastError) || error.kind !== "not-found") throw error;
    throw new VolcastError(
      "not-found",
      `Cannot open ${mirror}: its base is not at ${path}`,
      isNamed
        ? `It was made over ${
          peekMirrorFile(mirror)?.base.path
        }: say where that is now, or put it back`
        : `Put it back, or say where it is now: ${mirror}+PATH`,
    );
  });
  try {
    return openMirrorFile(mirror, base, options);
  } catch (error) {
    base.store.close();
    throw error;
  }
}
