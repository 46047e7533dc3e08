/**
 * A random life of a volume, followed by a model: files are made, written, cut, moved and removed;
 * consistency points and snapshots are made; now and then the volume is closed, or lost as in a crash.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type Run, VolcastError } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  fsck,
  type LiveFileSystem,
  Volume,
  type VolumeOptions,
  type Writer,
} from "../../src/volume/mod.ts";
import { FileModel, type ModelNode, newNode } from "../models/file_model.ts";
import { describe } from "./describe.ts";
import { Random } from "./random.ts";

/** A snapshot with what it must show for as long as it exists. */
export interface KeptSnapshot {
  readonly name: string;
  readonly id: string;
  readonly model: string[];
  /** With times and versions, as first read. */
  readonly all: string[];
}

/** How a {@linkcode History} behaves. */
export interface HistoryOptions {
  /** Most bytes of one write; 60,000 by default. */
  readonly writeBytes?: number;
  /** Whether sparse files get this far: 40 MiB need three levels of pointers. */
  readonly sparse?: boolean;
  readonly volume?: VolumeOptions;
  /** What names of snapshots begin with; `s` by default. */
  readonly prefix?: string;
}

/** A clock that ticks a second a look, so that equal histories have equal times. */
export function tickingClock(): () => bigint {
  let now = 1_700_000_000_000_000_000n;
  return () => now += 1_000_000_000n;
}

/** See the module. */
export class History {
  readonly store: MemoryStore;
  volume: Volume;
  model = new FileModel();
  /** The model as of the last consistency point. */
  committed = new FileModel();
  kept: KeptSnapshot[] = [];
  /** Operations refused for want of space. */
  fullCount = 0;
  readonly random: Random;
  readonly #options: HistoryOptions;
  #names = 0;

  private constructor(store: MemoryStore, volume: Volume, random: Random, options: HistoryOptions) {
    this.store = store;
    this.volume = volume;
    this.random = random;
    this.#options = options;
  }

  /** Begins with a new volume. */
  static async begin(
    store: MemoryStore,
    random: Random,
    options: HistoryOptions = {},
  ): Promise<History> {
    const volume = await Volume.create(store, { now: tickingClock(), ...options.volume });
    return new History(store, volume, random, options);
  }

  /** Goes on with a volume that is there: with a replica that was promoted, or its local changes. */
  static resume(
    at: { store: MemoryStore; volume: Volume; model: FileModel },
    random: Random,
    options: HistoryOptions = {},
  ): History {
    const history = new History(at.store, at.volume, random, options);
    history.model = at.model.clone();
    history.committed = at.model.clone();
    return history;
  }

  /** Some random changes of files in one piece. */
  async change(count: number): Promise<void> {
    await this.volume.exclusive(({ fs }) => {
      for (let i = 0; i < count; i++) this.#changeOnce(fs);
    });
  }

  async checkpoint(): Promise<void> {
    await this.volume.checkpoint();
    this.committed = this.model.clone();
  }

  /** Takes a snapshot; `undefined` when the volume is full. */
  async snapshot(
    options: Parameters<Writer["takeSnapshot"]>[1] = {},
  ): Promise<KeptSnapshot | undefined> {
    const name = `${this.#options.prefix ?? "s"}${++this.#names}`;
    try {
      const { id } = await this.volume.exclusive((writer) => writer.takeSnapshot(name, options));
      this.committed = this.model.clone();
      const view = this.volume.view(name);
      const all = describe(view.fs, { all: true });
      view.release();
      const kept = { name, id, model: this.model.describe(), all };
      this.kept.push(kept);
      return kept;
    } catch (error) {
      this.#expectFull(error);
    }
  }

  /** Deletes a snapshot. It always can, full or not. */
  async deleteSnapshot(kept: KeptSnapshot): Promise<void> {
    await this.volume.exclusive((writer) => writer.deleteSnapshot(kept.id));
    this.committed = this.model.clone();
    this.kept = this.kept.filter(({ id }) => id !== kept.id);
  }

  /** Closes the volume and opens it again. */
  async reopen(): Promise<void> {
    await this.volume.close();
    this.volume = Volume.open(this.store, { now: tickingClock(), ...this.#options.volume });
    this.committed = this.model.clone();
  }

  /** Loses what is not in a consistency point. Content written ahead of one is in the store already. */
  crash(): void {
    this.volume.abandon();
    this.volume = Volume.open(this.store, { now: tickingClock(), ...this.#options.volume });
    this.model = this.committed.clone();
  }

  /** Writes a file over and over, so that the allocator comes around. */
  async churn(count: number, byteCount: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.volume.exclusive(({ fs }) => {
        try {
          const { root } = this.model;
          const present = root.children.get("churn");
          // Something else may have been moved there.
          if (present !== undefined && present.type !== "file") return;
          const node = present ?? this.#create(fs, root, "file", "churn");
          const bytes = this.random.bytes(byteCount);
          fs.write(node.ino, 0, bytes);
          this.model.write(node, 0, bytes);
        } catch (error) {
          this.#expectFull(error);
        }
      });
      await this.checkpoint();
    }
  }

  /** See {@linkcode skipBlocks}. */
  async skip(blockCount: number): Promise<void> {
    await skipBlocks(this.volume, blockCount);
  }

  /** A random step of any kind. */
  async step(): Promise<void> {
    const { random } = this;
    switch (random.below(12)) {
      case 0:
        return await this.checkpoint();
      case 1:
      case 2:
        await this.snapshot();
        return;
      case 3:
        if (this.kept.length > 2) await this.deleteSnapshot(random.pick(this.kept));
        return;
      case 4:
        return random.oneIn(2) ? await this.reopen() : this.crash();
      default:
        await this.change(random.between(1, 12));
    }
  }

  /** Compares everything: live, last consistency point, every snapshot, and fsck. */
  check(): void {
    this.checkCommitted();
    for (const { name, model, all } of this.kept) {
      const view = this.volume.view(name);
      assertEquals(describe(view.fs), model, `snapshot ${name}`);
      assertEquals(describe(view.fs, { all: true }), all, `snapshot ${name}`);
      view.release();
    }
    assertEquals(
      this.volume.snapshots().map(({ id }) => id),
      this.kept.map(({ id }) => id),
    );
    assertClean(this.volume);
  }

  /** Compares the last consistency point. */
  checkCommitted(): void {
    const view = this.volume.view();
    assertEquals(describe(view.fs), this.committed.describe(), "the last consistency point");
    view.release();
  }

  /** Compares what is being written. */
  async checkLive(): Promise<void> {
    await this.volume.exclusive(({ fs }) => {
      assertEquals(describe(fs), this.model.describe(), "the active file system");
    });
  }

  async close(): Promise<void> {
    await this.volume.close();
  }

  #changeOnce(fs: LiveFileSystem): void {
    const before = this.model;
    try {
      this.#tryChange(fs);
    } catch (error) {
      this.#expectFull(error);
      assert(this.model === before);
    }
  }

  #expectFull(error: unknown): void {
    if (!(error instanceof VolcastError) || error.kind !== "full") throw error;
    assert(this.volume.poisoned === undefined, `poisoned: ${this.volume.poisoned?.message}`);
    this.fullCount++;
  }

  #tryChange(fs: LiveFileSystem): void {
    const { random, model } = this;
    const places = model.places();
    const files = places.filter(({ node }) => node.type === "file");
    const parent = random.pick(model.directories());
    const kind = random.below(16);
    if (kind <= 2 || files.length === 0) {
      const node = this.#create(fs, parent, "file");
      if (!random.oneIn(4)) this.#write(fs, node);
    } else if (kind <= 7) this.#write(fs, random.pick(files).node);
    else if (kind === 8) this.#truncate(fs, random.pick(files).node);
    else if (kind === 9) this.#create(fs, parent, random.oneIn(2) ? "directory" : "symlink");
    else if (kind === 10) {
      const { node } = random.pick(files);
      const name = this.#newName(parent);
      fs.link(parent.ino, name, node.ino);
      model.link(parent, name, node);
    } else if (kind === 11) this.#rename(fs, random.pick(places), parent);
    else if (kind === 12) this.#attributes(fs, random.pick(places).node);
    else if (kind === 13) this.#rewriteEqual(fs, random.pick(files).node);
    else this.#remove(fs, random.pick(places));
  }

  #create(
    fs: LiveFileSystem,
    parent: ModelNode,
    type: ModelNode["type"],
    name = this.#newName(parent),
  ): ModelNode {
    const permissions = this.random.below(0o10000);
    const target = type === "symlink" ? "t".repeat(this.random.pick([1, 20, 128, 129, 4095])) : "";
    const ino = fs.create(parent.ino, name, { type, permissions, target });
    const node = newNode(ino, type, permissions);
    node.target = target;
    if (type === "symlink") node.size = target.length;
    this.model.create(parent, name, node);
    return node;
  }

  #newName(parent: ModelNode): string {
    for (;;) {
      const length = this.random.oneIn(20) ? this.random.between(200, 255) : 1;
      const name = `${this.random.below(10_000)}`.padEnd(length, "n");
      if (!parent.children.has(name)) return name;
    }
  }

  #write(fs: LiveFileSystem, node: ModelNode): void {
    const { random } = this;
    const size = random.pick([random.between(0, 200), random.between(0, 9000), this.#most()]);
    let offset = random.pick([0, node.size, random.below(node.size + 5000)]);
    if (random.oneIn(3)) offset -= offset % 4096;
    if (this.#options.sparse && random.oneIn(12)) offset = random.below(40 * 2 ** 20);
    const bytes = random.oneIn(8) ? new Uint8Array(size) : random.bytes(size);
    fs.write(node.ino, offset, bytes);
    this.model.write(node, offset, bytes);
  }

  #most(): number {
    return this.random.between(0, this.#options.writeBytes ?? 60_000);
  }

  #truncate(fs: LiveFileSystem, node: ModelNode): void {
    const { random } = this;
    const size = random.pick([0, random.below(200), random.below(node.size + 1), node.size + 5000]);
    fs.truncate(node.ino, size);
    this.model.truncate(node, size);
  }

  #rename(
    fs: LiveFileSystem,
    from: { parent: ModelNode; name: string; node: ModelNode },
    parent: ModelNode,
  ): void {
    const replaces = this.random.oneIn(2) && parent.children.size > 0;
    const name = replaces ? this.random.pick([...parent.children.keys()]) : this.#newName(parent);
    const present = parent.children.get(name);
    const into = (node: ModelNode): boolean =>
      node === parent || [...node.children.values()].some(into);
    const allowed = present === from.node || (
      !(from.node.type === "directory" && into(from.node)) &&
      (present === undefined ||
        ((present.type === "directory") === (from.node.type === "directory") &&
          present.children.size === 0))
    );
    try {
      fs.rename(
        { parent: from.parent.ino, name: from.name },
        { parent: parent.ino, name },
      );
    } catch (error) {
      if (error instanceof VolcastError && error.kind === "full") throw error;
      assert(!allowed && error instanceof VolcastError, String(error));
      return;
    }
    assert(allowed, `rename of ${from.name} to ${name} was not refused`);
    this.model.rename(from, { parent, name });
  }

  #attributes(fs: LiveFileSystem, node: ModelNode): void {
    const { random } = this;
    if (random.oneIn(2)) {
      const change = { permissions: random.below(0o10000), uid: random.below(100), dos: 2 };
      fs.setAttributes(node.ino, change);
      Object.assign(node, change);
      return;
    }
    const xattrs = new Map<string, Uint8Array>();
    for (let i = random.below(3); i > 0; i--) {
      xattrs.set(`user.${random.below(9)}`, random.bytes(random.pick([0, 50, 3000, 9000])));
    }
    fs.setExtendedAttributes(node.ino, { xattrs });
    node.xattrs = xattrs;
  }

  /** Writing what is there already must change nothing (a block keeps its place). */
  #rewriteEqual(fs: LiveFileSystem, node: ModelNode): void {
    const size = Math.min(node.size, 100_000);
    const bytes = new Uint8Array(size);
    fs.read(node.ino, 0, bytes);
    const { tree } = fs.open(node.ino);
    const before = Array.from({ length: Math.ceil(size / 4096) }, (_, i) => tree.pointer(i).vbn);
    fs.write(node.ino, 0, bytes);
    const after = fs.open(node.ino).tree;
    if (tree.height > 0) {
      assertEquals(before.map((_, i) => after.pointer(i).vbn), before, "equal blocks moved");
    }
  }

  #remove(fs: LiveFileSystem, { parent, name, node }: {
    parent: ModelNode;
    name: string;
    node: ModelNode;
  }): void {
    if (node.children.size > 0) {
      try {
        fs.remove(parent.ino, name);
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "usage", String(error));
        return;
      }
      throw new Error("A directory that is not empty was removed");
    }
    fs.remove(parent.ino, name);
    this.model.remove(parent, name);
  }
}

/** Moves the place from which blocks are given out: a volume is wide, and its tests are small. */
export async function skipBlocks(volume: Volume, blockCount: number): Promise<void> {
  await volume.exclusive(({ space }) => {
    const runs: Run[] = [];
    for (let left = Math.min(blockCount, space.freeCount - space.reserve); left > 0;) {
      runs.push(space.allocateRun(left));
      left -= runs.at(-1)!.count;
    }
    for (const { start, count } of runs) {
      for (let i = 0; i < count; i++) space.free(start + i);
    }
  });
}

/** A history with snapshots `s1` and `s2` whose blocks lie in many frames, and in two pages of planes. */
export async function scattered(seed: number): Promise<History> {
  const history = await History.begin(new MemoryStore(70_000), new Random(seed));
  for (let round = 0; round < 12; round++) {
    if (round === 6) await history.skip(33_000);
    await history.change(8);
    await history.churn(1, 40_000);
    await history.skip(200);
  }
  await history.snapshot();
  for (let round = 0; round < 5; round++) {
    await history.change(4);
    await history.churn(1, 30_000);
    await history.skip(200);
  }
  await history.snapshot();
  return history;
}

/** fsck finds nothing. */
export function assertClean(volume: Volume): void {
  const { findings } = fsck(volume);
  assertEquals(findings.map(({ snapshot, problem }) => `${snapshot}: ${problem}`), []);
}
