/**
 * An incremental mirror as a standby: a base image on slow storage, and a file with what is newer.
 *
 * States, by what is there: nothing -> (full image) base -> (its blocks are verified where they lie)
 * base and mirror at its top -> (increments) mirror at a newer root. A crash leaves one of these, with
 * some segments of the base at worst, which the next full image writes again.
 *
 * Source: WO 00/07104, incremental mirrors.
 *
 * @module
 */

import { resolve } from "node:path";
import { VolcastError } from "../core/mod.ts";
import { adoptImage, applyImage, type Image, RECORD_BYTES } from "../image/mod.ts";
import type { Standby, StandbyPosition, TakeOptions } from "../replication/mod.ts";
import {
  createMirrorFile,
  exists,
  peekMirrorFile,
  trimMirror,
  type Volume,
} from "../volume/mod.ts";
import { hasBase, isDirectory, openBase } from "./base_image.ts";
import { openMirror } from "./open_volume.ts";
import { writeOutput } from "./output.ts";
import { writeSegments } from "./segment_output.ts";
import type { Terminal } from "./terminal.ts";

/** Where an incremental mirror lies. */
export interface IncrementalPlace {
  /** File of the base image, or directory with its segments. */
  readonly base: string;
  /** File with what is newer. */
  readonly into: string;
  /** Most bytes of a segment, where the base is in segments. */
  readonly segmentBytes?: number | undefined;
}

/** See the module. It has its files open from the first question until `release`. */
export class IncrementalStandby implements Standby {
  readonly name: string;
  readonly #place: IncrementalPlace;
  readonly #terminal: Terminal;
  #volume: Volume | undefined;

  constructor(place: IncrementalPlace, terminal: Terminal) {
    this.#place = { ...place, base: place.base.replace(/(?<=[^/])\/+$/, "/") };
    this.#terminal = terminal;
    this.name = place.into;
  }

  async position(): Promise<StandbyPosition> {
    const volume = this.#volume ??= await this.#open();
    const node = this.name.slice(this.name.lastIndexOf("/") + 1).replace(/[^A-Za-z0-9_.:@-]/g, "-")
      .replace(/^[^A-Za-z0-9]+/, "");
    return {
      node: node === "" ? "mirror" : node,
      role: "replica",
      ...(volume === undefined ? {} : {
        volumeId: volume.volumeId,
        epoch: volume.root.epoch,
        current: { ...volume.current },
      }),
    };
  }

  async take(image: Image, { signal, progress }: TakeOptions): Promise<void> {
    const { byteCount } = image;
    if (image.base === undefined) {
      await this.#takeBase(image, signal, progress);
    } else {
      await applyImage(this.#volume!, {
        open: (offset) => Promise.resolve(image.stream({ from: offset })),
        retry: () => Promise.resolve(false),
      }, {
        drainMs: 0,
        ...(signal === undefined ? {} : { signal }),
        ...(progress === undefined ? {} : { progress }),
      });
      await trimMirror(this.#volume!);
    }
    progress?.(byteCount, byteCount);
  }

  async release(): Promise<void> {
    const volume = this.#volume;
    this.#volume = undefined;
    await volume?.close();
  }

  /** The mirror over its base; made where only the base is there. `undefined`: nothing is. */
  async #open(): Promise<Volume | undefined> {
    const { base, into } = this.#place;
    if (exists(into)) {
      if (peekMirrorFile(into) === undefined) {
        throw new VolcastError(
          "exists",
          `Cannot mirror into ${into}: something else is there`,
          "Choose another path for --into",
        );
      }
      return await openMirror({ mirror: into, base });
    }
    if (!hasBase(base)) return undefined;
    try {
      return await this.#adopt();
    } catch (error) {
      const isHalf = error instanceof VolcastError && error.kind === "damaged" && isDirectory(base);
      if (!isHalf) throw error;
      // Segments are missing, or wrong: a full image writes them again.
      this.#terminal.note(error.message);
      return undefined;
    }
  }

  /** Makes the mirror of a base that is there. */
  async #adopt(): Promise<Volume> {
    const { base: path, into } = this.#place;
    const base = await openBase(path, (text) => this.#terminal.note(text));
    try {
      const made = {
        volumeId: base.pieces.header.volumeId,
        store: base.store,
        top: base.top,
        path: resolve(path) + (path.endsWith("/") ? "/" : ""),
      };
      return await createMirrorFile(into, made, async (volume) => {
        await adoptImage(volume, base.pieces);
      });
    } catch (error) {
      base.store.close();
      throw error;
    }
  }

  async #takeBase(
    image: Image,
    signal: AbortSignal | undefined,
    progress: TakeOptions["progress"],
  ): Promise<void> {
    const { base, into, segmentBytes } = this.#place;
    if (this.#volume !== undefined) {
      throw new VolcastError(
        "exists",
        `Cannot make a new base at ${base}: ${into} stands on the one that is there`,
        "Begin anew with other paths for --base and --into; delete these when that is there",
      );
    }
    const options = {
      force: isDirectory(base),
      parents: isDirectory(base),
      signal: signal ?? new AbortController().signal,
      terminal: this.#terminal,
    };
    if (isDirectory(base)) {
      const ranged = {
        byteCount: image.byteCount,
        stream: (from: number, to: number) => image.stream({ from, to }),
      };
      await writeSegments(ranged, [base], {
        ...options,
        sizes: {
          recordBytes: RECORD_BYTES,
          ...(segmentBytes === undefined ? {} : { segmentBytes }),
        },
        progress: (done, total) => progress?.(Math.min(done, image.byteCount), total),
      });
    } else {
      const { byteCount } = image;
      await writeOutput(
        base,
        { chunks: counted(image.stream(), progress, byteCount), byteCount },
        options,
      );
    }
    this.#volume = await this.#adopt();
  }
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  progress: TakeOptions["progress"],
  total: number,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const chunk of chunks) {
    yield chunk;
    progress?.(done += chunk.length, total);
  }
}
