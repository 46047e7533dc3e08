/**
 * What rows share: the place for data, sizes, and an origin with the tree that they are about.
 *
 * Invariants:
 * 1. At most one origin exists at a time: two trees with their volumes might not fit into memory.
 * 2. Whatever was begun through a lab has ended when the lab has.
 *
 * @module
 */

import { findPlace, type Place } from "./memory.ts";
import { Origin } from "./origin.ts";
import type { Sizes, TreeKind } from "./trees.ts";

/** How much is measured. */
export interface Scale extends Sizes {
  readonly name: "full" | "quick" | "tiny";
  /** Turns of everybody whose figure has a target. */
  readonly turns: number;
  /** Sites that pull at once. */
  readonly sites: number;
  /** Bytes of the increment that they pull. */
  readonly siteBytes: number;
  /** Seconds that the load generator runs, each time. */
  readonly loadSeconds: number;
}

const MIB = 2 ** 20;

/** The scales: `tiny` only shows that everything works. */
export const SCALES: Record<Scale["name"], Scale> = {
  full: {
    name: "full",
    manyFiles: 100_000,
    largeBytes: 128 * MIB,
    databaseBytes: 1024 * MIB,
    pages: 1000,
    turns: 3,
    sites: 32,
    siteBytes: 16 * MIB,
    loadSeconds: 5,
  },
  quick: {
    name: "quick",
    manyFiles: 4000,
    largeBytes: 16 * MIB,
    databaseBytes: 64 * MIB,
    pages: 200,
    turns: 3,
    sites: 6,
    siteBytes: 8 * MIB,
    loadSeconds: 1,
  },
  tiny: {
    name: "tiny",
    manyFiles: 100,
    largeBytes: MIB,
    databaseBytes: 4 * MIB,
    pages: 20,
    turns: 1,
    sites: 2,
    siteBytes: MIB,
    loadSeconds: 1,
  },
};

/** See the module. */
export class Lab implements AsyncDisposable {
  readonly scale: Scale;
  readonly place: Place;
  /** Says what is done now. */
  readonly note: (text: string) => void;
  #origin: Origin | undefined;
  #fresh = 0;

  private constructor(scale: Scale, place: Place, note: (text: string) => void) {
    this.scale = scale;
    this.place = place;
    this.note = note;
  }

  /** Finds a place for the data. */
  static async open(scale: Scale, note: (text: string) => void): Promise<Lab> {
    return new Lab(scale, await findPlace(), note);
  }

  /** A path where nothing is yet. */
  path(name: string): string {
    return `${this.place.directory}/${this.#fresh++} ${name}`.replaceAll(" ", "-");
  }

  /** A directory that is removed when `work` is done. */
  async within<T>(name: string, work: (directory: string) => Promise<T>): Promise<T> {
    const directory = this.path(name);
    await Deno.mkdir(directory);
    try {
      return await work(directory);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  }

  /** An origin that has both releases of a tree, and serves the first one as its master. */
  async origin(kind: TreeKind): Promise<Origin> {
    if (this.#origin?.releases.kind !== kind) {
      await this.#end();
      this.note(`making the tree '${kind}' and its origin`);
      this.#origin = await Origin.make(this.path(kind), kind, this.scale);
    }
    await this.#origin!.point("first");
    return this.#origin!;
  }

  async #end(): Promise<void> {
    const origin = this.#origin;
    this.#origin = undefined;
    await origin?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
    await this.place[Symbol.asyncDispose]();
  }
}

/** Removes what is there, if anything is. */
export async function clear(path: string): Promise<void> {
  await Deno.remove(path, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}
