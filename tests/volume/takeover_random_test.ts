// Random lives of several nodes: publishing, pulling, local changes, takeovers, resyncs, crashes. After
// each step every node shows what the models say, is clean, and has the blocks that all others have.

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { type History as Lineage, relationOf, Volume } from "../../src/volume/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, type Random, seeds } from "../helpers/random.ts";
import { advance, assertSame, replicaOf } from "../helpers/replicas.ts";
import { test } from "../helpers/strict.ts";
import type { FileModel } from "../models/file_model.ts";

const OPEN = { localWrites: true, cacheBytes: 2 ** 18 } as const;

/** What a snapshot must show wherever it is. */
interface Known {
  readonly all: string[];
  readonly model: FileModel;
}

class TestNode {
  readonly name: string;
  readonly store: MemoryStore;
  #volume: Volume;
  /** Whoever writes it: an origin's, or that of local changes. */
  writes: History | undefined;

  constructor(name: string, store: MemoryStore, volume: Volume, writes?: History) {
    this.name = name;
    this.store = store;
    this.#volume = volume;
    this.writes = writes;
  }

  get volume(): Volume {
    return this.writes?.volume ?? this.#volume;
  }

  /** The volume without its writer, in the same handle or a new one. */
  settle(reopen: boolean): void {
    let { volume } = this;
    if (reopen) {
      volume.abandon();
      volume = Volume.open(this.store, { ...OPEN, now: tickingClock() });
    }
    this.#volume = volume;
    this.writes = undefined;
  }
}

class World {
  readonly nodes: TestNode[] = [];
  readonly known = new Map<string, Known>();
  readonly random: Random;
  readonly counts: Record<string, number> = {};
  #prefixes = 0;

  private constructor(random: Random) {
    this.random = random;
  }

  static async begin(random: Random): Promise<World> {
    const world = new World(random);
    const store = new MemoryStore(1000);
    const writes = await History.begin(store, random.fork(), { volume: OPEN, writeBytes: 20_000 });
    const origin = new TestNode("n0", store, writes.volume, writes);
    world.nodes.push(origin);
    await world.publish(origin);
    for (const name of ["n1", "n2", "n3"]) {
      const replica = await replicaOf(origin.volume, "master");
      const node = new TestNode(name, replica.store, replica.volume);
      node.settle(true);
      world.nodes.push(node);
    }
    return world;
  }

  async publish(node: TestNode): Promise<void> {
    const { writes } = node;
    if (writes === undefined) return;
    await writes.change(this.random.between(1, 8));
    const pointers = node.volume.role === "origin" ? { pointers: ["master"] } : {};
    const kept = await writes.snapshot(pointers);
    if (kept !== undefined) {
      this.known.set(kept.id, { all: kept.all, model: writes.committed.clone() });
    }
    const { volume } = node;
    // Old ones go, or it is soon full. What sites stand on is not told here: they may find it gone.
    const own = volume.role === "origin"
      ? volume.snapshots().filter(({ id }) => id !== volume.find("master")?.id)
      : volume.localSnapshots();
    if (own.length > 4) {
      await volume.exclusive((writer) => writer.deleteSnapshot(own[0].id));
      writes.committed = writes.model.clone();
    }
  }

  /** A pull: of what another node has on top of what this one has. */
  async pull(node: TestNode): Promise<void> {
    const source = this.random.pick(this.nodes.filter((other) => other !== node));
    const { volume } = node;
    const top = source.volume.find("master");
    const base = source.volume.snapshots().find(({ id }) => id === volume.current.id);
    if (volume.role === "origin" || top === undefined || top.id === volume.current.id) return;
    if (base === undefined) return this.checkRelation(node, source);
    await advance(volume, source.volume, top.name);
    // It has no local changes any more, and may begin new ones in the same handle.
    assertEquals(volume.superblock.branch, undefined);
    node.settle(this.random.oneIn(2));
    this.count("pull");
  }

  /** What is not known as a snapshot is of another line, or deleted: never mistaken for being behind. */
  checkRelation(node: TestNode, source: TestNode): void {
    const relation = relationOf(node.volume.history, source.volume.history);
    if (source.volume.history.epoch === 1 && node.volume.history.epoch === 1) {
      assertEquals(relation, "together");
    }
    this.count(relation);
  }

  beginChanges(node: TestNode): void {
    const { volume } = node;
    if (node.writes !== undefined) return;
    const { model } = this.known.get(volume.current.id)!;
    const prefix = `${node.name}-${++this.#prefixes}-`;
    node.writes = History.resume({ store: node.store, volume, model }, this.random.fork(), {
      volume: OPEN,
      writeBytes: 20_000,
      prefix,
    });
  }

  async promote(node: TestNode): Promise<void> {
    if (node.volume.role === "origin" || node.volume.root.epoch > 5) return;
    this.beginChanges(node);
    const before = node.volume.history;
    await node.volume.promote();
    node.writes!.committed = node.writes!.model.clone();
    const { epoch, takeovers } = node.volume.history;
    assertEquals([epoch, takeovers.length], [before.epoch + 1, before.epoch]);
    this.count("promote");
  }

  /** Back to the newest snapshot in common with another origin, and forward. */
  async resync(node: TestNode): Promise<void> {
    const origins = this.nodes.filter((one) => one.volume.role === "origin" && one !== node);
    if (origins.length === 0) return;
    const source = this.random.pick(origins);
    const theirs = new Set(source.volume.snapshots().map(({ id }) => id));
    const common = node.volume.snapshots().findLast(({ id }) => theirs.has(id));
    if (common === undefined) return this.count("nothing in common");
    await node.volume.goBack(common);
    assertEquals(node.volume.current.id, common.id);
    node.settle(this.random.oneIn(2));
    const master = source.volume.find("master")!;
    if (master.id !== common.id) await advance(node.volume, source.volume, master.name);
    this.count("resync");
  }

  async step(): Promise<void> {
    const { random } = this;
    const node = random.pick(this.nodes);
    const kind = random.below(24);
    if (kind < 8) await this.publish(node);
    else if (kind < 15) await this.pull(node);
    else if (kind < 17) this.beginChanges(node);
    else if (kind < 18) await this.promote(node);
    else if (kind < 20) await this.resync(node);
    else if (kind < 22) {
      await node.writes?.change(random.between(1, 6));
      if (random.oneIn(2)) await node.writes?.checkpoint();
    } else if (node.writes === undefined) node.settle(true);
    else if (random.oneIn(2)) node.writes.crash();
    else await node.writes.reopen();
  }

  check(): void {
    for (const node of this.nodes) {
      const { volume, writes } = node;
      assertClean(volume);
      for (const snapshot of volume.keptSnapshots()) {
        const shown = describe(volume.fileSystem(snapshot), { all: true });
        assertEquals(shown, this.known.get(snapshot.id)!.all, `${node.name}: ${snapshot.name}`);
      }
      writes?.checkCommitted();
    }
    for (const [i, one] of this.nodes.entries()) {
      for (const other of this.nodes.slice(0, i)) {
        const both = one.volume.snapshots().filter(({ id }) =>
          other.volume.snapshots().some((snapshot) => snapshot.id === id)
        );
        for (const { id } of both.slice(-2)) assertSame(one, other, id);
      }
    }
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}

test("nodes that publish, pull, change, take over and come back never lose or mix anything", async () => {
  const counts: Record<string, number> = {};
  await forSeeds(seeds(1, Number(Deno.env.get("VOLCAST_SEEDS") ?? 6)), async (random) => {
    const world = await World.begin(random);
    for (let i = 0; i < 80; i++) {
      try {
        await world.step();
      } catch (error) {
        // A volume may be too full for a branch or a takeover; it says so and is what it was.
        if (!(error instanceof VolcastError) || error.kind !== "full") throw error;
        world.count("full");
      }
      world.check();
    }
    for (const [what, count] of Object.entries(world.counts)) {
      counts[what] = (counts[what] ?? 0) + count;
    }
    for (const { volume } of world.nodes) volume.abandon();
  });
  // Each of these has to have happened, or little was tested.
  for (const what of ["pull", "promote", "resync", "diverged"]) {
    assert(counts[what] >= 5, `${what}: ${JSON.stringify(counts)}`);
  }
});

test("relationOf says what the histories themselves say, whatever happened", async () => {
  const counts = new Map<string, number>();
  await forSeeds(seeds(1, 50), (random) => {
    // A history is the list of its consistency points; those of two nodes are equal where they are one.
    interface Line {
      points: number[];
      history: Lineage;
    }
    let point = 0;
    const lines: Line[] = [{ points: [++point], history: { epoch: 1, cp: 1, takeovers: [] } }];
    const writers = new Set([lines[0]]);
    const commit = (line: Line) => {
      line.points.push(++point);
      line.history = { ...line.history, cp: line.points.length };
    };
    for (let i = 0; i < 60; i++) {
      const line = random.pick(lines);
      switch (random.below(4)) {
        case 0:
          if (lines.length < 12) lines.push({ points: [...line.points], history: line.history });
          break;
        case 1: {
          if (writers.has(line) || line.history.epoch > 4) break;
          writers.add(line);
          const { epoch, cp, takeovers } = line.history;
          const mark = String(point).padStart(16, "0");
          line.history = { epoch: epoch + 1, cp, takeovers: [...takeovers, { cp: cp + 1, mark }] };
          commit(line);
          break;
        }
        default:
          if (writers.has(line)) commit(line);
      }
    }
    for (const mine of lines) {
      for (const theirs of lines) {
        const shared = Math.min(mine.points.length, theirs.points.length);
        const isPrefix = mine.points.slice(0, shared).every((one, j) => one === theirs.points[j]);
        const epochs = mine.history.epoch - theirs.history.epoch;
        const expected = !isPrefix
          ? "diverged"
          : epochs === 0
          ? "together"
          : epochs < 0
          ? "older"
          : "newer";
        assertEquals(relationOf(mine.history, theirs.history), expected);
        counts.set(expected, (counts.get(expected) ?? 0) + 1);
      }
    }
  });
  assertEquals([...counts.keys()].sort(), ["diverged", "newer", "older", "together"]);
});
