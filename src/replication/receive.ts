/**
 * An image comes into a node, whoever brought it: a parent that was asked, or a source that pushes.
 *
 * Invariants:
 * 1. An increment goes into the node's volume, whose current root is served until the flip.
 * 2. A full image goes into a file of its own, which takes the volume's place when it is complete and
 *    not before; readers of the old one are let end, for a while. One that is half there goes when an
 *    increment has come in: it would take its room for ever.
 *
 * @module
 */

import { pause } from "../core/mod.ts";
import { type Applied, applyImage, type ApplyOptions, type ImageSource } from "../image/mod.ts";
import {
  localChanges,
  type LocalState,
  noteMoved,
  retractedBy,
  type Volume,
  type VolumeOptions,
} from "../volume/mod.ts";
import type { Node } from "./node.ts";

/** Least time between two events that tell how far an image is, ms: every site below hears each of them. */
const TELL_MS = 250;

/** What is known of an image before it comes. */
export interface IncomingImage {
  readonly volumeId: string;
  /** Blocks of the volume. */
  readonly capacity: number;
  /** Id of the top. */
  readonly top: string;
  /** Id of the base, absent for a full image. */
  readonly base?: string;
  /** Exact bytes of the stream. */
  readonly byteCount: number;
  readonly blockCount: number;
  /** When the pointer that is followed was moved to the top, where that is known. */
  readonly moved?: { readonly epoch: number; readonly cp: number };
}

/** Settings of {@linkcode receiveImage}. */
export interface ReceiveOptions extends Pick<ApplyOptions, "accept" | "authenticate"> {
  readonly volumeOptions?: VolumeOptions;
  /** Longest wait for readers of what must go, ms; 10,000 by default. */
  readonly drainMs?: number;
  /** Ends the transfer between two frames. */
  readonly signal?: AbortSignal;
  /** Called with bytes that came, or were here, and bytes in all. */
  readonly progress?: (done: number, total: number) => void;
  /** Looks at a volume that is complete, before it takes the place of another; throws to refuse it. */
  readonly check?: (volume: Volume) => void;
  /** Called for a volume that took the place of another. */
  readonly opened?: (volume: Volume) => void;
}

/**
 * Takes an image into a node and makes it current; told as events, and in `node.transfer` meanwhile.
 * @throws {VolcastError} As `applyImage`; the node is as it was then.
 */
export async function receiveImage(
  node: Node,
  image: IncomingImage,
  source: ImageSource,
  options: ReceiveOptions,
): Promise<Applied> {
  const { signal, drainMs = 10_000, accept, authenticate } = options;
  const { top } = image;
  let toldAt = -Infinity;
  const applyOptions: ApplyOptions = {
    drainMs,
    isOverLine: true,
    ...(signal === undefined ? {} : { signal }),
    ...(accept === undefined ? {} : { accept }),
    ...(authenticate === undefined ? {} : { authenticate }),
    progress: (done, total) => {
      node.transfer = { top, done, total };
      options.progress?.(done, total);
      const now = node.clock.elapsed();
      if (done < total && now - toldAt < TELL_MS) return;
      toldAt = now;
      node.events.emit({ type: "progress", top, done, total });
    },
    flushed: (flushed) => node.events.emit({ type: "flush", ...flushed }),
  };
  try {
    // Before the top is current: afterwards an older release must never be taken for a newer one.
    const { volumeIfAny: volume } = node;
    if (volume !== undefined && image.moved !== undefined) {
      await volume.updateLocal((state) => keepMoved(state, image, volume));
    }
    const applied = image.base === undefined
      ? await receiveFull(node, image, source, { ...options, ...applyOptions, drainMs })
      : await applyImage(node.volume, source, applyOptions);
    // What a full image had come into that nobody goes on with any more.
    if (image.base !== undefined) node.home.removeIncoming();
    node.announceMaster();
    return applied;
  } finally {
    node.transfer = undefined;
  }
}

/** A full image comes into a file of its own, which takes the old one's place when complete. */
async function receiveFull(
  node: Node,
  image: IncomingImage,
  source: ImageSource,
  options: ReceiveOptions & ApplyOptions & { drainMs: number },
): Promise<Applied> {
  const incoming = node.home.openIncoming(image, options.volumeOptions);
  let applied: Applied;
  try {
    applied = incoming.hasRoot
      ? alreadyThere(image, incoming.current.name)
      : await applyImage(incoming, source, options);
    options.check?.(incoming);
    // The sites below stay known; what they stand on is told by them again.
    const { volumeIfAny: old } = node;
    const sites = old?.local.sites ?? {};
    const isSame = old?.volumeId === incoming.volumeId;
    const retracted = isSame ? retractedBy(old, incoming.current) : [];
    await incoming.updateLocal((state) => {
      state.sites = structuredClone(sites);
      state.retracted = retracted;
      keepMoved(state, image);
    });
  } catch (error) {
    await incoming.close();
    throw error;
  }
  const flushed = node.volumeIfAny === undefined ? undefined : localChanges(node.volumeIfAny);
  node.home.adoptIncoming();
  if (flushed !== undefined) options.flushed?.(flushed);
  options.opened?.(incoming);
  const old = node.replace(incoming);
  if (old !== undefined) void retire(old, options.drainMs);
  return applied;
}

function keepMoved(state: LocalState, { top, moved }: IncomingImage, volume?: Volume): void {
  if (moved !== undefined) noteMoved(state, { snapshot: top, ...moved }, volume?.current.id);
}

function alreadyThere(image: IncomingImage, name: string): Applied {
  return {
    top: image.top,
    name,
    blocks: image.blockCount,
    bytes: 0,
    byteCount: image.byteCount,
    dropped: [],
  };
}

/** Lets readers of a replaced volume end, for a while. */
async function retire(volume: Volume, drainMs: number): Promise<void> {
  const { clock } = volume.options;
  const deadline = clock.elapsed() + drainMs;
  while (volume.leases.size > 0 && clock.elapsed() < deadline) {
    await pause(20, undefined, clock);
  }
  await volume.close();
}
