/**
 * What has to be so before an image may become current.
 *
 * @module
 */

import {
  BitPlane,
  damaged,
  difference,
  equalPlanes,
  hasBit,
  paced,
  type Plane,
  VolcastError,
} from "../core/mod.ts";
import { decodeRoot, idOf, type StreamHeader } from "../format/mod.ts";
import { ContentChecker, type Volume, walkSteps } from "../volume/mod.ts";

/**
 * Whether an image can be applied to a volume, as far as its header tells.
 * @throws {VolcastError} `diverged`, naming the missing link; `nothing` when it is current already.
 */
export function checkFits(volume: Volume, header: StreamHeader): void {
  if (header.volumeId !== volume.volumeId) {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it is of volume ${header.volumeId}, this is volume ${volume.volumeId}`,
      "Apply it to a copy of its own volume, or to a path that does not exist yet",
    );
  }
  const { zone } = volume;
  if (header.capacity !== zone.capacity || header.dataStart !== zone.data.start) {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it is of a volume of ${header.capacity} blocks, this one has ${zone.capacity}`,
    );
  }
  const top = idOf(header.top);
  const base = header.base === undefined ? undefined : idOf(header.base);
  if (!volume.hasRoot) {
    if (base === undefined) return;
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it is the increment since '${
        header.base!.name
      }' (${base}), and there is no volume yet`,
      "Apply a full image first",
    );
  }
  if (volume.role === "origin") {
    throw new VolcastError(
      "diverged",
      "Cannot apply the image: the volume is an origin and has changes of its own",
      "Apply it to a replica, or to a path that does not exist yet",
    );
  }
  const { current } = volume;
  if (top === current.id) {
    throw new VolcastError("nothing", `The volume is at '${current.name}' (${top}) already`);
  }
  if (base !== current.id) {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: its base is '${
        header.base?.name ?? "none"
      }' (${base}), the volume is at '${current.name}' (${current.id})`,
      `Apply the image that leads from '${current.name}' to '${header.base?.name}' first`,
    );
  }
}

/**
 * Whether everything that the new root reaches is here: invariant 2 of applying (I6).
 * @throws {VolcastError} `damaged`, naming what is missing or wrong.
 */
export async function verifyReceived(
  volume: Volume,
  header: StreamHeader,
  received: Plane,
): Promise<void> {
  const { io } = volume;
  // The superblock will repeat what the header says, and a root that contradicts it cannot be opened.
  const root = decodeRoot(io.read(header.top.root));
  if (root.volumeId !== header.volumeId || root.cp !== header.top.cp) {
    throw damaged(
      `Cannot apply the image: its header says volume ${header.volumeId} and CP ${header.top.cp}, its ` +
        `root ${root.volumeId} and ${root.cp}`,
    );
  }
  const base = volume.hasRoot ? volume.plane(volume.current) : undefined;
  const seen = new BitPlane(received.pageCount);
  let failure: unknown;
  const content = new ContentChecker(io, (_, error) => failure ??= error);
  const steps = walkSteps(io, header.top.root, (pointer, use) => {
    if (!hasBit(received, pointer.vbn)) {
      // Not sent: then the base has it, and nothing below it was sent either.
      if (base !== undefined && hasBit(base, pointer.vbn)) return false;
      throw damaged(
        `Cannot apply the image: VBN ${pointer.vbn} is in use and neither in the image nor in its base`,
      );
    }
    // No root uses a block twice; a forged one that does could make this walk endless.
    if (seen.has(pointer.vbn)) {
      throw damaged(`Cannot apply the image: VBN ${pointer.vbn} is used twice`);
    }
    seen.set(pointer.vbn);
    if (use === "content") content.add(pointer);
    return true;
  });
  // Readers are served meanwhile.
  await paced(steps);
  content.flush();
  if (failure !== undefined) throw failure;
  const top = volume.plane({ id: idOf(header.top), root: header.top.root });
  const expected = base === undefined ? top : difference(top, base);
  if (!equalPlanes(received, expected) || !equalPlanes(received, seen)) {
    throw damaged(
      "Cannot apply the image: the blocks in it are not those that its top has and its base has not",
    );
  }
}
