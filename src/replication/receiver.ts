/**
 * The standby's side of a mirror: takes the images that a source pushes, one at a time, whole or in
 * parts, and lets readers be served meanwhile.
 *
 * States of a transfer: begin -> (comes in <-> waits for the rest) -> works (verifies, flips) -> applied
 * or failed. One that waits gives way to another image; what has come of it is kept on disk as far as
 * applying keeps it.
 *
 * Invariants:
 * 1. Only a replica takes images, only of its own volume, and none of an older line of history.
 * 2. An increment is taken only if its base is the current root; nothing is guessed from what comes.
 * 3. One transfer at a time; a second one is told to come later, and has changed nothing.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { decodeStreamHeader, idOf, STREAM_HEADER_LAYOUT } from "../format/mod.ts";
import type { Applied } from "../image/mod.ts";
import type { Volume } from "../volume/mod.ts";
import type { Node } from "./node.ts";
import { type PushedBody, PushedStream } from "./pushed_stream.ts";
import { receiveImage, type ReceiveOptions } from "./receive.ts";
import type { ComingImage, StandbyPosition } from "./standby.ts";

/** An image as its sender names it. */
export interface PushedName {
  readonly volumeId: string;
  /** Id of the top. */
  readonly top: string;
  /** Id of the base, absent for a full image. */
  readonly base?: string;
  /** Line of history of the top, where the sender tells it. */
  readonly epoch?: number;
}

/** What became of a body. */
export type PushOutcome =
  /** The image is current now. */
  | { readonly kind: "applied"; readonly applied: Applied }
  /** It was current before. */
  | { readonly kind: "current" }
  /** Go on from this byte. */
  | { readonly kind: "more"; readonly offset: number }
  /** It was taken and is being looked at: ask for the position until that says more. */
  | { readonly kind: "working" };

/** Settings of a {@linkcode Receiver}. */
export interface ReceiverOptions
  extends Pick<ReceiveOptions, "volumeOptions" | "drainMs" | "opened"> {
  /** Longest wait for the rest of an image that has come in part, ms; 60,000 by default. */
  readonly waitMs?: number;
  /** Longest wait for what comes of a part before its sender is told to ask again, ms; 10,000 by default. */
  readonly answerMs?: number;
  /** Told of each image that became current, and of each that failed. */
  readonly log?: (text: string) => void;
}

interface Transfer {
  readonly image: PushedName;
  readonly stream: PushedStream;
  readonly stop: AbortController;
  /** How it ended. */
  readonly done: Promise<Applied>;
}

/** See the module. */
export class Receiver {
  readonly #node: Node;
  readonly #options: ReceiverOptions;
  #transfer: Transfer | undefined;
  #failed: StandbyPosition["failed"];
  #stopped = false;

  constructor(node: Node, options: ReceiverOptions = {}) {
    this.#node = node;
    this.#options = options;
  }

  /** Where this node stands. */
  position(): StandbyPosition {
    const volume = this.#node.volumeIfAny;
    const coming = this.#coming();
    const base = {
      node: this.#node.name,
      role: volume?.role ?? "replica",
      ...(coming === undefined ? {} : { coming }),
      ...(this.#failed === undefined ? {} : { failed: this.#failed }),
    };
    if (volume === undefined) return base;
    const { id, name, cp } = volume.current;
    const { volumeId, root: { epoch } } = volume;
    return { ...base, volumeId, epoch, current: { id, name, cp } };
  }

  #coming(): ComingImage | undefined {
    const transfer = this.#transfer;
    if (transfer === undefined) {
      const kept = this.#node.volumeIfAny?.local.transfer;
      return kept === undefined ? undefined : named(kept, { state: "kept" });
    }
    const offset = transfer.stream.wanted;
    return offset === undefined
      ? named(transfer.image, { state: "works" })
      : named(transfer.image, { state: "wants", offset });
  }

  /**
   * Takes an image, or the part of it that `body` has.
   *
   * @param body.isHere All of the body is in memory: its sender need not wait until it was used.
   * @throws {VolcastError} `diverged`, `read-only`, `busy`; what applying throws.
   */
  async put(image: PushedName, body: PushedBody & { isHere?: boolean }): Promise<PushOutcome> {
    try {
      const { answerMs = 10_000 } = this.#options;
      return await this.#put(image, body, body.isHere ? answerMs : undefined);
    } catch (error) {
      await body.stream.cancel().catch(() => {});
      throw error;
    }
  }

  async #put(image: PushedName, body: PushedBody, answerMs?: number): Promise<PushOutcome> {
    for (;;) {
      if (this.#stopped) throw new VolcastError("busy", "Cannot take the image: the server ends");
      checkWelcome(this.#node.volumeIfAny, image);
      if (this.#node.volumeIfAny?.current.id === image.top) return { kind: "current" };
      let transfer = this.#transfer;
      if (transfer === undefined) {
        if (body.start > 0) return { kind: "more", offset: 0 };
        transfer = this.#begin(image);
      } else {
        const { wanted } = transfer.stream;
        if (transfer.stream.isAttached || wanted === undefined) throw busy(transfer.image);
        if (transfer.image.top !== image.top || transfer.image.base !== image.base) {
          // It only waits for its rest, and its sender has something newer.
          await this.#end(transfer, "another image came in its place");
          continue;
        }
      }
      return await outcomeOf(transfer, transfer.stream.attach(body), answerMs);
    }
  }

  /** Ends what is under way, between two frames; what has come is kept. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#transfer !== undefined) await this.#end(this.#transfer, "the server ends");
  }

  async #end(transfer: Transfer, reason: string): Promise<void> {
    const error = new VolcastError("io", `Cannot go on with the image: ${reason}`);
    transfer.stop.abort(error);
    transfer.stream.end(error);
    await transfer.done.catch(() => {});
  }

  #begin(image: PushedName): Transfer {
    const stream = new PushedStream(this.#options.waitMs ?? 60_000);
    const stop = new AbortController();
    const done = this.#receive(image, stream, stop.signal);
    const transfer = { image, stream, stop, done };
    this.#transfer = transfer;
    this.#failed = undefined;
    done.then(({ name, top, blocks, bytes, base }) => {
      this.#tell(
        base === undefined ? "full" : "increment",
        `Took '${name}' (${top}): ${
          base === undefined ? "full image" : "increment"
        }, ${blocks} blocks, ${bytes} bytes`,
      );
    }, (error) => {
      const kind = error instanceof VolcastError ? error.kind : "io";
      this.#failed = { top: image.top, kind, message: messageOf(error) };
      this.#tell("failed", messageOf(error));
    });
    return transfer;
  }

  async #receive(
    image: PushedName,
    stream: PushedStream,
    signal: AbortSignal,
  ): Promise<Applied> {
    // Whoever began it attaches a body first.
    await Promise.resolve();
    try {
      const header = decodeStreamHeader(await stream.head(STREAM_HEADER_LAYOUT.size));
      stream.endsAt(header.byteCount);
      const base = header.base === undefined ? undefined : idOf(header.base);
      const isAsNamed = header.volumeId === image.volumeId && idOf(header.top) === image.top &&
        base === image.base;
      if (!isAsNamed) {
        throw new VolcastError(
          "usage",
          `Cannot take the image: it is named ${image.base ?? "full"} to ${image.top} of ` +
            `volume ${image.volumeId}, and is ${base ?? "full"} to ${idOf(header.top)} of volume ` +
            header.volumeId,
        );
      }
      return await receiveImage(this.#node, { ...header, top: image.top, base }, stream, {
        ...this.#options,
        signal,
        check: (volume) => checkEpoch(this.#node.volumeIfAny, volume.root.epoch),
      });
    } catch (error) {
      throw stream.ended ?? error;
    } finally {
      this.#transfer = undefined;
      stream.end(new VolcastError("io", "Cannot take more: the transfer is over"));
    }
  }

  #tell(result: string, message: string): void {
    this.#options.log?.(message);
    this.#node.events.emit({ type: "pull", result, message });
  }
}

/** What a sender is told, as soon as there is something to tell. */
async function outcomeOf(
  { stream, done }: Transfer,
  used: Promise<void>,
  answerMs?: number,
): Promise<PushOutcome> {
  const applied = done.then((applied): PushOutcome => ({ kind: "applied", applied }));
  const more = used.then((): Promise<PushOutcome> | PushOutcome =>
    stream.wanted === undefined ? applied : { kind: "more", offset: stream.wanted }
  );
  if (answerMs === undefined) return await Promise.race([applied, more]);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<PushOutcome>((resolve) => {
    timer = setTimeout(() => resolve({ kind: "working" }), answerMs);
  });
  try {
    return await Promise.race([applied, more, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Refuses what can be refused by its name. @throws {VolcastError} `diverged`. */
function checkWelcome(volume: Volume | undefined, image: PushedName): void {
  if (volume === undefined) {
    if (image.base === undefined) return;
    throw new VolcastError(
      "diverged",
      `Cannot take the increment since ${image.base}: there is no volume yet`,
      "Send a full image first",
    );
  }
  if (volume.role === "origin") {
    throw new VolcastError(
      "diverged",
      "Cannot take the image: this is an origin now, with a history of its own",
      "Bring the sender back to what both have: volcast resync",
    );
  }
  if (volume.volumeId !== image.volumeId) {
    throw new VolcastError(
      "diverged",
      `Cannot take an image of volume ${image.volumeId}: this is volume ${volume.volumeId}`,
      "Give the standby another path, or check the URL",
    );
  }
  if (image.epoch !== undefined) checkEpoch(volume, image.epoch);
  const { current } = volume;
  if (image.top === current.id || image.base === undefined || image.base === current.id) return;
  throw new VolcastError(
    "diverged",
    `Cannot take the increment since ${image.base}: this stands on '${current.name}' (${current.id})`,
    "Send the image that leads on from there, or a full one",
  );
}

function checkEpoch(volume: Volume | undefined, epoch: number): void {
  if (volume === undefined || epoch >= volume.root.epoch) return;
  throw new VolcastError(
    "diverged",
    `Cannot take the image: it is of line of history ${epoch}, this is in ${volume.root.epoch}`,
    "Another node was promoted since. Bring the sender back to what both have: volcast resync",
  );
}

function busy({ top }: PushedName): VolcastError {
  return new VolcastError(
    "busy",
    `Cannot take the image: another one comes in now, up to ${top}`,
    "Try again later; GET /standby shows how far it is",
  );
}

function named(
  { top, base }: { top: string; base?: string | undefined },
  state: Pick<ComingImage, "state" | "offset">,
): ComingImage {
  return { top, ...(base === undefined ? {} : { base }), ...state };
}
