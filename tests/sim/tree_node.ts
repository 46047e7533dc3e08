/**
 * A node of the simulated tree: a host with disks and a clock, and on it now and then a process, which is
 * put together as `volcast serve` does it.
 *
 * @module
 */

import { assert, patienceBy } from "../../src/core/mod.ts";
import { Access, createApp, HttpPeer, Traffic } from "../../src/http/mod.ts";
import { follow, keepPinBudget, Node, Puller } from "../../src/replication/mod.ts";
import {
  type IncomingImage,
  resumeIncoming,
  type Snapshot,
  Volume,
  type VolumeHome,
  type VolumeOptions,
} from "../../src/volume/mod.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import type { Random } from "../helpers/random.ts";
import { type DiskUser, SimDisk } from "./tree_disk.ts";
import type { SimNet } from "./tree_net.ts";
import { ProcessClock, type SimTime } from "./tree_time.ts";

/** Time between two pulls, ms. */
export const EVERY_MS = 60_000;

/** What hosts share. */
export interface Surroundings {
  readonly time: SimTime;
  /** Names of all nodes that there may be: each has a token that all others know. */
  readonly names: readonly string[];
  readonly net: SimNet;
  readonly random: Random;
  readonly note: (text: string) => void;
  readonly count: (what: string) => void;
  /** A process died by itself: power went in the midst of a write. */
  readonly died: (node: TreeNode) => void;
}

/** A program that runs. */
export interface Process {
  readonly clock: ProcessClock;
  readonly user: DiskUser;
  readonly node: Node;
  readonly stop: AbortController;
  readonly following: Promise<unknown>;
}

function tokenOf(site: string): string {
  return `the-token-of-${site}`;
}

/** See the module. */
export class TreeNode {
  readonly name: string;
  /** Names of those it follows, in order. An origin follows nobody. */
  parents: readonly string[];
  pinBudgetBytes: number | undefined;
  /** Its clock is wrong by so much. */
  readonly host = { offsetMs: 0 };
  disk: SimDisk | undefined;
  incoming: SimDisk | undefined;
  process: Process | undefined;
  /** What pulls, where there is a parent. */
  puller: Puller | undefined;
  /** Whether it follows its parents by itself. */
  follows = true;
  /** Images that came in, by kind. */
  readonly counts = { full: 0, increment: 0 };
  readonly #around: Surroundings;

  constructor(name: string, parents: readonly string[], around: Surroundings) {
    this.name = name;
    this.parents = parents;
    this.#around = around;
  }

  get volume(): Volume | undefined {
    const volume = this.process?.node.volumeIfAny;
    return volume?.hasRoot ? volume : undefined;
  }

  /** A new disk. */
  newDisk(capacity: number, initial?: MemoryStore): SimDisk {
    return new SimDisk(capacity, this.#around.time, this.#around.random.fork(), initial);
  }

  /** Makes the origin's volume. */
  async create(capacity: number, volumeId: string): Promise<void> {
    this.disk = this.newDisk(capacity);
    const { user, options } = this.#newProcess();
    const { time } = this.#around;
    const making = Volume.create(this.disk.open(user), { ...options, volumeId });
    await time.finish(making.then((volume) => volume.close()));
  }

  #newProcess(): { clock: ProcessClock; user: DiskUser; options: VolumeOptions } {
    const { time, random, died, count } = this.#around;
    const clock = new ProcessClock(time, random.fork(), this.host);
    const user: DiskUser = {
      clock,
      roomBlocks: Infinity,
      callsLeft: Infinity,
      dies: () => {
        clock.isDead = true;
        count("crashes within writes");
        died(this);
      },
      wasFull: () => count("writes to full disks"),
    };
    return { clock, user, options: { cacheBytes: 2 ** 18, checkpointMs: 5000, clock } };
  }

  /** Starts the program. */
  boot(): void {
    assert(this.process === undefined, "one process a node");
    const { net, note } = this.#around;
    const { clock, user, options } = this.#newProcess();
    const volume = this.disk === undefined ? undefined : Volume.open(this.disk.open(user), options);
    const log = (text: string) => {
      if (!clock.isDead) note(`${this.name}: ${text}`);
    };
    const node = new Node({
      name: this.name,
      path: this.name,
      home: this.#home(user),
      clock,
      ...(volume === undefined ? {} : { volume }),
    });
    const app = createApp(node, {
      access: new Access({ tokens: { sites: this.#tokens() }, loopback: false }),
      traffic: new Traffic(),
      version: "simulated",
      onShutdown: () => () => {},
    }, log);
    node.events.subscribe((event) => {
      if (event.type !== "pull" || clock.isDead) return;
      if (event.result !== "full" && event.result !== "increment") return;
      this.counts[event.result]++;
      this.#around.count(event.result === "full" ? "full images" : "increments");
    });
    const stop = new AbortController();
    const process: Process = {
      clock,
      user,
      node,
      stop,
      following: this.#follow(node, { clock, options, log }, stop.signal),
    };
    this.process = process;
    net.listen({ name: this.name, clock, answer: (request) => app.fetch(request) });
  }

  #follow(
    node: Node,
    { clock, options: volumeOptions, log }: {
      clock: ProcessClock;
      options: VolumeOptions;
      log: (text: string) => void;
    },
    signal: AbortSignal,
  ): Promise<unknown> {
    const bytes = this.pinBudgetBytes;
    if (bytes !== undefined) node.pinBudgetBytes = bytes;
    const budgeting = bytes === undefined ? undefined : keepPinBudget(node, { bytes, log }, signal);
    if (node.volumeIfAny?.role === "origin") return Promise.all([budgeting]);
    const parents = this.parents.map((name) =>
      new HttpPeer(`http://${name}`, {
        token: tokenOf(this.name),
        fetch: this.#around.net.fetchFor(this.name, clock),
        patience: patienceBy(clock),
      })
    );
    node.upstream = { parent: parents[0].name };
    const puller = new Puller(node, { parents, volumeOptions });
    this.puller = puller;
    if (!this.follows) return Promise.all([budgeting]);
    const following = follow(node, puller, { everyMs: EVERY_MS, parents, log }, signal);
    return Promise.all([budgeting, following]);
  }

  #tokens(): Map<string, string> {
    return new Map(this.#around.names.map((name) => [name, tokenOf(name)]));
  }

  #home(user: DiskUser): VolumeHome {
    return {
      openIncoming: (image: IncomingImage, options = {}) => {
        const there = this.incoming;
        if (there !== undefined && there.capacity === image.capacity) {
          const volume = resumeIncoming(there.open(user), image, options);
          if (volume !== undefined) return volume;
        }
        this.incoming = this.newDisk(image.capacity);
        return Volume.incoming(this.incoming.open(user), image.volumeId, options);
      },
      adoptIncoming: () => {
        assert(this.incoming !== undefined, "a full image has come in");
        // A dead process gives no names.
        if (user.clock.isDead) return;
        this.disk = this.incoming;
        this.incoming = undefined;
      },
      removeIncoming: () => {
        if (!user.clock.isDead) this.incoming = undefined;
      },
    };
  }

  /** Power goes. */
  crash(): void {
    const { process } = this;
    if (process === undefined) return;
    process.clock.isDead = true;
    this.process = undefined;
    this.disk?.crash();
    this.incoming?.crash();
  }

  /** Ends the program in order, as a signal does. */
  async end(): Promise<void> {
    const { process } = this;
    if (process === undefined) return;
    process.stop.abort();
    await process.following;
    if (this.process !== process) return;
    await process.node.volumeIfAny?.close().catch(() => {});
    if (this.process !== process) return;
    process.clock.isDead = true;
    this.process = undefined;
  }

  /**
   * Brings what was an origin back to what it has in common with the present one, as `volcast resync` does.
   * @param common Finds the snapshot to go back to, `undefined` when there is none: then nothing stays.
   */
  async resync(common: (volume: Volume) => Snapshot | undefined): Promise<void> {
    assert(this.process === undefined, "nobody else has the volume");
    const { user, options } = this.#newProcess();
    const volume = Volume.open(this.disk!.open(user), options);
    const to = common(volume);
    if (to === undefined) return this.wipe();
    await volume.goBack(to);
    await volume.close();
    user.clock.isDead = true;
  }

  /** The host is replaced: there is nothing on it. */
  wipe(): void {
    this.crash();
    this.disk = undefined;
    this.incoming = undefined;
  }
}
