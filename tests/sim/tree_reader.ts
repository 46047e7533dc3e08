/**
 * Somebody who reads files at all nodes of a simulated tree: the current ones and those of older snapshots,
 * at once or slowly, and knows what should come.
 *
 * @module
 */

import { HEADERS } from "../../src/http/state_headers.ts";
import type { Random } from "../helpers/random.ts";
import type { ModelPlace } from "../models/file_model.ts";
import { checkReading } from "./tree_invariants.ts";
import { READER, type SimNet } from "./tree_net.ts";
import type { TreeNode } from "./tree_node.ts";
import { ProcessClock, type SimTime } from "./tree_time.ts";
import type { Truth } from "./truth.ts";

/** What a reader is given. */
export interface ReaderOptions {
  readonly time: SimTime;
  readonly net: SimNet;
  readonly random: Random;
  readonly truth: Truth;
  readonly nodes: () => readonly TreeNode[];
  readonly count: (what: string) => void;
  /** Runs a check; what it finds is told. */
  readonly checked: (check: () => void) => void;
}

/** What is read. */
interface Wanted {
  readonly name: string;
  readonly path: string;
  /** An older snapshot; absent: what is current. */
  readonly at: string | undefined;
  /** Time between the answer's head and its body, in which it is held. */
  readonly waitMs: number;
}

/** See the module. */
export class Reader {
  readonly #options: ReaderOptions;
  readonly #get: typeof fetch;

  constructor(options: ReaderOptions) {
    this.#options = options;
    const clock = new ProcessClock(options.time, options.random.fork(), { offsetMs: 0 });
    this.#get = options.net.fetchFor(READER, clock);
  }

  /** Reads on and on. */
  async readOn(isOver: () => boolean): Promise<void> {
    const { time, random } = this.#options;
    while (!isOver()) {
      await time.pause(random.below(15_000));
      const wanted = this.#choose();
      if (wanted === undefined) continue;
      // Whoever gets no answer looks for another node, and who reads slowly is not alone.
      await Promise.race([this.#read(wanted), time.pause(random.below(60_000))]);
    }
  }

  #choose(): Wanted | undefined {
    const { random, truth, nodes } = this.#options;
    const { name, volume } = random.pick(nodes());
    if (volume === undefined) return undefined;
    const at = random.oneIn(3) ? random.pick(volume.snapshots())?.id : undefined;
    const id = at ?? volume.current.id;
    if (!truth.knows(id)) return undefined;
    const path = somePath(truth.of(id).model.places(), random);
    const waitMs = random.oneIn(4) ? random.below(100_000) : 0;
    return path === undefined ? undefined : { name, path, at, waitMs };
  }

  async #read({ name, path, at: wanted, waitMs }: Wanted): Promise<void> {
    const { time, truth, count, checked } = this.#options;
    let response: Response;
    try {
      response = await this.#get(`http://${name}/files${path}${wanted ? `?at=${wanted}` : ""}`);
    } catch {
      return;
    }
    await time.pause(waitMs);
    const at = wanted ?? response.headers.get(HEADERS.snapshot);
    const length = Number(response.headers.get("content-length"));
    const { body, whole } = await cameOf(response);
    // Of a snapshot that is not acknowledged yet nobody knows what is in it.
    if (response.status !== 200 || at === null || !truth.knows(at)) return;
    checked(() => checkReading(truth.of(at).model, path, { body, length }));
    count(whole ? "files read" : "files read in part");
  }
}

/** The path of some file. */
function somePath(places: readonly ModelPlace[], random: Random): string | undefined {
  const files = places.filter(({ node }) => node.type === "file" && node.size > 0);
  if (files.length === 0) return undefined;
  const parts: string[] = [];
  let place: ModelPlace | undefined = random.pick(files);
  while (place !== undefined) {
    parts.unshift(place.name);
    const { parent }: ModelPlace = place;
    place = places.find(({ node }) => node === parent);
  }
  return parts.map((part) => `/${part}`).join("");
}

/** What came of a body, and whether that is all of it. */
async function cameOf(response: Response): Promise<{ body: Uint8Array; whole: boolean }> {
  const chunks: Uint8Array[] = [];
  let whole = true;
  try {
    for await (const chunk of response.body ?? []) chunks.push(chunk);
  } catch {
    whole = false;
  }
  const body = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return { body, whole };
}
