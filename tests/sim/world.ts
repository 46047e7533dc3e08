/**
 * A world of nodes in one process, in which everything that volcast does happens in one random history:
 * publishing, shadows, deletions, pulls along a changing hierarchy, planes that are brought, history
 * images, algebra, tape, mirrors, copies onto other stores, local changes, takeovers, going back, crashes.
 *
 * What each snapshot shows and has was noted when it was taken, block by block, outside of any volume.
 * From that alone follows what an image may have, and what every node must show.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { equalBytes } from "../../src/format/mod.ts";
import {
  applyImage,
  Image,
  Pieces,
  planeImage,
  receivePlane,
  selectHistory,
} from "../../src/image/mod.ts";
import { Mirror, type Standby, type StandbyPosition } from "../../src/replication/mod.ts";
import {
  type BlockStore,
  MemoryStore,
  OverlayStore,
  PackedStore,
  StripedStore,
} from "../../src/store/mod.ts";
import { isShadow, relationOf, type Snapshot, Volume } from "../../src/volume/mod.ts";
import { MEMBERS, stripeOf } from "../helpers/arrangements.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { piecesIn, segmentsOf } from "../helpers/pieces.ts";
import { Random } from "../helpers/random.ts";
import { bitsOf, imageOfText, reachedFrom } from "../helpers/replicas.ts";
import { type Contents, contentsOf } from "../helpers/shadow_history.ts";
import { bytesOf, sourceOf, sourceOfImage } from "../helpers/streams.ts";
import type { FileModel } from "../models/file_model.ts";

const CAPACITY = 1100;
const OPEN = { localWrites: true, cacheBytes: 2 ** 18 } as const;
const EPOCHS = 5;

/** What a snapshot shows and has, wherever it is. */
interface Known {
  readonly all: string[];
  readonly contents: Contents;
  readonly model: FileModel;
}

/** A store, and how it is found again after a crash. */
interface Laid {
  readonly store: BlockStore;
  reopen(): BlockStore;
}

type Kind = "memory" | "packed" | "striped" | "overlay";

function lay(kind: Kind): Laid {
  if (kind === "striped") {
    const { store, disks } = stripeOf(CAPACITY);
    return { store, reopen: () => StripedStore.open(disks, MEMBERS) };
  }
  if (kind === "memory") {
    const store = new MemoryStore(CAPACITY);
    return { store, reopen: () => store };
  }
  const [disk, base] = [new MemoryStore(CAPACITY * 2), new MemoryStore(CAPACITY)];
  const packed = PackedStore.create(disk, CAPACITY);
  return kind === "packed" ? { store: packed, reopen: () => PackedStore.open(disk) } : {
    store: new OverlayStore(base, packed),
    reopen: () => new OverlayStore(base, PackedStore.open(disk)),
  };
}

/** A node under test. */
class TestNode {
  readonly name: string;
  readonly kind: Kind;
  laid: Laid;
  #volume: Volume;
  /** Whoever writes it: an origin's, or that of local changes. */
  writes: History | undefined;

  constructor(name: string, kind: Kind, at: { laid: Laid; volume: Volume; writes?: History }) {
    this.name = name;
    this.kind = kind;
    this.laid = at.laid;
    this.#volume = at.volume;
    this.writes = at.writes;
  }

  get volume(): Volume {
    return this.writes?.volume ?? this.#volume;
  }

  /** The volume without its writer, in the same handle or a new one. */
  settle(reopen: boolean): void {
    let { volume } = this;
    if (reopen) {
      volume.abandon();
      volume = Volume.open(this.laid.reopen(), { ...OPEN, now: tickingClock() });
    }
    this.#volume = volume;
    this.writes = undefined;
  }

  /** Another volume takes the place of this one. */
  replace(laid: Laid, volume: Volume): void {
    this.volume.abandon();
    this.laid = laid;
    this.#volume = volume;
    this.writes = undefined;
  }
}

/** A standby that a mirror fills, in this process. */
class WorldStandby implements Standby {
  readonly name = "standby";
  node: TestNode | undefined;

  position(): Promise<StandbyPosition> {
    const volume = this.node?.volume;
    return Promise.resolve({
      node: "standby",
      role: "replica",
      ...(volume === undefined ? {} : {
        volumeId: volume.volumeId,
        current: volume.current,
        epoch: volume.root.epoch,
      }),
    });
  }

  async take(image: Image): Promise<void> {
    if (this.node !== undefined && image.base !== undefined) {
      await applyImage(this.node.volume, sourceOfImage(image), { drainMs: 0 });
      return;
    }
    const laid = lay("packed");
    const volume = Volume.incoming(laid.store, image.header.volumeId, OPEN);
    await applyImage(volume, sourceOfImage(image), { drainMs: 0 });
    if (this.node === undefined) this.node = new TestNode("standby", "packed", { laid, volume });
    else this.node.replace(laid, volume);
  }
}

/** Faults that tests of this test put in. */
export interface Faults {
  /** Blocks of an image that are to be taken for lost. */
  readonly image?: (bytes: Uint8Array, parsed: ReturnType<typeof parseImage>) => Set<number>;
  /** Called before each step, with its number. */
  readonly flip?: (world: World, step: number) => void;
}

/** See the module. */
export class World {
  readonly nodes: TestNode[] = [];
  readonly known = new Map<string, Known>();
  readonly random: Random;
  readonly counts: Record<string, number> = {};
  /** The last steps, for who has to find out why one failed. */
  readonly trace: string[] = [];
  readonly #faults: Faults;
  #prefixes = 0;
  #mirror:
    | { readonly source: TestNode; readonly mirror: Mirror; readonly standby: WorldStandby }
    | undefined;

  private constructor(random: Random, faults: Faults) {
    this.random = random;
    this.#faults = faults;
  }

  static async begin(random: Random, faults: Faults = {}): Promise<World> {
    const world = new World(random, faults);
    const laid = lay("memory");
    const store = laid.store as MemoryStore;
    const writes = await History.begin(store, random.fork(), { volume: OPEN, writeBytes: 20_000 });
    const origin = new TestNode("n0", "memory", { laid, volume: writes.volume, writes });
    world.nodes.push(origin);
    await world.#publish(origin);
    for (
      const [i, kind] of (["memory", "memory", "packed", "striped", "overlay"] as const).entries()
    ) {
      const at = await world.#full(origin, kind);
      world.nodes.push(new TestNode(`n${i + 1}`, kind, at));
    }
    return world;
  }

  /**
   * A random history from a seed.
   * @throws What failed, with the seed, the step and how it came about.
   */
  static async live(seed: number, steps: number, faults: Faults = {}): Promise<World> {
    const world = await World.begin(new Random(seed), faults);
    for (let i = 1; i <= steps; i++) {
      try {
        faults.flip?.(world, i);
        await world.step();
        if (i % 10 === 0 || i === steps) world.checkAll();
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        throw new Error(
          `Seed ${seed}, step ${i}: ${text.slice(0, 2000)}\n` +
            `To see it again: VOLCAST_SEED=${seed} VOLCAST_STEPS=${i}\n${world.trace.join(", ")}`,
          { cause: error },
        );
      }
    }
    world.close();
    return world;
  }

  /** A replica on a disk that can be looked into. */
  replicaInMemory(): { store: MemoryStore; volume: Volume } {
    const { laid, volume } = this.nodes.find((node) =>
      node.kind === "memory" && node.volume.role === "replica"
    )!;
    return { store: laid.store as MemoryStore, volume };
  }

  /** A random step of a random node, or of an origin. */
  async step(): Promise<void> {
    const { random } = this;
    const node = random.pick(this.nodes);
    const origins = this.nodes.filter(({ volume }) => volume.role === "origin");
    const origin = origins.length === 0 ? node : random.pick(origins);
    const steps: [weight: number, name: string, work: () => Promise<void> | void][] = [
      [8, "publish", () => this.#publish(origin)],
      [2, "publish locally", () => this.#publish(node)],
      [12, "pull", () => this.#pull(node)],
      [4, "pull with history", () => this.#pullHistory(node)],
      [2, "shadow", () => this.#shadow(origin)],
      [1, "delete", () => this.#delete(origin)],
      [2, "master moves back", () => this.#moveBack(origin)],
      [2, "algebra", () => this.#algebra(node)],
      [1, "tape", () => this.#tape(node)],
      [2, "mirror", () => this.#mirrorRound()],
      [1, "copy", () => this.#copy(node)],
      [2, "changes begin", () => this.#beginChanges(node)],
      [1, "promote", () => this.#promote(node)],
      [1, "resync", () => this.#resync(node)],
      [2, "change", () => this.#change(node)],
      [2, "change", () => this.#change(origin)],
      [2, "crash", () => this.#crash(node)],
    ];
    let at = random.below(steps.reduce((sum, [weight]) => sum + weight, 0));
    const [, name, work] = steps.find(([weight]) => (at -= weight) < 0)!;
    this.trace.push(`${node.name}/${origin.name} ${name}`);
    if (this.trace.length > 40) this.trace.shift();
    try {
      await work();
    } catch (error) {
      // A volume may be too full for something; it says so and is what it was.
      if (!(error instanceof VolcastError) || error.kind !== "full") throw error;
      this.count("full");
    }
    for (const touched of new Set([node, origin])) this.#checkShown(touched);
  }

  /** Everything at every node. */
  checkAll(): void {
    const standby = this.#mirror?.standby.node;
    const nodes = standby === undefined ? this.nodes : [...this.nodes, standby];
    for (const node of nodes) {
      const { volume } = node;
      assertClean(volume);
      for (const snapshot of volume.keptSnapshots()) {
        const { all, contents } = this.#knownOf(snapshot);
        const shown = describe(volume.fileSystem(snapshot), { all: true });
        assertEquals(shown, all, `${node.name}: ${snapshot.name}`);
        // I4, and planes: what is under them is what it was when it was taken, and nothing else is.
        const bits = bitsOf(volume, snapshot);
        assertEquals(
          bits,
          reachedFrom(volume, snapshot),
          `${node.name}: plane of ${snapshot.name}`,
        );
        assertEquals(bits.size, contents.size);
        const block = new Uint8Array(4096);
        for (const [vbn, content] of contents) {
          volume.io.store.read(vbn, block);
          assert(equalBytes(block, content), `${node.name}: VBN ${vbn} of ${snapshot.name}`);
        }
      }
      node.writes?.checkCommitted();
    }
  }

  close(): void {
    for (const { volume } of this.nodes) volume.abandon();
    this.#mirror?.standby.node?.volume.abandon();
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  // --- what is known ------------------------------------------------------------------------------

  #knownOf({ id, name }: Snapshot): Known {
    const known = this.known.get(id);
    if (known === undefined) throw new Error(`nobody took ${name} (${id})`);
    return known;
  }

  /** Notes snapshots that were taken just now: what they show is what the model has. */
  #note({ volume, writes, laid }: TestNode): void {
    if (writes === undefined) throw new Error("nobody writes it");
    for (const snapshot of volume.keptSnapshots()) {
      if (this.known.has(snapshot.id)) continue;
      const fs = volume.fileSystem(snapshot);
      assertEquals(describe(fs), writes.model.describe(), snapshot.name);
      this.known.set(snapshot.id, {
        all: describe(fs, { all: true }),
        contents: contentsOf(laid.store, volume, snapshot),
        model: writes.model.clone(),
      });
      writes.committed = writes.model.clone();
      this.count("snapshots");
    }
  }

  #checkShown({ name, volume, writes }: TestNode): void {
    writes?.checkCommitted();
    if (volume.role === "origin") return;
    const shown = describe(volume.fileSystem(volume.current), { all: true });
    assertEquals(shown, this.#knownOf(volume.current).all, `${name}: ${volume.current.name}`);
  }

  /** The bytes of an image, compared with what it must have by the contents of its ends. */
  async #bytesOf(image: Image, source: TestNode): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = await bytesOf(image);
    const parsed = parseImage(bytes);
    const lost = this.#faults.image?.(bytes, parsed) ?? new Set<number>();
    const has = (vbn: number) => parsed.blocks.has(vbn) && !lost.has(vbn);
    const tops = [
      ...image.terms.filter(({ role }) => role === "top").map(({ snapshot }) => snapshot),
      image.top,
    ].map((top) => this.#knownOf(top).contents);
    const base = image.base === undefined ? undefined : this.#knownOf(image.base).contents;
    const isExact = image.header.shadowState === undefined;
    let count = 0;
    const seen = new Set<number>();
    for (const contents of tops) {
      for (const [vbn, content] of contents) {
        const sent = parsed.blocks.get(vbn);
        if (sent !== undefined) {
          assert(equalBytes(sent, content), `VBN ${vbn} was sent as another one`);
        }
        if (seen.has(vbn)) continue;
        seen.add(vbn);
        const old = base?.get(vbn);
        const isSame = old !== undefined && (old === content || equalBytes(old, content));
        if (!isSame) {
          assert(has(vbn), `VBN ${vbn} is missing in ${image.name.base} .. ${image.name.top}`);
        }
        if (isExact && isSame) assert(!has(vbn), `VBN ${vbn} was sent, and is the base's`);
        if (sent !== undefined) count++;
      }
    }
    assertEquals(count, parsed.blocks.size, "blocks that are no top's");
    this.count("images");
    if (!isExact) this.count("images since shadows");
    await this.#sameElsewhere(image, bytes, source);
    return bytes;
  }

  /** I5: whoever can make the image makes the same bytes. */
  async #sameElsewhere(image: Image, bytes: Uint8Array, source: TestNode): Promise<void> {
    if (image.query !== undefined) return;
    for (const other of this.nodes) {
      if (other === source) continue;
      const [top, base] = [image.top, image.base].map((end) =>
        end === undefined ? undefined : other.volume.snapshots().find(({ id }) => id === end.id)
      );
      const isHere = top !== undefined && (image.base === undefined || base !== undefined);
      if (!isHere || image.header.shadowState !== undefined) continue;
      assertEquals(
        await bytesOf(new Image(other.volume, top, base)),
        bytes,
        "the bytes of an image",
      );
      this.count("images made twice");
      return;
    }
  }

  // --- steps --------------------------------------------------------------------------------------

  async #publish(node: TestNode): Promise<void> {
    const { writes } = node;
    if (writes === undefined) return;
    await writes.change(this.random.between(1, 8));
    if (this.random.oneIn(2)) await writes.churn(1, 50_000);
    const isOrigin = node.volume.role === "origin";
    await writes.snapshot(isOrigin ? { pointers: ["master"] } : {});
    this.#note(node);
    // Old ones go, or it is soon full.
    const { volume } = node;
    const own = isOrigin ? this.#unnamed(node) : volume.localSnapshots();
    if (own.length > 5) await this.#remove(node, own[0]);
  }

  /** Snapshots of an origin that no pointer names. */
  #unnamed({ volume }: TestNode): readonly Snapshot[] {
    const named = new Set(volume.pointers().map(({ snapshot }) => snapshot));
    return volume.snapshots().filter(({ id }) => !named.has(id));
  }

  /** Runs something that may make a consistency point, with what was changed before. */
  async #mayCommit<T>(node: TestNode, work: () => Promise<T>): Promise<T> {
    const { cp } = node.volume.superblock;
    try {
      return await work();
    } finally {
      const { writes, volume } = node;
      if (writes !== undefined && volume.superblock.cp !== cp) {
        writes.committed = writes.model.clone();
      }
    }
  }

  async #remove(node: TestNode, { id }: Snapshot): Promise<void> {
    try {
      await this.#mayCommit(
        node,
        () => node.volume.exclusive((writer) => writer.deleteSnapshot(id)),
      );
      this.count("deleted");
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind !== "held") throw error;
      this.count("held");
    }
  }

  async #delete(node: TestNode): Promise<void> {
    if (node.volume.role !== "origin") return;
    const victims = [...this.#unnamed(node), ...node.volume.shadows()];
    if (victims.length > 1) await this.#remove(node, this.random.pick(victims));
  }

  async #shadow(node: TestNode): Promise<void> {
    if (node.volume.role !== "origin") return;
    const candidates = this.#unnamed(node);
    if (candidates.length === 0) return;
    const { id } = this.random.pick(candidates);
    await this.#mayCommit(
      node,
      () => node.volume.exclusive((writer) => writer.shadowSnapshot(id)),
    );
    await assertRejects(
      () => Promise.resolve().then(() => node.volume.resolve(id)),
      VolcastError,
      "it is a shadow",
    );
    this.count("shadows");
  }

  async #moveBack(node: TestNode): Promise<void> {
    if (node.volume.role !== "origin") return;
    const { id } = this.random.pick(node.volume.snapshots());
    await this.#mayCommit(
      node,
      () => node.volume.exclusive((writer) => writer.setPointer("master", id)),
    );
  }

  /** A full image of what a node has as its master. */
  async #full(
    source: TestNode,
    kind: Kind,
    top: Snapshot = source.volume.find("master")!,
  ): Promise<{ laid: Laid; volume: Volume }> {
    const laid = lay(kind);
    const volume = Volume.incoming(laid.store, source.volume.volumeId, {
      ...OPEN,
      now: tickingClock(),
    });
    const bytes = await this.#bytesOf(new Image(source.volume, top), source);
    await applyImage(volume, sourceOf(bytes), { drainMs: 0 });
    this.count("full images");
    return { laid, volume };
  }

  /** Where an increment for a node can begin at a source; the node brings the plane where that is all. */
  async #baseAt(source: TestNode, node: TestNode): Promise<Snapshot | undefined> {
    const { current } = node.volume;
    const base = source.volume.findBase(current.id);
    if (base !== undefined || source.volume.lent.missing(current.id) === undefined) return base;
    await receivePlane(source.volume, planeImage(node.volume, current).stream());
    this.count("planes brought");
    return source.volume.findBase(current.id);
  }

  /** A pull: of what another node has as its master. */
  async #pull(node: TestNode): Promise<void> {
    const source = this.random.pick(this.nodes.filter((other) => other !== node));
    const { volume } = node;
    const top = source.volume.find("master");
    if (volume.role === "origin" || top === undefined || top.id === volume.current.id) return;
    const base = await this.#baseAt(source, node);
    if (base === undefined) return await this.#pullFull(node, source, top);
    const isBack = top.cp < volume.current.cp;
    try {
      const image = new Image(source.volume, top, base);
      await this.#apply(node, await this.#bytesOf(image, source));
    } catch (error) {
      const lacksRoom = error instanceof VolcastError && error.kind === "full" && isShadow(base);
      if (!lacksRoom) throw error;
      return await this.#pullFull(node, source, top);
    }
    this.count(isBack ? "taken back" : "pulls");
  }

  async #apply(node: TestNode, bytes: Uint8Array): Promise<void> {
    await applyImage(node.volume, sourceOf(bytes), { drainMs: 0 });
    // It has no local changes any more, and may begin new ones in the same handle.
    assertEquals(node.volume.superblock.branch, undefined);
    node.settle(this.random.oneIn(2));
  }

  async #pullFull(node: TestNode, source: TestNode, top: Snapshot): Promise<void> {
    const relation = relationOf(node.volume.history, source.volume.history);
    if (source.volume.history.epoch === 1 && node.volume.history.epoch === 1) {
      assertEquals(relation, "together");
    }
    this.count(relation);
    if (relation === "diverged" || top.cp < node.volume.current.cp) return;
    const { laid, volume } = await this.#full(source, node.kind, top);
    node.replace(laid, volume);
  }

  async #pullHistory(node: TestNode): Promise<void> {
    const source = this.random.pick(this.nodes.filter((other) => other !== node));
    const top = source.volume.find("master");
    const { volume } = node;
    if (volume.role === "origin" || top === undefined || top.cp <= volume.current.cp) return;
    const base = source.volume.find(volume.current.id);
    if (base === undefined) return;
    const image = Image.of(
      source.volume,
      selectHistory(source.volume, { snapshots: "all", top, base }),
    );
    const along = image.terms.filter(({ role }) => role === "top");
    await this.#apply(node, await this.#bytesOf(image, source));
    const here = node.volume.snapshots().map(({ id }) => id);
    for (const { snapshot } of along) assert(here.includes(snapshot.id), "it came along");
    this.count("pulls with history");
  }

  /** Any expression of snapshots, and what it restores. */
  async #algebra(node: TestNode): Promise<void> {
    const { random } = this;
    const snapshots = node.volume.snapshots();
    if (snapshots.length < 2) return;
    const pick = () => random.pick(snapshots).id;
    const [a, b, c, d] = [pick(), pick(), pick(), pick()];
    const text = random.pick([
      `${a} - ${b}`,
      `${a} + ${b} - ${c}`,
      `${a} - (${b} & ${c})`,
      `(${a} + ${b}) & ${c}`,
      `${a} + ${b} + ${c} - ${d}`,
      `(${a} - ${b}) + (${c} - ${d})`,
    ]);
    const bits = new Map(snapshots.map((one) => [one.id, bitsOf(node.volume, one)]));
    const wanted = new Set<number>();
    for (let vbn = 0; vbn < CAPACITY; vbn++) {
      if (evaluate(text, (id) => bits.get(id)!.has(vbn))) wanted.add(vbn);
    }
    if (wanted.size === 0) return;
    const image = imageOfText(node.volume, text);
    const bytes = await bytesOf(image);
    const parsed = parseImage(bytes);
    assertEquals(new Set(parsed.blocks.keys()), wanted, text);
    this.count("expressions");
    const target = image.base === undefined
      ? Volume.incoming(lay("memory").store, node.volume.volumeId)
      : (await this.#full(node, "memory", node.volume.resolve(image.base.id))).volume;
    const isPlain = image.terms.every(({ role }) => role === "top");
    if (image.header.fragment === true) {
      const error = await assertRejects(() => applyImage(target, sourceOf(bytes)), VolcastError);
      assertEquals(error.kind, "unsupported");
      this.count("fragments");
    } else if (image.top.id === image.base?.id) {
      // All that comes besides is older than the base, which the target is at.
      const error = await assertRejects(() => applyImage(target, sourceOf(bytes)), VolcastError);
      assertEquals(error.kind, "nothing");
    } else if (isPlain) {
      await applyImage(target, sourceOf(bytes), { drainMs: 0 });
      assertClean(target);
      for (const snapshot of target.snapshots()) {
        const shown = describe(target.fileSystem(snapshot), { all: true });
        assertEquals(shown, this.#knownOf(snapshot).all, `${text}: ${snapshot.name}`);
      }
      this.count("expressions applied");
    }
    target.abandon();
  }

  /** An image in segments, read in any order. */
  async #tape(node: TestNode): Promise<void> {
    const top = node.volume.find("master");
    if (top === undefined) return;
    const image = new Image(node.volume, top);
    const segments = await segmentsOf(image, {
      segmentBytes: 40_000 + this.random.below(200_000),
      recordBytes: 512,
    });
    const pieces = (await Promise.all(segments.map((bytes, i) => piecesIn(`${i}`, bytes)))).flat();
    for (let i = pieces.length - 1; i > 0; i--) {
      const j = this.random.below(i + 1);
      [pieces[i], pieces[j]] = [pieces[j], pieces[i]];
    }
    const volume = Volume.incoming(lay("memory").store, node.volume.volumeId);
    await applyImage(volume, new Pieces(pieces, () => {}), { drainMs: 0 });
    const shown = describe(volume.fileSystem(volume.current), { all: true });
    assertEquals(shown, this.#knownOf(top).all);
    volume.abandon();
    this.count("tapes");
  }

  async #mirrorRound(): Promise<void> {
    const source = this.nodes.find(({ volume, writes }) =>
      volume.role === "origin" && writes !== undefined
    );
    if (source === undefined) return;
    if (this.#mirror?.source !== source || source.volume.role !== "origin") {
      this.#mirror?.standby.node?.volume.abandon();
      const standby = new WorldStandby();
      const of = {
        get volume() {
          return source.volume;
        },
        get volumeIfAny() {
          return source.volume;
        },
      };
      this.#mirror = { source, standby, mirror: new Mirror(of, standby) };
    }
    try {
      const { mirror } = this.#mirror;
      const result = await this.#mayCommit(source, () => mirror.round());
      // What was begun before is gone on with, and may be old.
      if (result.kind !== "nothing" && result.resumed) {
        await this.#mayCommit(source, () => mirror.round());
      }
    } catch (error) {
      // A standby of a line that was given up: begun anew with the next round.
      const isLost = error instanceof VolcastError && error.kind === "diverged";
      if (!isLost) throw error;
      this.#mirror.standby.node?.volume.abandon();
      this.#mirror = undefined;
      return this.count("mirrors lost");
    } finally {
      this.#note(source);
    }
    const { volume } = this.#mirror.standby.node!;
    const shown = describe(volume.fileSystem(volume.current));
    assertEquals(shown, source.writes!.model.describe(), "the standby");
    this.count("mirror rounds");
  }

  /** A node's place is taken by a copy of what it is at, on another make of store. */
  async #copy(node: TestNode): Promise<void> {
    const { volume, kind } = node;
    if (volume.role === "origin" || kind === "memory") return;
    const { laid, volume: copy } = await this.#full(node, kind, volume.current);
    node.replace(laid, copy);
    this.count("copies");
  }

  #beginChanges(node: TestNode): void {
    const { volume, kind, laid } = node;
    if (node.writes !== undefined || kind !== "memory") return;
    const { model } = this.#knownOf(volume.current);
    const prefix = `${node.name}.${++this.#prefixes}.`;
    const at = { store: laid.store as MemoryStore, volume, model };
    node.writes = History.resume(at, this.random.fork(), {
      volume: OPEN,
      writeBytes: 20_000,
      prefix,
    });
  }

  async #change({ writes }: TestNode): Promise<void> {
    await writes?.change(this.random.between(1, 6));
    if (this.random.oneIn(2)) await writes?.checkpoint();
  }

  async #promote(node: TestNode): Promise<void> {
    const { role, root, history: before } = node.volume;
    if (role === "origin" || root.epoch > EPOCHS || node.kind !== "memory") return;
    this.#beginChanges(node);
    await node.volume.promote();
    node.writes!.committed = node.writes!.model.clone();
    const { epoch, takeovers } = node.volume.history;
    assertEquals([epoch, takeovers.length], [before.epoch + 1, before.epoch]);
    this.count("takeovers");
  }

  /** Back to the newest snapshot in common with another origin, and forward. */
  async #resync(node: TestNode): Promise<void> {
    const origins = this.nodes.filter((one) => one.volume.role === "origin" && one !== node);
    if (origins.length === 0) return;
    const source = this.random.pick(origins);
    const theirs = new Set(source.volume.snapshots().map(({ id }) => id));
    const common = node.volume.snapshots().findLast(({ id }) => theirs.has(id));
    if (common === undefined) return this.count("nothing in common");
    await node.volume.goBack(common);
    assertEquals(node.volume.current.id, common.id);
    node.settle(this.random.oneIn(2));
    this.count("resyncs");
    const master = source.volume.find("master");
    if (master === undefined || master.id === common.id) return;
    const image = new Image(source.volume, master, source.volume.resolve(common.id));
    await this.#apply(node, await this.#bytesOf(image, source));
  }

  async #crash(node: TestNode): Promise<void> {
    this.count("crashes");
    if (node.writes === undefined) node.settle(true);
    else if (this.random.oneIn(2)) node.writes.crash();
    else await node.writes.reopen();
  }
}

/** An expression of ids, for one block: by the book, with no plane. */
function evaluate(text: string, has: (id: string) => boolean): boolean {
  const tokens = text.match(/\d+-[0-9a-f]{8}|[()+&-]/g)!;
  let at = 0;
  const operand = (): boolean => {
    const token = tokens[at++];
    if (token !== "(") return has(token);
    const value = terms();
    at++;
    return value;
  };
  const product = (): boolean => {
    let value = operand();
    while (tokens[at] === "&") {
      at++;
      value = operand() && value;
    }
    return value;
  };
  const terms = (): boolean => {
    let value = product();
    while (tokens[at] === "+" || tokens[at] === "-") {
      const isSum = tokens[at++] === "+";
      const right = product();
      value = isSum ? value || right : value && !right;
    }
    return value;
  };
  return terms();
}
