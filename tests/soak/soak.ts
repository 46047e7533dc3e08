/**
 * A real hierarchy under readers, a publisher, kill -9, stalls and cut lines.
 *
 * What must hold all along:
 * 1. Whoever reads at a node that lives gets an answer, whole, of one release, none older than before.
 * 2. A release that was acknowledged is there after a kill of the origin.
 * 3. When it is quiet, every node has the newest release, and its content is that of the tree.
 * 4. Every volume is clean.
 * 5. Processes hold no more memory and descriptors in the end than in the beginning.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { currentOf, sleep, TempDirectory, until, volcast } from "../e2e/harness.ts";
import { assertSameTree, randomOf } from "../e2e/trees.ts";
import { Releases } from "./content.ts";
import { Gauges, type Growth } from "./gauges.ts";
import { type SoakNode, startHierarchy } from "./nodes.ts";
import { Publisher } from "./publisher.ts";
import { Readers, type Reads } from "./readers.ts";

/** What is done to the hierarchy. */
const EVENTS = ["kill", "cut", "cut by bytes", "stall", "line down", "made anew"] as const;
type Event = typeof EVENTS[number];

/** How long and how hard. */
export interface SoakOptions {
  readonly seed: number;
  /** Ends after this time and when every event has happened `eventsEach` times, ms. */
  readonly forMs: number;
  readonly eventsEach: number;
  /** Factor for the time between two events, and for how long they last; 1 by default. */
  readonly pace?: number;
  /** Told what happens. */
  readonly log?: (text: string) => void;
}

/** What a soak counted. */
export interface SoakReport extends Reads {
  readonly seconds: number;
  readonly events: Readonly<Record<Event, number>>;
  readonly originKills: number;
  readonly published: number;
  readonly deleted: number;
  readonly repeated: number;
  readonly increments: number;
  readonly fullImages: number;
  readonly growths: readonly Growth[];
}

/** Runs it. @throws Where what must hold did not, other than for readers and growth: these are counted. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  using directory = new TempDirectory();
  const releases = new Releases(directory.file("tree"), options.seed);
  const nodes = await startHierarchy(directory, releases.tree);
  try {
    return await new Soak(nodes, releases, options).run(directory);
  } finally {
    for (const node of nodes) {
      await node.stop();
      await node.line?.[Symbol.asyncDispose]();
    }
  }
}

class Soak {
  readonly #nodes: readonly SoakNode[];
  readonly #releases: Releases;
  readonly #options: SoakOptions;
  readonly #publisher: Publisher;
  readonly #random: () => number;
  readonly #counts = Object.fromEntries(EVENTS.map((event) => [event, 0])) as Record<Event, number>;
  readonly #begin = performance.now();
  #originKills = 0;

  constructor(nodes: readonly SoakNode[], releases: Releases, options: SoakOptions) {
    this.#nodes = nodes;
    this.#releases = releases;
    this.#options = options;
    this.#publisher = new Publisher(nodes[0], releases);
    this.#random = randomOf(options.seed + 1);
  }

  async run(directory: TempDirectory): Promise<SoakReport> {
    const gauges = new Gauges(this.#nodes);
    const readers = new Readers(this.#nodes, this.#releases, this.#options.seed + 2);
    try {
      await Promise.all([this.#publish(), this.#disturb()]);
      await this.#converge();
    } finally {
      await readers.end();
      gauges.end();
    }
    await this.#assertRestored(directory);
    const log = this.#nodes.map(({ pastLog }) => pastLog).join("");
    const count = (text: RegExp) => [...log.matchAll(text)].length;
    return {
      ...readers.counts,
      seconds: Math.round((performance.now() - this.#begin) / 1000),
      events: this.#counts,
      originKills: this.#originKills,
      published: this.#publisher.published,
      deleted: this.#publisher.deleted,
      repeated: this.#publisher.repeated,
      increments: count(/: increment,/g),
      fullImages: count(/: full image,/g),
      growths: gauges.growths(),
    };
  }

  get #isOver(): boolean {
    return performance.now() - this.#begin >= this.#options.forMs &&
      Object.values(this.#counts).every((count) => count >= this.#options.eventsEach);
  }

  async #publish(): Promise<void> {
    while (!this.#isOver) {
      await this.#publisher.next();
      await this.#publisher.deleteOld();
      await this.#wait(300 + this.#random() * 1500);
    }
  }

  async #disturb(): Promise<void> {
    while (!this.#isOver) {
      await this.#wait(200 + this.#random() * 2000);
      // All of them first, so that a short run has them too.
      const missing = EVENTS.filter((event) => this.#counts[event] < this.#options.eventsEach);
      const among = missing.length > 0 ? missing : EVENTS;
      const event = among[this.#below(among.length)];
      const node = this.#pick(event);
      this.#options.log?.(`${event}: ${node.name}`);
      await this.#do(event, node);
      this.#counts[event]++;
    }
  }

  /** Rome and oslo run all the time, so that growth can be seen; so does the origin from a third on. */
  #pick(event: Event): SoakNode {
    const [origin, paris, rome, berlin, oslo] = this.#nodes;
    const isEarly = performance.now() - this.#begin < this.#options.forMs / 3;
    if (event === "kill" && this.#originKills === 0) return origin;
    const among = event === "kill"
      ? [paris, berlin, ...(isEarly ? [origin, origin] : [])]
      : event === "made anew"
      ? [berlin]
      : event === "stall"
      ? [paris, berlin]
      : [paris, rome, berlin, oslo];
    return among[this.#below(among.length)];
  }

  async #do(event: Event, node: SoakNode): Promise<void> {
    const line = node.line!;
    if (event === "kill") {
      if (node === this.#nodes[0]) this.#originKills++;
      await node.kill();
      await this.#wait(this.#random() * 1500);
      await node.start();
      if (node === this.#nodes[0]) await this.#publisher.assertNothingLost();
    } else if (event === "cut") line.cut();
    else if (event === "cut by bytes") {
      line.cutEvery(() => 4096 + this.#random() * 3_000_000);
      await this.#wait(2000);
      line.cutEvery(() => Infinity);
    } else if (event === "line down") {
      line.isDown = true;
      await this.#wait(this.#random() * 4000);
      line.isDown = false;
    } else if (event === "stall") {
      // Whoever waits for it has to wait; nobody may take it for gone.
      node.isLive = false;
      node.server.process.kill("SIGSTOP");
      await this.#wait(this.#random() * 3000);
      node.server.process.kill("SIGCONT");
      node.isLive = true;
    } else {
      assertEquals(await node.stop(), 0, node.server.log);
      Deno.removeSync(node.volume);
      await node.start();
    }
  }

  /** @param ms How long at the usual pace. */
  #wait(ms: number): Promise<undefined> {
    return sleep(ms * (this.#options.pace ?? 1));
  }

  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  /** Everybody has the newest release when nothing happens any more. */
  async #converge(): Promise<void> {
    const newest = `r${this.#releases.newest}`;
    for (const node of this.#nodes.slice(1)) {
      await until(`${newest} at ${node.name}`, async () => await currentOf(node.url) === newest);
    }
  }

  async #assertRestored(directory: TempDirectory): Promise<void> {
    for (const node of this.#nodes) {
      const out = directory.file(`out-${node.name}`);
      await volcast(["export", node.url, out]);
      await assertSameTree(this.#releases.tree, out);
      Deno.removeSync(out, { recursive: true });
      assertEquals(await node.stop(), 0, node.server.log);
      const { stdout } = await volcast(["fsck", node.volume, "--json"]);
      assert(JSON.parse(stdout).clean, stdout);
    }
  }
}
