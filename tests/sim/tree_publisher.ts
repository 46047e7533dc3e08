/**
 * Whoever publishes at the origin of a simulated tree, and knows what was acknowledged: whatever becomes of
 * the origin's process, that is there afterwards.
 *
 * @module
 */

import { assert, VolcastError } from "../../src/core/mod.ts";
import { MASTER, type Snapshot, type Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { History } from "../helpers/history.ts";
import type { Random } from "../helpers/random.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import { FileModel } from "../models/file_model.ts";
import type { Process, TreeNode } from "./tree_node.ts";
import type { Truth } from "./truth.ts";

/** What a publisher is given. */
export interface PublisherOptions {
  readonly random: Random;
  readonly truth: Truth;
  readonly count: (what: string) => void;
  readonly note: (text: string) => void;
  /** Whether an image is on its way of which this is the top or the base. */
  readonly isOnItsWay: (id: string) => boolean;
}

/** See the module. */
export class Publisher {
  readonly #options: PublisherOptions;
  /** What the active file system may be found as after a crash, oldest first. */
  #models: FileModel[] = [new FileModel()];
  /** Ids of snapshots that were acknowledged, and that nobody has asked to go. */
  readonly #acknowledged = new Set<string>();
  /** Ids of snapshots that were asked to go, or to become shadows. */
  readonly #doomed = new Set<string>();
  /** What `master` may be: what was acknowledged last, and what was asked for since. */
  #masters: (string | undefined)[] = [undefined];
  /** Name of a snapshot that was asked for and not acknowledged. */
  #wanted: string | undefined;
  #lives = 0;
  #current: History | undefined;
  #isAtWork = false;
  /** No new work from now on. */
  isResting = false;
  /** Whether bases become shadows by themselves. */
  hasBudget = false;

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /** Whether it waits for something to be done. */
  get isAtWork(): boolean {
    return this.#isAtWork;
  }

  /** Another node is the origin: what it has is what there is. What only the old one had is lost. */
  takeOver(volume: Volume, model: FileModel): void {
    this.#models = [model.clone()];
    this.#acknowledged.clear();
    this.#doomed.clear();
    for (const { id } of volume.snapshots()) this.#acknowledged.add(id);
    this.#masters = [volume.pointers().find(({ name }) => name === MASTER)?.snapshot];
    this.#wanted = undefined;
  }

  /** I3: all that was acknowledged is there, and what was not is there whole or not at all. */
  checkFound(volume: Volume): void {
    const shown = describe(volume.fileSystem(volume.current)).join("\n");
    const model = this.#models.findLast((one) => one.describe().join("\n") === shown);
    assert(model !== undefined, `I3: the active file system is as it never was to be`);
    const there = new Set(volume.snapshots().map(({ id }) => id));
    for (const id of this.#acknowledged) {
      assert(
        there.has(id) || this.hasBudget,
        `I3: the snapshot ${id} was acknowledged and is not there`,
      );
    }
    for (const { id, name } of volume.snapshots()) {
      const isKnown = this.#acknowledged.has(id) || this.#doomed.has(id) || name === this.#wanted;
      assert(isKnown, `I3: nobody took the snapshot '${name}' (${id})`);
    }
    const master = volume.pointers().find(({ name }) => name === MASTER)?.snapshot;
    const isWanted = master !== undefined && volume.resolve(master).name === this.#wanted;
    assert(
      isWanted || this.#masters.includes(master),
      `I3: master is ${master}, acknowledged was ${this.#masters[0]}`,
    );
  }

  /** Works at a process until that ends. */
  begin(at: TreeNode, process: Process): void {
    const { volume } = process.node;
    this.checkFound(volume);
    this.#learn(volume);
    const history = this.#history(at, volume);
    this.#current = history;
    this.#work(process, history).catch((error) => {
      if (!process.clock.isDead) failed(error);
    });
  }

  /** Publishes once, at rest. The caller lets time go by. */
  async publishNow(process: Process): Promise<void> {
    await this.publish(process, this.#current!);
    process.node.changed();
  }

  /** Deletes whatever may go, at rest. */
  async deleteAll({ node }: Process): Promise<void> {
    for (const snapshot of node.volume.snapshots()) await this.#deleteOne(node.volume, snapshot);
    node.changed();
  }

  /** Told of an error that none should have been. */
  onError: (error: unknown) => void = failed;

  #history(at: TreeNode, volume: Volume): History {
    const { random } = this.#options;
    const shown = describe(volume.fileSystem(volume.current)).join("\n");
    const model = this.#models.findLast((one) => one.describe().join("\n") === shown)!;
    this.#models = [model.clone()];
    // The history opens nothing by itself.
    const store = at.disk as unknown as MemoryStore;
    return History.resume({ store, volume, model }, random.fork(), {
      writeBytes: 30_000,
      prefix: `${at.name}-${++this.#lives}-`,
    });
  }

  /** Takes note of what was made and could not be acknowledged. */
  #learn(volume: Volume): void {
    const { truth } = this.#options;
    for (const snapshot of volume.snapshots()) {
      if (!truth.knows(snapshot.id)) {
        const shown = describe(volume.fileSystem(snapshot)).join("\n");
        const model = this.#models.findLast((one) => one.describe().join("\n") === shown);
        assert(model !== undefined, `I3: '${snapshot.name}' shows what never was`);
        truth.learn(volume, snapshot, model);
      }
      if (!this.#doomed.has(snapshot.id)) this.#acknowledged.add(snapshot.id);
    }
    const there = new Set(volume.snapshots().map(({ id }) => id));
    for (const id of this.#acknowledged) if (!there.has(id)) this.#acknowledged.delete(id);
    const master = volume.pointers().find(({ name }) => name === MASTER)?.snapshot;
    this.#masters = [master];
    this.#wanted = undefined;
  }

  async #work(process: Process, history: History): Promise<void> {
    const { clock, node } = process;
    const { random } = this.#options;
    for (;;) {
      await new Promise<void>((resolve) => void clock.timer(random.below(30_000), resolve));
      if (this.isResting || process.stop.signal.aborted) continue;
      this.#isAtWork = true;
      try {
        await this.#act(process, history);
        node.changed();
      } catch (error) {
        // What a dead process finds on its disk says nothing.
        if (!clock.isDead && node.volume.poisoned === undefined) this.onError(error);
        return;
      } finally {
        if (!clock.isDead) this.#isAtWork = false;
      }
    }
  }

  /** The process that worked is no more. */
  interrupted(): void {
    this.#isAtWork = false;
  }

  async #act(process: Process, history: History): Promise<void> {
    const { random } = this.#options;
    const { volume } = process.node;
    const kind = random.below(20);
    if (kind < 9) await this.publish(process, history);
    else if (kind < 11) await this.#snapshot(history, []);
    else if (kind < 13) await this.#change(history);
    else if (kind < 17) await this.#delete(volume);
    else if (kind < 18) await this.#shadow(volume);
    else await this.#moveBack(process);
  }

  async #change(history: History): Promise<void> {
    await history.change(this.#options.random.between(1, 8));
    this.#models.push(history.model.clone());
  }

  /** Something new, as `master`. */
  async publish(process: Process, history: History): Promise<void> {
    await this.#change(history);
    const id = await this.#snapshot(history, [MASTER]);
    if (id === undefined) return;
    this.#options.count("publishes");
    process.node.announceMaster();
  }

  async #snapshot(history: History, pointers: string[]): Promise<string | undefined> {
    const { truth, random, count, note } = this.#options;
    const name = `n${random.word()}`;
    this.#wanted = name;
    const { volume } = history;
    let snapshot: Snapshot;
    try {
      snapshot = await volume.exclusive((writer) => writer.takeSnapshot(name, { pointers }));
    } catch (error) {
      if (!isFull(error) || volume.poisoned !== undefined) throw error;
      count("full volumes");
      await this.#makeRoom(history);
      return undefined;
    }
    this.#wanted = undefined;
    this.#models = [history.model.clone()];
    this.#acknowledged.add(snapshot.id);
    if (pointers.length > 0) this.#masters = [snapshot.id];
    truth.learn(volume, volume.resolve(snapshot.id), history.model);
    count("snapshots");
    note(`took ${snapshot.id}${pointers.length > 0 ? ", master" : ""}`);
    return snapshot.id;
  }

  async #delete(volume: Volume): Promise<void> {
    const { random } = this.#options;
    const all = volume.snapshots();
    if (all.length > 2) await this.#deleteOne(volume, random.pick(all));
  }

  async #deleteOne(volume: Volume, { id }: Snapshot): Promise<void> {
    const { count, note, isOnItsWay } = this.#options;
    const isNeeded = () =>
      Object.values(volume.local.sites).some((site) =>
        site.snapshot === id || site.needs.includes(id)
      ) || volume.pointers().some(({ snapshot }) => snapshot === id);
    let wasNeeded = false;
    this.#acknowledged.delete(id);
    this.#doomed.add(id);
    try {
      await volume.exclusive((writer) => {
        wasNeeded = isNeeded();
        return writer.deleteSnapshot(id);
      });
      assert(!wasNeeded, `the snapshot ${id} was deleted although it was needed`);
      count("deleted snapshots");
      if (isOnItsWay(id)) count("deleted in the midst of an image");
      note(`deleted ${id}`);
    } catch (error) {
      if (!isOf(error, ["held"])) throw error;
      assert(wasNeeded, `the snapshot ${id} is held by nobody`);
      this.#doomed.delete(id);
      this.#acknowledged.add(id);
      count("deletions refused");
    }
  }

  async #shadow(volume: Volume): Promise<void> {
    const { random, count, note } = this.#options;
    const all = volume.snapshots();
    if (all.length < 3) return;
    const { id } = random.pick(all);
    this.#acknowledged.delete(id);
    this.#doomed.add(id);
    try {
      await volume.exclusive((writer) => writer.shadowSnapshot(id));
      count("shadows");
      note(`made ${id} a shadow`);
    } catch (error) {
      if (!isOf(error, ["held", "full"]) || volume.poisoned !== undefined) throw error;
      this.#doomed.delete(id);
      this.#acknowledged.add(id);
    }
  }

  async #moveBack({ node }: Process): Promise<void> {
    const { random, count, note } = this.#options;
    const { volume } = node;
    const all = volume.snapshots();
    if (all.length < 2) return;
    const { id } = random.pick(all.slice(-5));
    if (this.#masters.at(-1) === id) return;
    this.#masters.push(id);
    try {
      await volume.exclusive((writer) => writer.setPointer(MASTER, id));
    } catch (error) {
      // The budget may have made a shadow of it meanwhile.
      if (!isOf(error, ["full", "usage"]) || volume.poisoned !== undefined) throw error;
      this.#masters.pop();
      return;
    }
    this.#masters = [id];
    node.announceMaster();
    count("masters moved");
    note(`master moved to ${id}`);
  }

  /** The volume is full: all that may go goes. */
  async #makeRoom(history: History): Promise<void> {
    const { volume, model } = history;
    for (const snapshot of volume.snapshots()) await this.#deleteOne(volume, snapshot);
    await volume.exclusive(({ fs }) => {
      for (const { parent, name } of model.places().reverse()) {
        fs.remove(parent.ino, name);
        model.remove(parent, name);
      }
    });
    this.#models.push(model.clone());
  }
}

function failed(error: unknown): void {
  throw error;
}

function isOf(error: unknown, kinds: readonly string[]): boolean {
  return error instanceof VolcastError && kinds.includes(error.kind);
}

function isFull(error: unknown): boolean {
  return isOf(error, ["full"]);
}
