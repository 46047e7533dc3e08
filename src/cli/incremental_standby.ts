/**
 * An incremental mirror as a standby: a base image on slow storage, and a file with what is newer.
 *
 * States, by what is there: nothing -> (full image) base -> (its blocks are verified where they lie)
 * base and mirror at its top -> (increments) mirror at a newer root. A crash leaves one of these, with
 * some segments of the base at worst: the next round sends that image again, if it is kept for it still.
 *
 * Source: WO 00/07104, incremental mirrors.
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { assert, VolcastError } from "../core/mod.ts";
import { adoptImage, applyImage, type Image } from "../image/mod.ts";
import type { Standby, StandbyPosition, TakeOptions } from "../replication/mod.ts";
import {
  createMirrorFile,
  exists,
  peekMirrorFile,
  trimMirror,
  type Volume,
} from "../volume/mod.ts";
import { epochOf, hasBase, isDirectory, openBase, type OpenedBase, partsOf } from "./base_image.ts";
import { writeBase } from "./base_writer.ts";
import { noRetry } from "./image_source.ts";
import { openMirror } from "./open_volume.ts";
import { infoOf } from "./output.ts";
import type { Terminal } from "./terminal.ts";
import { volumePathOf } from "./volume_path.ts";

/** Characters of a file's name that become one among sites: snapshots are called by it, and a number. */
const MOST_OF_NAME = 200;

/** Where an incremental mirror lies. */
export interface IncrementalPlace {
  /** File of the base image, or directory with its segments. */
  readonly base: string;
  /** File with what is newer. */
  readonly into: string;
  /** Most bytes of a segment, where the base is in segments. */
  readonly segmentBytes?: number | undefined;
  /** What the options are called that say where, for messages. */
  readonly names: { readonly base: string; readonly into: string };
}

/** See the module. It has its files open from the first question until `release`. */
export class IncrementalStandby implements Standby {
  readonly name: string;
  readonly beginAnew: string;
  readonly #place: IncrementalPlace;
  readonly #terminal: Terminal;
  #volume: Volume | undefined;
  /** The base, where it is there and the mirror is not, and the line of history that it is in. */
  #base: { readonly opened: OpenedBase; readonly epoch: number } | undefined;
  /** Id of the image that there is a part of in the directory of the base. */
  #half: string | undefined;
  /** What the mirror that is made is called among sites. */
  #site: string | undefined;

  constructor(place: IncrementalPlace, terminal: Terminal) {
    this.#place = { ...place, base: place.base.replace(/(?<=[^/])\/+$/, "/") };
    this.#terminal = terminal;
    this.name = place.into;
    const { base: baseOption, into: intoOption } = place.names;
    this.beginAnew =
      `Begin anew with other paths for ${baseOption} and ${intoOption}; delete these ` +
      "when that is there";
  }

  async position(): Promise<StandbyPosition> {
    await this.#open();
    const role = "replica";
    if (this.#volume !== undefined) {
      const { volumeId, root: { epoch }, current, local } = this.#volume;
      // Older ones have no name of their own: they are called as their files are.
      return {
        node: local.site ?? this.#fileName(),
        role,
        volumeId,
        epoch,
        current: { ...current },
      };
    }
    const unnamed = {
      node: this.#fileName().slice(0, MOST_OF_NAME),
      isNew: true,
      role,
    } as const;
    if (this.#half !== undefined) return { ...unnamed, coming: { top: this.#half, state: "kept" } };
    if (this.#base === undefined) return unnamed;
    const { opened: { pieces: { header }, top }, epoch } = this.#base;
    return {
      ...unnamed,
      volumeId: header.volumeId,
      epoch,
      current: { id: top, name: header.top.name, cp: header.top.cp },
    };
  }

  async prepare(name: string, { full }: { full: boolean }): Promise<StandbyPosition> {
    this.#site = name;
    this.#checkPlaces(full);
    const base = this.#base;
    this.#base = undefined;
    if (base !== undefined) {
      await this.#wholeOrNote(async () => {
        this.#volume = await this.#adopt(base.opened);
      });
    }
    const volume = this.#volume;
    if (volume !== undefined && volume.local.site === undefined) {
      const site = this.#fileName();
      await volume.updateLocal((state) => {
        state.site = site;
      });
    }
    return await this.position();
  }

  async take(image: Image, options: TakeOptions): Promise<void> {
    const { byteCount } = image;
    const { signal, progress } = options;
    if (image.base === undefined) {
      await this.#takeBase(image, options);
    } else {
      await applyImage(this.#volume!, {
        open: (offset) => Promise.resolve(image.stream({ from: offset })),
        retry: (error) => noRetry(error),
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
    this.#base?.opened.store.close();
    this.#base = undefined;
    this.#half = undefined;
    await volume?.close();
  }

  /** The mirror's file as a name among sites. */
  #fileName(): string {
    const name = this.name.slice(this.name.lastIndexOf("/") + 1).replace(/[^A-Za-z0-9_.:@-]/g, "-")
      .replace(/^[^A-Za-z0-9]+/, "");
    return name === "" ? "mirror" : name;
  }

  /** Opens the mirror over its base; where only the base is there, that. */
  async #open(): Promise<void> {
    const { base, into } = this.#place;
    if ((this.#volume ?? this.#base ?? this.#half) !== undefined) return;
    if (exists(into)) {
      if (peekMirrorFile(into) === undefined) {
        throw new VolcastError(
          "exists",
          `Cannot mirror into ${into}: something else is there`,
          `Choose another path for ${this.#place.names.into}`,
        );
      }
      this.#volume = await openMirror({ mirror: into, base, isNamed: true });
    } else if (hasBase(base)) {
      await this.#wholeOrNote(async () => {
        const opened = await openBase(base, (text) => this.#terminal.note(text));
        try {
          this.#base = { opened, epoch: epochOf(opened) };
        } catch (error) {
          opened.store.close();
          throw error;
        }
      });
    }
  }

  /** Segments may be missing, or wrong: a full image of the same writes them again. */
  async #wholeOrNote(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const isHalf = error instanceof VolcastError && error.kind === "damaged" &&
        isDirectory(this.#place.base);
      if (!isHalf) throw error;
      this.#terminal.note(error.message);
      this.#half = (await partsOf(this.#place.base))?.top;
    }
  }

  /**
   * Whether what is going to be made can be.
   * @throws {VolcastError} `exists` (a base), `not-found` (a directory).
   */
  #checkPlaces(full: boolean): void {
    const { base, into } = this.#place;
    const hasMirror = this.#volume !== undefined;
    const hasWholeBase = hasMirror || this.#base !== undefined;
    if (full && hasWholeBase) {
      throw new VolcastError(
        "exists",
        `Cannot make a new base at ${base}: ${
          hasMirror ? `${into} stands on` : "a mirror may stand on"
        } the one that is there`,
        this.beginAnew,
      );
    }
    // A base in a volume is looked at by whoever writes it.
    const isFile = !isDirectory(base) && volumePathOf(base) === undefined;
    if (!hasWholeBase && isFile) checkDirectoryOf(base);
    if (!hasMirror) checkDirectoryOf(into);
  }

  /** Makes the mirror of a base that is there. @param base Closed when this fails. */
  async #adopt(base: OpenedBase): Promise<Volume> {
    const { base: path, into } = this.#place;
    assert(this.#site !== undefined, "it was prepared");
    try {
      const made = {
        volumeId: base.pieces.header.volumeId,
        site: this.#site,
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

  async #takeBase(image: Image, options: TakeOptions): Promise<void> {
    const { base, segmentBytes } = this.#place;
    assert(this.#volume === undefined, "nobody stands on the base that is written");
    await writeBase(image, base, {
      segmentBytes,
      signal: options.signal ?? new AbortController().signal,
      terminal: this.#terminal,
      progress: (done, total) => options.progress?.(done, total),
    });
    await options.landed?.();
    this.#volume = await this.#adopt(
      await openBase(base, (text) => this.#terminal.note(text)),
    );
  }
}

/** Looks whether the directory is there that a file is to be made in. @throws {VolcastError} `not-found`. */
function checkDirectoryOf(path: string): void {
  const directory = dirname(path);
  if (infoOf(directory)?.isDirectory === true) return;
  throw new VolcastError(
    "not-found",
    `Cannot make ${path}: there is no directory ${directory}`,
    "Make it first",
  );
}
