/**
 * An origin with two releases of a tree, and what the pulls of them must bring.
 *
 * @module
 */

import { Server } from "../../tests/e2e/harness.ts";
import { digestOfDirectory, type TreeDigest } from "./digest.ts";
import { must } from "./process.ts";
import { makeReleases, type Releases, type Sizes, type TreeKind } from "./trees.ts";
import { json, setPointer, volcast } from "./volcast.ts";

/** One of the two. */
export type Release = "first" | "second";

/** What is known of an image before it is pulled. */
export interface ImagePlan {
  /** Bytes of the stream. */
  readonly bytes: number;
  /** Bytes of its blocks alone. */
  readonly blockBytes: number;
}

/** See the module. */
export class Origin implements AsyncDisposable {
  readonly directory: string;
  readonly releases: Releases;
  readonly volume: string;
  readonly server: Server;
  readonly #digests = new Map<Release, TreeDigest>();

  private constructor(directory: string, releases: Releases, volume: string, server: Server) {
    this.directory = directory;
    this.releases = releases;
    this.volume = volume;
    this.server = server;
  }

  /** Makes the tree, publishes both releases, and serves them. */
  static async make(directory: string, kind: TreeKind, sizes: Sizes): Promise<Origin> {
    await Deno.mkdir(directory);
    const releases = makeReleases(directory, kind, sizes);
    const volume = `${directory}/origin.vol`;
    await makeVolume(volume, releases);
    await must(volcast("publish", volume, releases.first, "--as", "first"));
    await must(volcast("publish", volume, releases.second, "--as", "second"));
    return new Origin(directory, releases, volume, await Server.start([volume]));
  }

  get url(): string {
    return this.server.url;
  }

  /** Port that the origin listens at. */
  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Makes a release the one that sites get. */
  async point(release: Release): Promise<void> {
    await setPointer(this.url, "master", release);
  }

  /** What the directory of a release holds. */
  digest(release: Release): TreeDigest {
    let digest = this.#digests.get(release);
    if (digest === undefined) {
      digest = digestOfDirectory(this.releases[release]);
      this.#digests.set(release, digest);
    }
    return digest;
  }

  /** What an expression selects. */
  async plan(expression: string): Promise<ImagePlan> {
    return await json<ImagePlan>("plan", this.url, expression, "--json");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** An empty volume with room for both releases, and not much more: its file is copied whole, too. */
export async function makeVolume(path: string, { bytes, files }: Releases): Promise<void> {
  const size = Math.ceil(bytes * 1.25 + files * 4096) + 64 * 2 ** 20;
  await must(volcast("init", path, "--size", String(size)));
}
