/**
 * Readers of a node: whoever asks a node that lives gets the whole of what was published, and never
 * something older than before.
 *
 * @module
 */

import { assert } from "@std/assert";
import { sleep } from "../helpers/until.ts";
import { randomOf } from "../e2e/trees.ts";
import { LARGE, MARKS, type Releases, versionOf } from "./content.ts";
import type { SoakNode } from "./nodes.ts";

/** Times to wait between two requests, so that readers leave the others something of the processor, ms. */
const PAUSE_MS = 4;
const DOWN_MS = 50;

/** What readers counted. */
export interface Reads {
  requests: number;
  bytes: number;
  /** Requests that ended with their node. */
  cutOff: number;
  /** What a node that lived did wrong. */
  readonly failures: string[];
}

/** All readers of a hierarchy. */
export class Readers {
  readonly counts: Reads = { requests: 0, bytes: 0, cutOff: 0, failures: [] };
  readonly #releases: Releases;
  readonly #loops: Promise<void>[];
  readonly #random: () => number;
  #reading = true;

  constructor(nodes: readonly SoakNode[], releases: Releases, seed: number) {
    this.#releases = releases;
    this.#random = randomOf(seed);
    this.#loops = nodes.flatMap((node) => [
      this.#loop(node, (floor) => this.#readFile(`${node.url}/files/files`, floor)),
      this.#loop(node, (floor) => this.#readFile(`${node.server.wwwUrl}/files`, floor)),
      this.#loop(node, (floor) => this.#readMarks(node, floor)),
      this.#loop(node, (floor) => this.#readSlowly(node, floor)),
    ]);
  }

  /** Ends them. */
  async end(): Promise<void> {
    this.#reading = false;
    await Promise.all(this.#loops);
  }

  /** @param read Reads once. @returns The release from which on the next thing may be. */
  async #loop(node: SoakNode, read: (floor: number) => Promise<number>): Promise<void> {
    let floor = 0;
    while (this.#reading) {
      const { incarnation, isLive } = node;
      try {
        floor = await read(floor);
        this.counts.requests++;
      } catch (error) {
        if (isLive && node.isLive && node.incarnation === incarnation) {
          this.counts.failures.push(`${new Date().toISOString()} ${node.name}: ${error}`);
        } else this.counts.cutOff++;
      }
      await sleep(isLive ? PAUSE_MS : DOWN_MS);
    }
  }

  async #readFile(base: string, floor: number): Promise<number> {
    const index = this.#releases.anyFile(this.#random);
    const response = await fetch(`${base}/${index}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return this.#check(index, response, bytes, floor);
  }

  /** A reader who takes his time, so that releases come and go while he reads one. */
  async #readSlowly(node: SoakNode, floor: number): Promise<number> {
    const response = await fetch(`${node.url}/files/files/${LARGE}`);
    const pieces: Uint8Array[] = [];
    for await (const piece of response.body!) {
      pieces.push(piece);
      if (this.#reading) await sleep(PAUSE_MS);
    }
    const bytes = new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer());
    return this.#check(LARGE, response, bytes, floor);
  }

  /** @returns The release from which on the next thing may be. */
  #check(index: number, response: Response, bytes: Uint8Array, floor: number): number {
    this.counts.bytes += bytes.length;
    assert(response.status === 200 || response.status === 404, `status ${response.status}`);
    const version = response.status === 404 ? undefined : versionOf(index, bytes);
    const release = this.#releases.releaseOf(index, version, floor);
    if (release !== undefined) return release;
    throw new Error(`file ${index} in version ${version}: not in r${floor} or later`);
  }

  /** A directory at once: one release, whatever comes in meanwhile. */
  async #readMarks(node: SoakNode, floor: number): Promise<number> {
    const response = await fetch(`${node.url}/archive?path=/marks`);
    const text = await response.text();
    assert(response.status === 200, `status ${response.status}: ${text.slice(0, 200)}`);
    this.counts.bytes += text.length;
    const marks = text.match(/release \d+\./g) ?? [];
    assert(marks.length === MARKS, `${marks.length} of ${MARKS} marks`);
    assert(new Set(marks).size === 1, `a mixture: ${[...new Set(marks)]}`);
    const release = Number(marks[0]?.slice("release ".length, -1));
    assert(release >= floor, `r${release} after r${floor}`);
    return release;
  }
}
