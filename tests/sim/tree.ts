/**
 * A whole tree of nodes in one process, on simulated time, network and disks: an origin, sites below it
 * and sites below those, in which everything goes wrong that can, by a seed that lets it come again.
 *
 * Real are: the volumes, the applications that answer, the clients that ask, pulls and following, the pin
 * budget. Simulated are what they stand on: see `tree_time.ts`, `tree_net.ts`, `tree_disk.ts`. What must
 * hold stands in `tree_invariants.ts`; it is looked at after every event, as far as anything changed.
 *
 * In the end everything that was broken is mended, and all nodes have to come to the same master within
 * {@linkcode QUIET_MS}, with nothing left over.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { assert, messageOf, VolcastError } from "../../src/core/mod.ts";
import { MASTER, relationOf } from "../../src/volume/mod.ts";
import { Random } from "../helpers/random.ts";
import {
  checkCurrent,
  checkDurable,
  checkHeld,
  checkNothingLeft,
  Confirmations,
  Images,
  Masters,
} from "./tree_invariants.ts";
import { planResync } from "../../src/replication/mod.ts";
import { BAD_NET, GOOD_NET, SimNet } from "./tree_net.ts";
import { EVERY_MS, type Surroundings, TreeNode } from "./tree_node.ts";
import { Publisher } from "./tree_publisher.ts";
import { Reader } from "./tree_reader.ts";
import { SimTime } from "./tree_time.ts";
import { Truth } from "./truth.ts";

/** Longest time until all nodes are at the master once nothing goes wrong any more, ms. */
export const QUIET_MS = 15 * 60_000;
/** Blocks of each volume. */
const CAPACITY = 2048;
const VOLUME_ID = "0123456789abcdef0123456789abcdef";
/** Mean time between two things that go wrong, ms. */
const STEP_MS = 20_000;
const NAMES = ["paris", "rome", "oslo", "lima", "cairo", "delhi", "perth"];

/** See the module. */
export class Tree {
  readonly seed: number;
  readonly time = new SimTime();
  readonly truth = new Truth();
  readonly nodes: TreeNode[] = [];
  /** How often what happened. */
  readonly counts: Record<string, number> = {};
  readonly #random: Random;
  readonly #net: SimNet;
  readonly #publisher: Publisher;
  readonly #masters = new Masters();
  readonly #confirmations = new Confirmations();
  readonly #images = new Images();
  /** Where each site was when looked at last. */
  readonly #current = new Map<string, string>();
  readonly #digest = createHash("sha256");
  #last: string[] = [];
  #error: unknown;
  #isQuiet = false;
  /** Hosts of origins that were lost, before they come back as sites. */
  readonly #wereOrigins = new Set<TreeNode>();

  private constructor(seed: number) {
    this.seed = seed;
    this.#random = new Random(seed);
    const count = (what: string) => this.#count(what);
    this.#net = new SimNet(this.time, this.#random.fork(), {
      count,
      watcher: {
        asks: (from, _, request, body) => {
          const isPosition = request.method === "PUT" && request.url.includes("/sites/") &&
            !request.url.endsWith("/plane");
          if (isPosition) this.#checked(() => this.#confirmations.asked(this.node(from), body!));
        },
        sends: (response, offset, bytes) =>
          this.#checked(() => this.#images.sends(response, offset, bytes)),
      },
    });
    this.#publisher = new Publisher({
      random: this.#random.fork(),
      truth: this.truth,
      count,
      note: (text) => this.#note(`publisher: ${text}`),
      isOnItsWay: (id) => this.#isOnItsWay(id),
    });
    this.#publisher.onError = (error) => this.#error ??= error;
  }

  /** A tree of the seed's shape, in which nothing has happened yet. */
  static async begin(seed: number): Promise<Tree> {
    const tree = new Tree(seed);
    await tree.#guarded(() => tree.#plant());
    return tree;
  }

  /** The digest of all that happened, equal for equal runs. */
  get digest(): string {
    return this.#digest.copy().digest("hex").slice(0, 16);
  }

  node(name: string): TreeNode {
    return this.nodes.find((node) => node.name === name)!;
  }

  get origin(): TreeNode {
    return this.nodes[0];
  }

  get sites(): TreeNode[] {
    return this.nodes.slice(1);
  }

  /** So many things go wrong; then all is mended, and everything has to become well. */
  async run(steps: number): Promise<void> {
    await this.#guarded(async () => {
      void new Reader({
        time: this.time,
        net: this.#net,
        random: this.#random.fork(),
        truth: this.truth,
        nodes: () => this.nodes,
        count: (what) => this.#count(what),
        checked: (what) => void this.#checked(what),
      }).readOn(() => this.#isQuiet);
      this.#net.faults = BAD_NET;
      for (let i = 0; i < steps; i++) {
        await this.#pass(this.#random.below(2 * STEP_MS));
        await this.#goWrong();
      }
      await this.#becomeQuiet();
    });
  }

  /** Nothing goes on from here. */
  close(): void {
    for (const { process } of this.nodes) if (process !== undefined) process.clock.isDead = true;
  }

  async #plant(): Promise<void> {
    const random = this.#random;
    const around: Surroundings = {
      time: this.time,
      names: ["origin", ...NAMES],
      net: this.#net,
      random: random.fork(),
      note: (text) => this.#note(text),
      count: (what) => this.#count(what),
      died: (node) => this.#dead(node),
    };
    const make = (name: string, parents: readonly string[]) => {
      const node = new TreeNode(name, parents, around);
      this.nodes.push(node);
      return node;
    };
    const origin = make("origin", []);
    await origin.create(CAPACITY, VOLUME_ID);
    if (random.oneIn(3)) {
      origin.pinBudgetBytes = random.pick([0, 40_000, 400_000]);
      this.#publisher.hasBudget = true;
    }
    // Three below the origin at most, so that there are grandchildren, and theirs.
    const count = random.between(3, NAMES.length);
    for (const name of NAMES.slice(0, count)) {
      make(name, [random.pick(this.nodes.slice(-3)).name]);
    }
    this.#boot(origin);
    await this.#until("a first release", () => this.origin.volume?.find(MASTER) !== undefined);
    for (const node of this.sites) this.#boot(node);
  }

  #boot(node: TreeNode): void {
    node.boot();
    const process = node.process!;
    this.#note(`${node.name} begins, parents ${node.parents.join(", ")}`);
    if (process.node.volumeIfAny?.role === "origin") this.#publisher.begin(node, process);
  }

  #dead(node: TreeNode): void {
    if (node.process === undefined) return;
    this.#note(`${node.name} dies`);
    if (node === this.origin) this.#publisher.interrupted();
    node.crash();
    if (node === this.origin && !this.#isQuiet && this.#random.oneIn(4)) {
      this.#later(60_000, () => this.#takeOver());
    }
    if (!this.#isQuiet) this.#later(300_000, () => this.#revive(node));
  }

  #revive(node: TreeNode): void {
    if (node.process !== undefined || this.#wereOrigins.has(node)) return;
    this.#boot(node);
    this.#count("revivals");
  }

  /** The origin is lost: the site that is farthest takes over. */
  async #takeOver(): Promise<void> {
    const old = this.origin;
    if (old.process !== undefined) return;
    const place = ({ name }: TreeNode) => this.#masters.placeOf(name);
    const first = this.sites.reduce((a, b) => place(b) > place(a) ? b : a);
    const { process, volume } = first;
    if (process === undefined || volume === undefined || this.#wereOrigins.has(first)) return;
    this.#note(`${first.name} takes over`);
    try {
      await process.node.promote();
    } catch (error) {
      // Its disk is full: somebody has to make room first.
      if (!(error instanceof VolcastError && error.kind === "full")) throw error;
      return this.#later(60_000, () => this.#takeOver());
    }
    if (first.process !== process) return;
    this.nodes.splice(this.nodes.indexOf(first), 1);
    this.nodes.unshift(first);
    this.#wereOrigins.add(old);
    first.pinBudgetBytes = old.pinBudgetBytes;
    const promoted = process.node.volume;
    const { model } = this.truth.of(promoted.find(MASTER)!.id);
    this.#publisher.takeOver(promoted, model);
    this.#publisher.begin(first, process);
    this.#count("takeovers");
    this.#later(600_000, () => this.#comeBack());
  }

  /** Sites that had more than the one that took over are to be resynced: they say so, and nobody else may. */
  #setApart(): void {
    for (const node of this.sites) {
      const here = node.volume?.history;
      if (here === undefined) continue;
      if (relationOf(here, this.origin.volume!.history) !== "diverged") continue;
      node.crash();
      this.#wereOrigins.add(node);
      this.#count("sites that went apart");
    }
  }

  /** Old origins come back, and follow whoever is the origin now. */
  async #comeBack(): Promise<void> {
    const has = this.origin.volume?.snapshots().map(({ id }) => id);
    for (const node of has === undefined ? [] : [...this.#wereOrigins]) {
      this.#wereOrigins.delete(node);
      node.parents = [this.origin.name];
      await node.resync((volume) => planResync(volume, new Set(has)).common);
      // What it goes back from is lost, and was said to be.
      this.#masters.lost(node.name);
      this.#count("resyncs");
      if (node.process === undefined) this.#boot(node);
    }
  }

  #later(most: number, what: () => unknown): void {
    this.time.timer(this.#random.below(most), () => {
      if (!this.#isQuiet) void this.#checked(what);
    });
  }

  async #goWrong(): Promise<void> {
    const random = this.#random;
    const node = random.pick(this.nodes.filter((one) => !this.#wereOrigins.has(one)));
    const other = random.pick(this.nodes);
    switch (random.below(12)) {
      case 0:
        if (node.process !== undefined) this.#count("crashes");
        return this.#dead(node);
      case 1:
      case 2:
        if (node.process !== undefined) node.process.user.callsLeft = random.between(1, 80);
        return;
      case 3:
        return this.#fill(node);
      case 4:
      case 5:
        return this.#part(node, other);
      case 6:
        return this.#stepClock(node);
      case 7:
        return await this.#changeParents(node);
      case 8:
        return random.oneIn(3) ? this.#wipe(node) : await this.#restart(node);
      case 9:
        this.#net.faults = this.#net.faults === GOOD_NET ? BAD_NET : GOOD_NET;
        return;
      default:
        this.#net.heal();
        await checkDurable(node, {
          truth: this.truth,
          publisher: node === this.origin ? this.#publisher : undefined,
          random: random.fork(),
        });
        this.#count("disks looked at");
    }
  }

  /** A host's disks have room for so many blocks only, for a while. */
  #fill(node: TreeNode): void {
    const { process } = node;
    if (process === undefined) return;
    process.user.roomBlocks = this.#random.below(300);
    this.#count("full disks");
    this.#later(300_000, () => {
      process.user.roomBlocks = Infinity;
      if (node.process === process) this.#operate(node);
    });
  }

  /** Somebody looks after a node: one that cannot write any more is started again. */
  #operate(node: TreeNode): void {
    if (node.process?.node.volumeIfAny?.poisoned === undefined) return;
    this.#count("restarts after write errors");
    if (node === this.origin) this.#publisher.interrupted();
    // Its process does not get to sync anything: that is a crash at most.
    node.crash();
    this.#boot(node);
  }

  #part(node: TreeNode, other: TreeNode): void {
    this.#count("partitions");
    this.#net.block(node.name, other.name);
    if (this.#random.oneIn(2)) this.#net.block(other.name, node.name);
    this.#later(400_000, () => this.#net.heal());
  }

  #stepClock({ host }: TreeNode): void {
    const hour = 3_600_000;
    const by = this.#random.pick([100, 5000, hour, 24 * hour, 400 * 24 * hour]);
    host.offsetMs += this.#random.oneIn(2) ? by : -by;
    this.#count("clock steps");
  }

  async #changeParents(node: TreeNode): Promise<void> {
    if (node === this.origin) return;
    const random = this.#random;
    // Anybody but itself, its own children too.
    const others = this.nodes.filter((one) => one !== node).map(({ name }) => name);
    const wanted = Array.from({ length: random.between(1, 3) }, () => random.pick(others));
    node.parents = [...new Set(wanted)];
    this.#count("changed parents");
    await this.#restart(node);
  }

  async #restart(node: TreeNode): Promise<void> {
    if (node.process === undefined) return;
    this.#count("restarts");
    await this.#end(node);
    if (node.process === undefined) this.#boot(node);
  }

  /** Ends a process in order, or as an impatient host does. */
  async #end(node: TreeNode): Promise<void> {
    if (node === this.origin) this.#publisher.interrupted();
    let isDone = false;
    const ending = node.end().then(() => isDone = true);
    const limit = this.time.now + 60_000;
    while (!isDone && this.time.now < limit && await this.#step(limit));
    if (isDone) return await ending.then(() => {});
    this.#count("processes that were killed");
    node.crash();
  }

  #wipe(node: TreeNode): void {
    if (node === this.origin) return;
    this.#count("replaced hosts");
    node.wipe();
    this.#masters.lost(node.name);
    this.#current.delete(node.name);
    this.#boot(node);
  }

  /** Everything is mended; then all has to become well. */
  async #becomeQuiet(): Promise<void> {
    this.#isQuiet = true;
    this.#publisher.isResting = true;
    this.#net.faults = GOOD_NET;
    this.#net.heal();
    this.#note("quiet from here on");
    for (const node of this.nodes) {
      if (node.process !== undefined) {
        node.process.user.roomBlocks = Infinity;
        node.process.user.callsLeft = Infinity;
        this.#operate(node);
      } else if (!this.#wereOrigins.has(node)) this.#boot(node);
    }
    this.#setApart();
    await this.#done("old origins are back", this.#comeBack());
    for (const [index, node] of this.nodes.entries()) {
      const parent = this.nodes[index === 0 ? 0 : (index - 1) >> 1].name;
      const isAsItShould = index === 0 || (node.parents.length === 1 && node.parents[0] === parent);
      if (index > 0) node.parents = [parent];
      if (!isAsItShould) await this.#restart(node);
      if (node.process === undefined) this.#boot(node);
    }
    await this.#until("the publisher rests", () => !this.#publisher.isAtWork);
    const begin = this.time.now;
    await this.#until("all are at the master", () => this.#isConverged());
    this.#note(`all are at ${this.#masters.last} after ${Math.round(this.time.now - begin)} ms`);
    await this.#goOn();
    for (const node of this.nodes) {
      checkNothingLeft(node);
      checkHeld(node.volume!, this.truth);
    }
    this.#checkPositions();
    this.#count("trees that became well");
  }

  /** All goes its usual way again: who was away gets what it lacks, and what was let go of goes. */
  async #goOn(): Promise<void> {
    const { process } = this.origin;
    const away = this.sites.find(({ parents }) => parents[0] !== this.origin.name)!;
    const parent = this.node(away.parents[0]);
    this.#net.block(away.name, parent.name);
    this.#net.block(parent.name, away.name);
    this.#note(`${away.name} is away`);
    const isAt = (node: TreeNode) => node.volume?.current.id === this.#masters.last;
    for (let i = 0; i < 2; i++) {
      await this.#done("a release", this.#publisher.publishNow(process!));
      await this.#until("the parent is at the master", () => isAt(parent));
      // It tells with its next pull what those below it stand on.
      await this.#pass(2 * EVERY_MS);
      await this.#done("deletions", this.#publisher.deleteAll(process!));
    }
    this.#net.heal();
    const fulls = away.counts.full;
    await this.#until("all are at the master again", () => this.#isConverged());
    assertEquals(away.counts.full, fulls, `9: full images of ${away.name}, which its parent knew`);
    await this.#pass(3 * EVERY_MS);
  }

  #isConverged(): boolean {
    const master = this.origin.volume?.find(MASTER)?.id;
    return this.sites.every(({ volume }) => volume?.current.id === master);
  }

  /** Each parent knows where its sites stand. */
  #checkPositions(): void {
    for (const node of this.sites) {
      const parent = this.node(node.parents[0]).volume!;
      assertEquals(
        parent.local.sites[node.name]?.snapshot,
        node.volume!.current.id,
        `what ${node.parents[0]} knows of ${node.name}`,
      );
    }
  }

  /** Lets time go by. */
  async #pass(ms: number): Promise<void> {
    const limit = this.time.now + ms;
    while (await this.#step(limit));
  }

  /** Lets time go by until something is done. */
  async #done(what: string, work: Promise<void>): Promise<void> {
    let isDone = false;
    void this.#checked(() => work.then(() => isDone = true));
    await this.#until(what, () => isDone);
  }

  async #until(what: string, isSo: () => boolean): Promise<void> {
    const limit = this.time.now + QUIET_MS;
    while (!isSo()) {
      const went = await this.#step(limit);
      assert(went, `Not within ${QUIET_MS / 60_000} minutes: ${what}\n${this.#state()}`);
    }
  }

  /** One event, and a look at what it changed. */
  async #step(limit: number): Promise<boolean> {
    const went = await this.time.step(limit);
    if (this.#error !== undefined) throw this.#error;
    const master = this.origin.volume?.pointers().find(({ name }) => name === MASTER)?.snapshot;
    if (master !== undefined) this.#masters.seen(master);
    for (const node of this.nodes) this.#look(node);
    return went;
  }

  #look(node: TreeNode): void {
    const { volume } = node;
    if (volume === undefined) return;
    this.#confirmations.checkNoted(node, volume);
    if (volume.role === "origin") return;
    const { id } = volume.current;
    if (this.#current.get(node.name) === id) return;
    this.#current.set(node.name, id);
    this.#note(`${node.name} is at ${id}`);
    checkCurrent(node, volume, this.truth);
    this.#masters.moved(node.name, id);
    this.#count("roots that became current");
  }

  #isOnItsWay(id: string): boolean {
    return this.sites.some(({ process, volume }) => {
      const transfer = process?.node.transfer;
      return transfer !== undefined && (transfer.top === id || volume?.current.id === id);
    });
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    this.#note(`(${what})`);
  }

  #note(text: string): void {
    const line = `${(this.time.now / 1000).toFixed(3)} ${text}`;
    this.#digest.update(line);
    this.#last.push(line);
    if (this.#last.length > 4000) this.#last = this.#last.slice(-2000);
  }

  async #checked(what: () => unknown): Promise<void> {
    try {
      await what();
    } catch (error) {
      this.#error ??= error;
    }
  }

  #state(): string {
    return this.nodes.map(({ name, parents, volume, process }) =>
      `${name} <- ${parents.join(", ")}: ${volume?.current.id ?? "nothing"} ` +
      `${process?.node.upstream?.error ?? ""} ${volume?.poisoned?.message ?? ""}`
    ).join("\n");
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      throw new Error(
        `With seed ${this.seed}: ${messageOf(error)}\n${this.#last.slice(-60).join("\n")}`,
        { cause: error },
      );
    }
  }
}
