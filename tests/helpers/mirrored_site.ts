/**
 * A volume that is mirrored from the command line.
 *
 * @module
 */

import { json, makeTree, ok } from "./cli.ts";
import { Random } from "./random.ts";

/** A volume with something in it, and a way to change it. */
export class Site {
  readonly volume: string;
  readonly #tree: string;
  #changes = 0;

  private constructor(directory: string) {
    this.volume = `${directory}/site.vol`;
    this.#tree = `${directory}/tree`;
  }

  static async make(directory: string, size = "16MiB"): Promise<Site> {
    const site = new Site(directory);
    await ok("init", site.volume, "--size", size);
    await site.change();
    return site;
  }

  /** Writes another content of 200,000 bytes into `a`. @returns The text of `b`. */
  async change(): Promise<string> {
    const text = `change ${++this.#changes}\n`;
    await makeTree(this.#tree, { a: new Random(this.#changes).bytes(200_000), b: text });
    await ok("import", this.volume, this.#tree);
    return text;
  }

  /** The command that mirrors it once. */
  round(base: string, into: string, ...more: string[]): string[] {
    return ["mirror", this.volume, "--base", base, "--into", into, "--once", ...more];
  }

  /** Names of its snapshots. */
  async snapshots(): Promise<string[]> {
    const { snapshots } = await json("snapshot", "list", this.volume);
    return snapshots.map(({ name }: { name: string }) => name);
  }

  /** What it knows of mirrors and other sites. */
  async sites(): Promise<Record<string, { snapshot?: string; needs: string[] }>> {
    return (await json("info", this.volume)).localZone.sites;
  }
}

/** Names in a directory. */
export function namesIn(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}
