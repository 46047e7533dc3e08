/**
 * Releases whose files say by themselves which version they are, so that whoever reads one knows whether
 * it is whole and of which releases it can be.
 *
 * @module
 */

import { assert } from "@std/assert";
import { randomOf } from "../e2e/trees.ts";

/** Files of the directory that is read as one. */
export const MARKS = 20;
const FILES = 300;
const SMALL_BYTES = 60_000;
/** The file that is read slowly: more than what lies between two sockets. */
export const LARGE = 0;
const LARGE_BYTES = 24 * 2 ** 20;

/** The bytes of version `version` of file `index`: a line that names them, then noise. */
export function contentOf(index: number, version: number): Uint8Array<ArrayBuffer> {
  const random = randomOf(index * 1_000_003 + version);
  const size = index === LARGE ? LARGE_BYTES : Math.floor(random() ** 3 * SMALL_BYTES);
  const head = new TextEncoder().encode(`${index} ${version} ${size}\n`);
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = (index * 2_654_435_761 + version * 40_503 + 1) >>> 0;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  const bytes = new Uint8Array(head.length + size);
  bytes.set(head);
  bytes.set(new Uint8Array(words.buffer, 0, size), head.length);
  return bytes;
}

/** The version that a file's bytes are of. @throws When they are not the whole of one. */
export function versionOf(index: number, bytes: Uint8Array): number {
  const head = new TextDecoder().decode(bytes.subarray(0, 40)).split("\n")[0];
  const [at, version] = head.split(" ").map(Number);
  assert(at === index, `file ${index} begins with '${head}'`);
  const wanted = contentOf(index, version);
  assert(
    bytes.length === wanted.length,
    `file ${index}: ${bytes.length} of ${wanted.length} bytes`,
  );
  for (let i = 0; i < wanted.length; i++) {
    if (bytes[i] !== wanted[i]) throw new Error(`file ${index}, version ${version}: byte ${i}`);
  }
  return version;
}

/** What was published, release by release; a release is its number. */
export class Releases {
  readonly tree: string;
  readonly #random: () => number;
  /** By release: versions by file. */
  readonly #versions: Map<number, number>[] = [];

  /** @param tree Directory in which the newest one lies. */
  constructor(tree: string, seed: number) {
    this.tree = tree;
    this.#random = randomOf(seed);
    Deno.mkdirSync(`${tree}/files`, { recursive: true });
    Deno.mkdirSync(`${tree}/marks`);
    const first = new Map<number, number>();
    for (let index = 0; index < FILES; index++) this.#write(first, index, 0);
    this.#add(first);
  }

  /** The newest release. */
  get newest(): number {
    return this.#versions.length - 1;
  }

  /** Any file that some release has, but for the large one. */
  anyFile(random: () => number): number {
    return 1 + Math.floor(random() * (FILES - 1));
  }

  /** Makes the next release: changes, removals, files that come back. */
  change(): void {
    const next = new Map(this.#versions[this.newest]);
    this.#write(next, LARGE, this.#versions.length);
    for (let i = 0; i < FILES / 30; i++) {
      const index = this.anyFile(this.#random);
      if (next.has(index) && this.#random() < 0.3) {
        Deno.removeSync(this.#pathOf(index));
        next.delete(index);
      } else this.#write(next, index, this.#versions.length);
    }
    this.#add(next);
  }

  /**
   * The first release from `floor` on in which a file is as it was read.
   * @param version `undefined` where it was not there.
   */
  releaseOf(index: number, version: number | undefined, floor: number): number | undefined {
    for (let release = floor; release <= this.newest; release++) {
      if (this.#versions[release].get(index) === version) return release;
    }
    return undefined;
  }

  #add(versions: Map<number, number>): void {
    this.#versions.push(versions);
    for (let i = 0; i < MARKS; i++) {
      Deno.writeTextFileSync(`${this.tree}/marks/${i}`, `release ${this.newest}.\n`);
    }
  }

  #write(versions: Map<number, number>, index: number, version: number): void {
    Deno.writeFileSync(this.#pathOf(index), contentOf(index, version));
    versions.set(index, version);
  }

  #pathOf(index: number): string {
    return `${this.tree}/files/${index}`;
  }
}
