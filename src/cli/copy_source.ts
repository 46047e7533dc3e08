/**
 * What a copy is made from: a volume of this host, held alone meanwhile, or one that a server has.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { Image } from "../image/mod.ts";
import { ACTIVE, type Volume } from "../volume/mod.ts";
import type { CommandCredentials } from "./credentials.ts";
import { HttpTarget } from "./http_target.ts";
import { noRetry, type OpenedImage, openImage } from "./image_source.ts";
import { isUrl } from "./local_volume.ts";
import { openVolume } from "./open_volume.ts";

/** A snapshot to be copied. */
export interface CopyTop {
  readonly id: string;
  readonly name: string;
}

/** See the module. */
export interface CopySource {
  readonly name: string;
  readonly volumeId: string;
  readonly top: CopyTop;
  /** Whether an increment can begin at a snapshot. */
  has(id: string): boolean;
  /** The image of the top; with a base, the increment from it. */
  image(base?: string): Promise<OpenedImage>;
  /** Gives it back. */
  close(): Promise<void>;
}

/** How it is opened. */
interface CopySourceOptions {
  readonly at: string | undefined;
  readonly credentials: CommandCredentials;
  readonly signal: AbortSignal;
}

/**
 * Opens what is copied.
 *
 * @param options.at A snapshot, an id or a pointer; by default the newest snapshot.
 * @throws {VolcastError} `not-found`, `busy`, `io`.
 */
export async function openCopySource(
  name: string,
  options: CopySourceOptions,
): Promise<CopySource> {
  return isUrl(name) ? await openUrl(name, options) : await openPath(name, options.at);
}

async function openPath(path: string, at: string | undefined): Promise<CopySource> {
  return await copySourceOf(await openVolume(path), path, at);
}

/**
 * A copy of an open volume, which is closed with it, and when this fails.
 * @throws {VolcastError} `not-found`.
 */
export async function copySourceOf(
  volume: Volume,
  path: string,
  at?: string,
): Promise<CopySource> {
  try {
    const top = at === undefined ? volume.snapshots().at(-1) : volume.resolve(at);
    if (top === undefined) throw noSnapshot(path);
    return {
      name: path,
      volumeId: volume.volumeId,
      top,
      has: (id) => volume.find(id) !== undefined,
      image(base) {
        const image = new Image(volume, top, base === undefined ? undefined : volume.resolve(base));
        return Promise.resolve({
          header: image.header,
          open: (offset) => Promise.resolve(image.stream({ from: offset })),
          retry: (error) => noRetry(error),
          close: () => Promise.resolve(),
        });
      },
      close: () => volume.close(),
    };
  } catch (error) {
    await volume.close();
    throw error;
  }
}

async function openUrl(
  url: string,
  { at, credentials, signal }: CopySourceOptions,
): Promise<CopySource> {
  credentials.nameServers([url]);
  const server = new HttpTarget(url, { credentials });
  const [status, snapshots] = [await server.status(), await server.snapshots()];
  const { id: volumeId } = status.volume as { id: string };
  const current = status.current as CopyTop;
  const top = at === undefined
    ? snapshots.at(-1)
    : at === ACTIVE
    ? current
    : snapshots.find(({ id, name, pointers }) => id === at || name === at || pointers.includes(at));
  if (top === undefined) {
    throw at === undefined
      ? noSnapshot(url)
      : new VolcastError("not-found", `Cannot find a snapshot or pointer '${at}' at ${url}`);
  }
  return {
    name: url,
    volumeId,
    top: { id: top.id, name: top.name },
    has: (wanted) => [...snapshots, current].some(({ id }) => id === wanted),
    image: (base) =>
      openImage([`${server.name}/images/${volumeId}/${base ?? "full"}/${top.id}`], {
        signal,
        note: () => {},
        credentials,
      }),
    close: () => server.close(),
  };
}

function noSnapshot(name: string): VolcastError {
  return new VolcastError(
    "not-found",
    `Cannot copy ${name}: it has no snapshot`,
    `Take one: volcast snapshot create ${name} NAME; or copy what is there now: --at ${ACTIVE}`,
  );
}
