/**
 * `volcast apply`: puts an image into a replica.
 *
 * @module
 */

import { z } from "zod";
import { shortList, VolcastError } from "../../core/mod.ts";
import { BLOCK_SIZE, idOf, zoneOf } from "../../format/mod.ts";
import { type Applied, applyImage, type ApplyOptions, checkRestorable } from "../../image/mod.ts";
import { describeFlush } from "../../replication/mod.ts";
import {
  adoptIncoming,
  exists,
  openIncoming,
  openVolumeFile,
  removeIncoming,
  type Volume,
} from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { type OpenedImage, openImage } from "../image_source.ts";
import { interruptible } from "../interrupt.ts";
import { requirePath } from "../local_volume.ts";
import type { Terminal } from "../terminal.ts";
import { counted } from "../text.ts";
import { showBytes, showExactBytes } from "../units.ts";
import { checkOtherVolume } from "../volume_path.ts";

type Result =
  | { readonly kind: "current"; readonly snapshot: string; readonly name: string }
  | ({ readonly kind: "full" | "increment" } & Applied);

/** See the module. */
export const applyCommand = defineRemoteCommand({
  name: ["apply"],
  summary: "put an image into a replica",
  usage: "VOLUME IMAGE...",
  positionals: [2, Infinity],
  details:
    `IMAGE is a file, a file in another volume (b.vol:/june5.img), the URL of an image, or - for
standard input. Or it is several pieces of one image, of any kind and in any order: segments that
'volcast tape write' or 'volcast image --split-size' made, image files that are cut off, URLs. Where
two have the same bytes and those of one are damaged, the other's are taken.

A full image makes VOLUME, which must not exist yet; with --replace it takes the place of a replica
when it has come in whole. An increment needs a replica that is at the increment's base. An image of
several snapshots brings them all; images that follow each other are applied in their order.

Everything in the image is checked before it counts: when it is damaged or cut off, VOLUME is as it
was. When VOLUME is at the image's snapshot already, the exit code is 3.`,
  examples: [
    "volcast apply copy.vol june5.img",
    "volcast apply copy.vol http://127.0.0.1:8080/replicate",
    "volcast image site.vol june5 | volcast apply copy.vol -",
    "volcast apply copy.vol /disk2/june5.002 /disk1/june5.001 http://127.0.0.1:9000/june5.003",
    "volcast apply copy.vol backup.vol:/2026/june5.img",
  ],
  options: {
    replace: { help: "a full image may take the place of the replica that is there" },
    json: { help: "say what was done as JSON" },
  },
  schema: z.object({ replace: z.boolean().optional(), json: z.boolean().optional() }),
  run([path, ...from], options, terminal): Promise<number> {
    return applyPieces(path, from, options, terminal);
  },
});

/** Puts the image that pieces make together into a volume, and says what was done. */
export async function applyPieces(
  path: string,
  from: readonly string[],
  options: WithCredentials & {
    readonly replace?: boolean | undefined;
    readonly json?: boolean | undefined;
  },
  terminal: Terminal,
): Promise<number> {
  requirePath(path, {
    action: "apply an image to",
    reason: "a server takes images from its parent only",
    hint: "Run it on the replica's host while the server is stopped, or: volcast pull",
  });
  checkOtherVolume(path, from);
  const progress = terminal.progress("Applying");
  const result = await interruptible(async (signal) => {
    const { credentials } = options;
    const note = (text: string) => terminal.note(text);
    const image = await openImage(from, { signal, note, credentials });
    try {
      return await apply(path, image, {
        replace: options.replace ?? false,
        signal,
        progress: (done, total) => progress.update(done, total),
        flushed: (flushed) => terminal.note(describeFlush(flushed)),
      });
    } finally {
      progress.end();
      await image.close();
    }
  });
  if (options.json) terminal.printJson(result);
  else terminal.print(textOf(path, result));
  return result.kind === "current" ? EXIT_CODES.nothing : EXIT_CODES.done;
}

type Options = ApplyOptions & { readonly replace: boolean };

async function apply(path: string, image: OpenedImage, options: Options): Promise<Result> {
  const { header } = image;
  // The file is made by what a stranger's header says: the bounds first.
  zoneOf(header.capacity);
  checkRestorable(header);
  if (!exists(path)) {
    if (header.base !== undefined) {
      throw new VolcastError(
        "diverged",
        `Cannot apply the image: it is the increment since '${header.base.name}', and ${path} does not exist`,
        "Apply a full image first",
      );
    }
    return { kind: "full", ...await applyFull(path, image, options) };
  }
  const volume = openVolumeFile(path);
  try {
    volume.noteOwner(undefined);
    const { current } = volume;
    if (volume.volumeId === header.volumeId && current.id === idOf(header.top)) {
      return { kind: "current", snapshot: current.id, name: current.name };
    }
    if (header.base !== undefined) {
      return { kind: "increment", ...await applyImage(volume, image, options) };
    }
    checkReplaceable(volume, path, options);
    return { kind: "full", ...await applyFull(path, image, options, volume) };
  } finally {
    await volume.close();
  }
}

function checkReplaceable(volume: Volume, path: string, options: Options): void {
  if (volume.role === "origin") {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: ${path} is an origin and has changes of its own`,
      "Apply it to a replica, or to a path that does not exist yet",
    );
  }
  if (options.replace) return;
  throw new VolcastError(
    "exists",
    `Cannot apply the image: it is a full one, and ${path} is at '${volume.current.name}'`,
    "Apply an increment, or give --replace to put the image in its place",
  );
}

/**
 * A full image comes into a file of its own, which gets the name when it is complete.
 *
 * @param options.packed Whether the file is packed, whatever the old one is.
 * @param old The volume that has the name now.
 */
export async function applyFull(
  path: string,
  image: Pick<OpenedImage, "header" | "open" | "retry">,
  options: ApplyOptions & { readonly packed?: boolean },
  old?: Volume,
): Promise<Applied> {
  const { header } = image;
  const top = idOf(header.top);
  const packed = options.packed ?? false;
  const incoming = openIncoming(path, { ...header, top }, { packed });
  let isKept = false;
  try {
    const applied = incoming.hasRoot
      ? {
        top,
        name: incoming.current.name,
        blocks: header.blockCount,
        bytes: 0,
        byteCount: header.byteCount,
        dropped: [],
      }
      : await applyImage(incoming, image, options);
    isKept = true;
    if (old !== undefined && old.volumeId === header.volumeId) {
      // The sites below stay known; what they stand on is told by them again.
      const { sites } = old.local;
      await incoming.updateLocal((state) => {
        state.sites = structuredClone(sites);
      });
    }
    adoptIncoming(path);
    return applied;
  } finally {
    // What has arrived is gone on with the next time; without it the file is nothing but in the way.
    isKept ||= incoming.local.transfer !== undefined;
    await incoming.close();
    if (!isKept) removeIncoming(path);
  }
}

function textOf(path: string, result: Result): string {
  if (result.kind === "current") {
    return `${path} is at '${result.name}' (${result.snapshot}) already`;
  }
  return appliedText(path, result.kind === "full" ? "full image" : "increment", result);
}

/** Says what came into a volume. @param what What it is called: `full image`. */
export function appliedText(path: string, what: string, applied: Applied): string {
  const { top, name, blocks, bytes, dropped, along } = applied;
  const others = along === undefined ? "" : `; with ${shortList(along)}`;
  const gone = dropped.length === 0 ? "" : `; dropped ${dropped.join(", ")}`;
  const size = showBytes(blocks * BLOCK_SIZE);
  return `${path} is at '${name}' (${top}): ${what} of ${counted(blocks, "block")} (${size}), ${
    showExactBytes(bytes)
  } read${others}${gone}`;
}
