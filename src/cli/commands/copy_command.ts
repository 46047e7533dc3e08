/**
 * `volcast copy`: a disk copy, full or incremental, by image and apply.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import { idOf } from "../../format/mod.ts";
import { type Applied, applyImage, type ApplyOptions } from "../../image/mod.ts";
import {
  exists,
  isBlockDevice,
  openInPlace,
  openVolumeFile,
  storeFiles,
  type Volume,
} from "../../volume/mod.ts";
import { isOfBase } from "../base_image.ts";
import { defineRemoteCommand } from "../command.ts";
import { type CopySource, openCopySource } from "../copy_source.ts";
import { EXIT_CODES } from "../exit.ts";
import type { OpenedImage } from "../image_source.ts";
import { interruptible } from "../interrupt.ts";
import { isUrl, requirePath } from "../local_volume.ts";
import { mirrorPathOf } from "../open_volume.ts";
import { appliedText, applyFull } from "./apply_command.ts";

const SCHEMA = z.object({
  at: z.string().optional(),
  packed: z.boolean().optional(),
  overwrite: z.boolean().optional(),
  json: z.boolean().optional(),
});

/** What a copy did. */
export type CopyResult =
  | { readonly kind: "current"; readonly snapshot: string; readonly name: string }
  | ({ readonly kind: "full" | "increment" } & Applied);

/** See the module. */
export const copyCommand = defineRemoteCommand({
  name: ["copy"],
  summary: "copy a volume to another file or disk, all of it or what is new",
  usage: "SOURCE TARGET",
  positionals: [2, 2],
  details: `SOURCE is a volume or the URL of a server. TARGET is a path, a block device, or the
members of a stripe (a.vol,b.vol,c.vol). A new TARGET gets a full copy: blocks lie where they lie in
SOURCE, in a sparse file of the same size or a device at least as large; with --packed they lie one
behind the other, in a file or on a device of any size that they fit into.

A TARGET that has a copy already gets what is new since the newest snapshot that both have. Exit code
3 says that nothing is. Where there is no such snapshot, or something else is there, --overwrite puts
a full copy in its place: for files when it is complete; a device is written in place, and is no
volume until the copy is complete. A copy that was interrupted is gone on with.

A copy is a replica of SOURCE: it can be read, served, checked and copied from. To restore, copy the
other way round, to a new path or with --overwrite.`,
  examples: [
    "volcast copy site.vol /backup/site.vol",
    "volcast copy http://127.0.0.1:8080 /dev/sdb --packed --overwrite",
    "volcast copy /backup/site.vol site.vol --overwrite",
  ],
  options: {
    at: { value: "REF", help: "snapshot or pointer to copy; the newest snapshot by default" },
    packed: { help: "take only the room of what is in the volume" },
    overwrite: { help: "write a full copy over what TARGET is now" },
    json: { help: "say what was done as JSON" },
  },
  schema: SCHEMA,
  async run([from, to], options, terminal): Promise<number> {
    requirePath(to, {
      action: "copy to",
      reason: "a server takes images from its parent only",
      hint: "Run it on the target's host, with the URL as the source",
    });
    checkPaths(from, to, { packed: options.packed ?? false });
    const progress = terminal.progress("Copying");
    const result = await interruptible(async (signal) => {
      const { at, credentials } = options;
      const source = await openCopySource(from, { at, credentials, signal });
      try {
        return await copyVolume(source, to, {
          packed: options.packed ?? false,
          overwrite: options.overwrite ?? false,
          signal,
          progress: (done, total) => progress.update(done, total),
        });
      } finally {
        progress.end();
        await source.close();
      }
    });
    if (options.json) terminal.printJson({ source: from, target: to, ...result });
    else terminal.print(copiedText(to, result));
    return result.kind === "current" ? EXIT_CODES.nothing : EXIT_CODES.done;
  },
});

/** How a copy is made. */
export type CopyOptions = ApplyOptions & { readonly packed: boolean; readonly overwrite: boolean };

/**
 * Brings a target up to a source's top, by an increment where it has a base, else by a full copy.
 * @throws {VolcastError} `exists`, `diverged`, `full`, `io`; the target is as it was then.
 */
export async function copyVolume(
  source: CopySource,
  target: string,
  options: CopyOptions,
): Promise<CopyResult> {
  const { top } = source;
  const { volume, problem }: Present = exists(target) ? openPresent(target) : {};
  try {
    const reason = problem ?? (volume && whyFull(source, volume, target, options));
    if (volume !== undefined && reason === undefined) {
      if (volume.current.id === top.id) {
        return { kind: "current", snapshot: top.id, name: top.name };
      }
      const increment = await withImage(
        await source.image(volume.current.id),
        (image) => applyImage(volume, image, options),
      );
      return { kind: "increment", ...increment };
    }
    // Of a device that is empty, or has half of this copy, nothing would be lost.
    const isEmpty = isBlockDevice(target) && volume === undefined;
    if (reason !== undefined && !options.overwrite && !isEmpty) throw reason;
    const full = await withImage(await source.image(), (image) => {
      if (!isBlockDevice(target)) return applyFull(target, image, options, volume);
      return copyInPlace(target, image, options, volume);
    });
    return { kind: "full", ...full };
  } finally {
    await volume?.close();
  }
}

/** What a target is now: a volume, something else, or nothing. */
interface Present {
  readonly volume?: Volume;
  /** Why there is no volume, though something is there. */
  readonly problem?: VolcastError;
}

/** @throws {VolcastError} `busy`, `denied`, `io`. */
function openPresent(path: string): Present {
  try {
    return { volume: openVolumeFile(path) };
  } catch (error) {
    const isOther = error instanceof VolcastError &&
      ["damaged", "unsupported", "not-found"].includes(error.kind);
    if (!isOther) throw error;
    return { problem: refusal("exists", path, `something else is there (${messageOf(error)})`) };
  }
}

/** Why an increment cannot bring a volume to the source's top; `undefined` when it can. */
function whyFull(
  source: CopySource,
  volume: Volume,
  path: string,
  { packed }: CopyOptions,
): VolcastError | undefined {
  const { volumeId, current } = volume;
  if (volumeId !== source.volumeId) {
    return refusal("exists", path, `it is volume ${volumeId}, the source is ${source.volumeId}`);
  }
  if (packed && storeFiles(path).kind !== "packed") {
    return refusal("exists", path, "it has a copy that is not packed");
  }
  if (current.id === source.top.id) return undefined;
  if (volume.role === "origin") {
    return refusal("diverged", path, "it is an origin and has changes of its own");
  }
  if (!source.has(current.id)) {
    return refusal(
      "diverged",
      path,
      `it is at '${current.name}' (${current.id}), which ${source.name} does not have`,
    );
  }
  return undefined;
}

function refusal(kind: "exists" | "diverged", path: string, reason: string): VolcastError {
  return new VolcastError(
    kind,
    `Cannot copy to ${path}: ${reason}`,
    "Choose another target, or give --overwrite to put a full copy in its place: what is only there is lost",
  );
}

/** A full image onto a device, over whatever is there. */
async function copyInPlace(
  path: string,
  image: OpenedImage,
  options: CopyOptions,
  old: Volume | undefined,
): Promise<Applied> {
  await old?.close();
  const { header } = image;
  const volume = await openInPlace(path, { ...header, top: idOf(header.top) }, {
    packed: options.packed || storeFiles(path).kind === "packed",
    overwrite: options.overwrite,
    blockCount: header.blockCount,
  });
  try {
    return await applyImage(volume, image, options);
  } finally {
    await volume.close();
  }
}

async function withImage<T>(
  image: OpenedImage,
  work: (image: OpenedImage) => Promise<T>,
): Promise<T> {
  try {
    return await work(image);
  } finally {
    await image.close();
  }
}

/**
 * Refuses a target that cannot be one.
 * @param options.base Where the base of an incremental mirror is; where that says by default.
 * @throws {VolcastError} `usage`.
 */
export function checkPaths(
  from: string,
  to: string,
  options: { readonly packed: boolean; readonly base?: string },
): void {
  const misuse = (reason: string, hint: string): never => {
    throw new VolcastError("usage", `Cannot copy to ${to}: ${reason}`, hint);
  };
  const mirror = isUrl(from) ? undefined : mirrorPathOf(from);
  const base = options.base ?? mirror?.base;
  // Before anything looks at it: it may be no volume.
  if (base !== undefined && to.split(",").concat(to).some((file) => isOfBase(file, base))) {
    misuse(
      `it is the base of ${mirror?.mirror ?? from}, or in its directory`,
      "Choose another path",
    );
  }
  const target = storeFiles(to);
  if (options.packed && target.kind === "striped") {
    misuse("a striped volume cannot be packed", "Leave --packed out, or choose one file");
  }
  if (isUrl(from)) return;
  const sources = storeFiles(from).files.map(realPath);
  if (target.files.some((file) => sources.includes(realPath(file)))) {
    misuse("it is the source", "Choose another path");
  }
}

function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    // It is not there yet.
    return path;
  }
}

/** What a copy did, in a sentence. */
export function copiedText(path: string, result: CopyResult): string {
  if (result.kind === "current") {
    return `Nothing new: ${path} is at '${result.name}' (${result.snapshot})`;
  }
  return appliedText(path, result.kind === "full" ? "full copy" : "increment", result);
}
