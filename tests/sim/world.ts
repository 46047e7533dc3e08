/**
 * One world: an origin, replicas over all makes of stores, and every technique in one random history.
 * What each snapshot shows and has is kept outside of all volumes ({@linkcode Truth}); after each step the
 * nodes are compared with it, and every image with brute force. The same seed makes the same history.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  applyImage,
  Image,
  type ImageSource,
  Pieces,
  planeImage,
  receivePlane,
  resolveExpression,
  selectHistory,
  selectImage,
} from "../../src/image/mod.ts";
import {
  Mirror,
  Node,
  PinBudget,
  planResync,
  type Standby,
  type StandbyPosition,
} from "../../src/replication/mod.ts";
import { isShadow, MASTER, relationOf, type Snapshot, Volume } from "../../src/volume/mod.ts";
import { type History, skipBlocks, tickingClock } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { piecesIn, segmentsOf } from "../helpers/pieces.ts";
import { Random } from "../helpers/random.ts";
import { sourceOf } from "../helpers/streams.ts";
import { FileModel } from "../models/file_model.ts";
import { Truth } from "./truth.ts";
import {
  adopted,
  failAfter,
  type Make,
  newOverlay,
  newPlace,
  OPEN,
  WorldNode,
} from "./world_node.ts";

/** Blocks of every volume: few, so that they are used again and again, and full at times; or many. */
const CAPACITIES = [700, 1200, 1200, 70_000];
const VOLUME_ID = "0123456789abcdef0123456789abcdef";
/** More than this many kept snapshots, and some go. */
const MOST_SNAPSHOTS = 7;

/** Makes that break something on purpose. */
export interface Sabotage {
  /** Makes the increments. */
  readonly image?: (volume: Volume, top: Snapshot, base?: Snapshot) => Image;
  /** Called before each step. */
  readonly before?: (world: World) => void | Promise<void>;
}

/** What may follow from offering an image to a node. */
type Verdict = "fits" | "diverged" | "nothing" | "unsupported";

/** See the module. */
export class World {
  readonly random: Random;
  readonly truth = new Truth();
  readonly nodes: WorldNode[] = [];
  readonly capacity: number;
  /** How often each thing happened. */
  readonly counts: Record<string, number> = {};
  /** What was done, the last step last. */
  readonly trace: string[] = [];
  readonly #sabotage: Sabotage;
  readonly #mirrors = new Map<string, Mirror>();
  #touched: WorldNode[] = [];
  #steps = 0;
  #names = 0;

  private constructor(seed: number, sabotage: Sabotage) {
    this.random = new Random(seed);
    this.capacity = this.random.pick(CAPACITIES);
    this.#sabotage = sabotage;
  }

  /** An origin with a master, and a replica on each make of store. */
  static async begin(seed: number, sabotage: Sabotage = {}): Promise<World> {
    const world = new World(seed, sabotage);
    const place = newPlace("memory", world.capacity);
    const volume = await Volume.create(place.store, {
      ...OPEN,
      now: tickingClock(),
      volumeId: VOLUME_ID,
    });
    const origin = new WorldNode("n0", place, volume);
    world.nodes.push(origin);
    origin.write(new FileModel(), world.random.fork());
    await origin.writes!.change(30);
    await world.#snapshot(origin, [MASTER]);
    for (const make of ["memory", "packed", "striped", "overlay"] as const) {
      await world.#copy(make);
    }
    return world;
  }

  /** Some steps, each followed by the comparisons. @throws With the seed and the last steps. */
  async run(steps: number): Promise<void> {
    try {
      for (let i = 0; i < steps; i++) await this.#stepAndCheck();
      await this.#checkAll();
    } catch (error) {
      const last = this.trace.slice(-15).join("\n  ");
      const message = error instanceof Error ? error.stack ?? error.message : String(error);
      throw new Error(
        `VOLCAST_SEED=${this.random.seed}, ${this.capacity} blocks, step ${this.#steps}: ${message}\nThe last steps:\n  ${last}`,
        { cause: error },
      );
    }
  }

  /** Gives all nodes back. */
  close(): void {
    for (const { volume } of this.nodes) volume.abandon();
  }

  async #stepAndCheck(): Promise<void> {
    this.#steps++;
    this.#touched = [];
    await this.#sabotage.before?.(this);
    try {
      await this.#step();
    } catch (error) {
      // A volume may be too full for a branch, a takeover or for staging; it says so and is what it was.
      if (!(error instanceof VolcastError) || error.kind !== "full") throw error;
      this.#count("full");
    }
    for (const node of this.#touched) node.checkCurrent(this.truth);
    if (this.#steps % 10 === 0) await this.#checkAll();
  }

  async #checkAll(): Promise<void> {
    for (const node of this.nodes) await node.checkAll(this.truth);
    for (const node of this.nodes) await this.#checkShadows(node);
  }

  async #step(): Promise<void> {
    const { random } = this;
    const writers = this.nodes.filter(({ writes }) => writes !== undefined);
    const origins = this.nodes.filter(({ isOrigin }) => isOrigin);
    const replicas = this.nodes.filter(({ isOrigin }) => !isOrigin);
    const any = random.pick(this.nodes);
    const kind = random.below(100);
    if (kind < 12) return await this.#change(random.pick(writers));
    if (kind < 27) return await this.#publish(random.pick(writers));
    if (kind < 34) return await this.#shadow(random.pick(origins));
    if (kind < 37) return await this.#delete(random.pick(origins));
    if (kind < 55) return await this.#pull(random.pick(replicas));
    if (kind < 63) return await this.#mirror(random.pick(origins), random.pick(replicas));
    if (kind < 64) return await this.#mirror(random.pick(origins), any);
    if (kind < 67) return await this.#copy();
    if (kind < 73) return await this.#algebra(any);
    if (kind < 76) return await this.#offerAnything(any);
    if (kind < 78) return await this.#promote(random.pick(replicas));
    if (kind < 82) return await this.#resync(any);
    if (kind < 85) return this.#beginLocal(random.pick(replicas));
    if (kind < 91) return await this.#reopen(any);
    if (kind < 94) return this.#read(any);
    if (kind < 97) return await this.#confirm(random.pick(origins));
    return await this.#pinBudget(random.pick(origins));
  }

  async #change(node: WorldNode): Promise<void> {
    this.#touch("change", node);
    const writes = node.writes!;
    const { random } = this;
    if (random.oneIn(3)) await skipBlocks(node.volume, random.below(this.capacity));
    const { fullCount } = writes;
    await writes.change(random.between(1, 12));
    const then = random.below(4);
    if (then < 2) await this.#churn(writes);
    else if (then === 2) await writes.checkpoint();
    if (writes.fullCount > fullCount) this.#count("full");
  }

  /** Writes one file over and over: blocks are used again, those of shadows first of all. */
  async #churn(writes: History): Promise<void> {
    const { random } = this;
    const present = writes.model.root.children.get("churn");
    // Something else may have been renamed to its name.
    if (present !== undefined && present.type !== "file") return;
    const most = Math.min(this.capacity, 1500) * 1000;
    await writes.churn(random.pick([2, 6]), random.between(most / 4, most));
  }

  async #publish(node: WorldNode): Promise<void> {
    this.#touch("snapshot", node);
    await node.writes!.change(this.random.between(0, 8));
    if (node.volume.shadows().length > 0 && this.random.oneIn(3)) await this.#churn(node.writes!);
    const pointers = this.random.pick([[MASTER], [MASTER], ["stable"], []]);
    await this.#snapshot(node, node.isOrigin ? pointers : []);
    const { volume } = node;
    const own = node.isOrigin ? volume.snapshots() : volume.localSnapshots();
    if (own.length > MOST_SNAPSHOTS) await this.#delete(node, own.slice(0, 3));
  }

  async #snapshot(node: WorldNode, pointers: string[]): Promise<void> {
    const writes = node.writes!;
    const kept = await writes.snapshot({ pointers });
    if (kept === undefined) return this.#count("full");
    this.truth.learn(node.volume, node.volume.resolve(kept.id), writes.model);
    this.#count("snapshots");
  }

  async #shadow(node: WorldNode): Promise<void> {
    const { volume } = node;
    const listed = volume.snapshots();
    if (listed.length < 3) return;
    // Several at once: there are fewer planes of shadows than shadows, and they merge.
    for (let i = this.random.between(1, 2); i > 0; i--) {
      // Mostly one that somebody stands on: then it is a base soon.
      const all = volume.snapshots();
      const bases = all.filter(({ id }) =>
        this.nodes.some((other) => other !== node && other.volume.current.id === id)
      );
      const snapshot = this.random.pick(bases.length > 0 && !this.random.oneIn(3) ? bases : all);
      this.#touch(`shadow of ${snapshot.name}`, node);
      const isPointed = volume.pointers().some((pointer) => pointer.snapshot === snapshot.id);
      const made = volume.exclusive((writer) => writer.shadowSnapshot(snapshot.id));
      if (isPointed) {
        await refused(made, "held");
        this.#count("refused");
        continue;
      }
      await made;
      this.#committed(node);
      this.#count("shadows");
      // It cannot be read any more.
      const error = assertThrows(() => volume.resolve(snapshot.id), VolcastError);
      assertEquals(error.kind, "usage");
    }
    if (volume.shadows().length > 12) {
      for (const old of volume.shadows().slice(0, 4)) {
        if (standsOn(volume, old.id)) continue;
        await volume.exclusive((writer) => writer.deleteSnapshot(old.id));
      }
      this.#committed(node);
    }
  }

  async #delete(node: WorldNode, from?: readonly Snapshot[]): Promise<void> {
    const { volume } = node;
    const candidates = from ?? [...volume.snapshots(), ...volume.shadows()];
    if (candidates.length < 3) return;
    for (const { id, name } of from ?? [this.random.pick(candidates)]) {
      this.#touch(`delete ${name}`, node);
      const pointers = [...volume.pointers(), ...volume.localPointers()];
      const isHeld = pointers.some(({ snapshot }) => snapshot === id) || standsOn(volume, id);
      const deleted = volume.exclusive((writer) => writer.deleteSnapshot(id));
      if (isHeld) {
        await refused(deleted, "held");
        this.#count("refused");
        continue;
      }
      await deleted;
      this.#committed(node);
      this.#count("deletions");
    }
  }

  /** A replica takes an increment from any node that can make it; where one needs a plane, it gets it. */
  async #pull(node: WorldNode): Promise<void> {
    const { random } = this;
    const { id } = node.volume.current;
    const others = this.nodes.filter((other) => other !== node);
    const withShadow = others.filter(({ volume }) =>
      volume.shadows().some((shadow) => shadow.id === id)
    );
    const source = random.pick(withShadow.length > 0 && random.oneIn(2) ? withShadow : others);
    const base = await this.#baseAt(source, node);
    if (base === undefined) return this.#checkRelation(node, source);
    const tops = source.volume.snapshots().filter((top) => top.id !== id);
    if (tops.length === 0) return;
    const top = random.oneIn(4) ? random.pick(tops) : tops.at(-1)!;
    const withHistory = random.oneIn(4) && base.cp < top.cp;
    const image = withHistory
      ? Image.of(source.volume, selectHistory(source.volume, { snapshots: "all", top, base }))
      : this.#image(source.volume, top, base);
    this.#touch(
      `pull ${top.name} from ${source.name} since ${
        isShadow(base) ? "the shadow " : ""
      }${base.name}` +
        (withHistory ? " with history" : ""),
      node,
    );
    const bytes = await this.truth.checkImage(image);
    await this.#compareElsewhere(source, image);
    if (withHistory) this.#count("histories");
    if (isShadow(base)) this.#count("pulls since shadows");
    await this.#offer(node, image, bytes);
  }

  /** What a node stands on, as a base at another one. */
  async #baseAt(source: WorldNode, node: WorldNode): Promise<Snapshot | undefined> {
    const { volume } = source;
    const { current } = node.volume;
    const base = volume.findBase(current.id);
    if (base !== undefined || volume.lent.missing(current.id) === undefined) return base;
    await receivePlane(volume, planeImage(node.volume, current).stream());
    this.#count("lent planes");
    return volume.resolveBase(current.id);
  }

  /** What is not known as a snapshot is deleted, or of another line: never mistaken for being behind. */
  #checkRelation(node: WorldNode, source: WorldNode): void {
    const relation = relationOf(node.volume.history, source.volume.history);
    this.trace.push(`${this.#steps} ${node.name} knows nothing of ${source.name}'s: ${relation}`);
    this.#count(relation);
  }

  #image(volume: Volume, top: Snapshot, base?: Snapshot): Image {
    return this.#sabotage.image?.(volume, top, base) ?? new Image(volume, top, base);
  }

  /** I5: the same image, made by all others that can. */
  async #compareElsewhere(source: WorldNode, image: Image): Promise<void> {
    if (image.base === undefined || image.query !== undefined) return;
    const others = this.nodes.filter((other) => other !== source);
    for (const { volume } of others) {
      const top = volume.snapshots().find(({ id }) => id === image.top.id);
      const base = volume.findBase(image.base.id);
      if (top === undefined || base === undefined) continue;
      const same = this.#image(volume, top, base);
      await this.truth.checkImage(same);
      if (!isShadow(base) && !isShadow(image.base)) assertEquals(same.etag, image.etag);
      this.#count("compared");
    }
  }

  /** Offers an image to a node; it is taken or refused as it must be. @returns Whether it is current. */
  async #offer(
    node: WorldNode,
    image: Image,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<boolean> {
    const { random } = this;
    const { volume } = node;
    const verdict = verdictOf(volume, image);
    const before = volume.current.id;
    if (verdict !== "fits") {
      const active = volume.active.id;
      await refused(applyImage(volume, sourceOf(bytes), { drainMs: 0 }), verdict);
      assertEquals([volume.current.id, volume.active.id], [before, active]);
      this.#count("refused");
      return false;
    }
    if (random.oneIn(8)) {
      // Cut off: what came is noted, and anything may follow.
      const cut = bytes.subarray(0, random.below(bytes.length));
      await refused(applyImage(volume, sourceOf(cut), { drainMs: 0, recordBytes: 1 }), "damaged");
      assertEquals(volume.current.id, before);
      if (volume.superblock.branch === undefined) node.writes = undefined;
      this.trace.push(`${this.#steps}   cut off at byte ${cut.length} of ${bytes.length}`);
      this.#count("cut off");
      return false;
    }
    const isSinceShadow = image.base !== undefined && isShadow(image.base);
    const { blocks } = parseImage(bytes);
    const live = this.truth.of(before).had;
    const stagedCount = [...blocks.keys()].filter((vbn) => live.has(vbn)).length;
    if (isSinceShadow && stagedCount > 0) this.#count("staged");
    if (random.oneIn(isSinceShadow ? 2 : 6)) {
      return await this.#crashWithin(node, image, { bytes, stagedCount });
    }
    const source = random.oneIn(4) ? await this.#tape(image) : sourceOf(bytes);
    try {
      const applied = await applyImage(volume, source, { drainMs: 0 });
      assertEquals([applied.top, volume.current.id], [image.top.id, image.top.id]);
    } catch (error) {
      // No room to stage is no fault; the local changes are gone all the same.
      if (!(error instanceof VolcastError) || error.kind !== "full") throw error;
      assert(isShadow(image.base!), error.message);
      assertEquals(volume.current.id, before);
      if (volume.superblock.branch === undefined) node.writes = undefined;
      throw error;
    }
    await node.received();
    this.#count("pulls");
    return true;
  }

  /** The disks fail somewhere within an image, and another process finds what is there. */
  async #crashWithin(
    node: WorldNode,
    image: Image,
    { bytes, stagedCount }: { bytes: Uint8Array<ArrayBuffer>; stagedCount: number },
  ): Promise<boolean> {
    const { random } = this;
    const before = node.volume.current.id;
    // Mostly near the flip: local zone, map of staged blocks, superblock and the way back of each.
    const { blockCount } = image.header;
    const limit = random.oneIn(2)
      ? random.below(blockCount + 4)
      : blockCount + random.below(stagedCount + 20);
    const heal = failAfter(node.place, limit);
    let error: unknown;
    try {
      await applyImage(node.volume, sourceOf(bytes), { drainMs: 0, recordBytes: 100_000 });
    } catch (thrown) {
      error = thrown;
    } finally {
      heal();
    }
    if (error !== undefined) {
      const isExpected = error instanceof VolcastError && ["io", "full"].includes(error.kind);
      if (!isExpected) throw error;
      this.#count("crashes within images");
    } else node.writes = undefined;
    await node.reopen("crash", random.fork());
    const { current, superblock } = node.volume;
    assert([before, image.top.id].includes(current.id), current.id);
    if (error === undefined) assertEquals(current.id, image.top.id);
    if (superblock.remap !== undefined) this.#count("found staged");
    this.trace.push(
      `${this.#steps}   crash after ${limit} blocks of ${blockCount}: at ${current.name}` +
        (superblock.remap === undefined ? "" : ", with staged blocks"),
    );
    return current.id === image.top.id;
  }

  /** An image in segments, in random order. */
  async #tape(image: Image): Promise<ImageSource & Pieces> {
    const { random } = this;
    const segmentBytes = random.between(20_000, 300_000);
    const media = await segmentsOf(image, { segmentBytes, recordBytes: 512 });
    const left = await Promise.all(media.map((medium, i) => piecesIn(`tape ${i}`, medium)));
    const shuffled = media.map(() => left.splice(random.below(left.length), 1)[0]);
    this.#count("tapes");
    return new Pieces(shuffled.flat(), (text) => {
      throw new Error(text);
    });
  }

  /** A round of the program's own mirror, over marks. */
  async #mirror(node: WorldNode, standby: WorldNode): Promise<void> {
    if (node === standby) return;
    this.#touch(`mirror from ${node.name}`, standby);
    this.#touched.push(node);
    const key = `${node.name} ${standby.name}`;
    let mirror = this.#mirrors.get(key);
    if (mirror === undefined || this.random.oneIn(6)) {
      const full = this.random.oneIn(5);
      const line = this.#standby(node, standby);
      const source = {
        get volume() {
          return node.volume;
        },
        get volumeIfAny() {
          return node.volume;
        },
      };
      // Another handle of the volume had other marks.
      mirror = new Mirror(source, line, { full });
      this.#mirrors.set(key, mirror);
    }
    const { volume } = node;
    const there = standby.volume;
    const isKnown = volume.snapshots().some(({ id }) => id === there.current.id) &&
      there.root.epoch <= volume.root.epoch;
    const before = there.current.id;
    try {
      const result = await mirror.round();
      assertEquals(standby.volume.current.id, result.top);
      this.#count(result.kind === "nothing" ? "mirrored nothing" : "mirrors");
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind !== "diverged") throw error;
      assert(standby.isOrigin || !isKnown, error.message);
      assertEquals(standby.volume.current.id, before);
      this.#count("refused");
    } finally {
      // Whatever became of it, its snapshots are in a consistency point.
      this.#learnNew(node);
    }
  }

  #standby(node: WorldNode, standby: WorldNode): Standby {
    const position = (): StandbyPosition => {
      const { volume } = standby;
      const { id, name, cp } = volume.current;
      return {
        node: standby.name,
        role: volume.role,
        volumeId: volume.volumeId,
        current: { id, name, cp },
        epoch: volume.root.epoch,
      };
    };
    const take = async (image: Image): Promise<void> => {
      this.#learnNew(node);
      const bytes = await this.truth.checkImage(image);
      const { volume } = node;
      await this.truth.checkImage(new Image(volume, image.top, image.base));
      if (image.base === undefined) return await this.#refill(standby, image, bytes, "memory");
      await this.#offer(standby, image, bytes);
      if (standby.volume.current.id !== image.top.id) throw new VolcastError("full", "cut off");
    };
    return {
      name: standby.name,
      position: () => Promise.resolve(position()),
      take: (image) => take(image),
    };
  }

  /** Snapshots that others than the history took are known from now on. */
  #learnNew(node: WorldNode): void {
    for (const snapshot of node.volume.snapshots()) {
      if (this.truth.knows(snapshot.id)) continue;
      this.truth.learn(node.volume, snapshot, node.writes!.model);
      this.#committed(node);
      this.#count("snapshots");
    }
    if (!node.volume.dirtyBytes) this.#committed(node);
  }

  /** A new volume from a full image takes a replica's place, or is a new node. */
  async #copy(wanted?: Make): Promise<void> {
    const { random } = this;
    const replicas = this.nodes.filter(({ isOrigin }) => !isOrigin);
    const source = random.pick(this.nodes);
    const make = wanted ?? random.pick(["memory", "packed", "striped", "overlay"] as const);
    const { volume } = source;
    const tops = volume.snapshots();
    const top = random.oneIn(3) ? random.pick(tops) : tops.at(-1)!;
    const withHistory = make !== "overlay" && random.oneIn(2);
    const image = withHistory
      ? Image.of(volume, selectHistory(volume, { snapshots: "all", top }))
      : new Image(volume, top);
    const bytes = await this.truth.checkImage(image);
    let node = wanted === undefined && replicas.length > 3 ? random.pick(replicas) : undefined;
    if (node === source) return;
    if (node === undefined && this.nodes.length > 6) return;
    const name = node?.name ?? `n${++this.#names}`;
    if (node === undefined) {
      const place = newPlace("memory", this.capacity);
      node = new WorldNode(name, place, Volume.incoming(place.store, VOLUME_ID));
      this.nodes.push(node);
    }
    this.#touch(`copy of ${source.name} to a ${make}${withHistory ? " with history" : ""}`, node);
    await this.#refill(node, image, bytes, make);
    this.#count(`copies to ${make}`);
  }

  async #refill(
    node: WorldNode,
    image: Image,
    bytes: Uint8Array<ArrayBuffer>,
    make: Make,
  ): Promise<void> {
    if (make === "overlay") {
      const base = new Pieces(await piecesIn("base", bytes), () => {});
      const place = await newOverlay(base);
      node.replace(place, await adopted(place, base));
    } else {
      const place = newPlace(make, this.capacity);
      const volume = Volume.incoming(place.store, VOLUME_ID, { ...OPEN, now: tickingClock() });
      const source = this.random.oneIn(3) ? await this.#tape(image) : sourceOf(bytes);
      await applyImage(volume, source);
      node.replace(place, volume);
    }
    assertEquals(node.volume.current.id, image.top.id);
    for (const { role, snapshot } of image.terms) {
      if (role === "top") assert(node.volume.find(snapshot.id) !== undefined, snapshot.name);
    }
  }

  /** A random expression, and whoever stands on what it needs takes it. */
  async #algebra(source: WorldNode): Promise<void> {
    const { volume } = source;
    const ids = volume.snapshots().map(({ id }) => id);
    // Mostly one that some node could take: an increment of whatever it stands on.
    const stands = this.nodes.map((other) => other.volume.current.id).filter((id) =>
      ids.includes(id)
    );
    const left = this.#expression(ids, 2);
    const text = stands.length > 0 && !this.random.oneIn(3)
      ? `${left.includes(" ") ? `(${left})` : left} - ${this.random.pick(stands)}`
      : this.#expression(ids, 3);
    const resolved = resolveExpression(volume, text);
    const image = Image.of(volume, selectImage(volume, resolved));
    this.trace.push(`${this.#steps} ${source.name}: image of ${text}`);
    const bytes = await this.truth.checkExpression(image, text);
    this.#count("expressions");
    const others = this.nodes.filter((other) => other !== source);
    const fitting = others.filter((other) => verdictOf(other.volume, image) === "fits");
    const node = this.random.pick(fitting.length > 0 ? fitting : others);
    this.#touch(`takes it from ${source.name}`, node);
    if (await this.#offer(node, image, bytes)) this.#count("expressions applied");
  }

  #expression(ids: readonly string[], depth: number): string {
    const { random } = this;
    if (depth === 0 || random.oneIn(4)) return random.pick(ids);
    const operator = random.pick(["+", "+", "-", "-", "&"]);
    const [left, right] = [0, 1].map(() => this.#expression(ids, depth - 1));
    return `${left} ${operator} ${right.includes(" ") ? `(${right})` : right}`;
  }

  /** Any image at all for a node: mostly one that it has to refuse. */
  async #offerAnything(node: WorldNode): Promise<void> {
    const { random } = this;
    const { volume } = random.pick(this.nodes.filter((other) => other !== node));
    const all = volume.snapshots();
    const [top, base] = [random.pick(all), random.oneIn(3) ? undefined : random.pick(all)];
    const image = new Image(volume, top, base);
    this.#touch(`is offered ${top.name} since ${base?.name ?? "nothing"}`, node);
    await this.#offer(node, image, await this.truth.checkImage(image));
  }

  async #promote(node: WorldNode): Promise<void> {
    const origins = this.nodes.filter(({ isOrigin }) => isOrigin);
    if (node.place.make === "overlay" || origins.length > 2) return;
    this.#touch("promote", node);
    const { volume } = node;
    const { epoch } = volume.history;
    this.#beginWriting(node);
    await volume.promote();
    this.#committed(node);
    assertEquals([volume.role, volume.history.epoch], ["origin", epoch + 1]);
    this.#count("takeovers");
  }

  /** Back to the newest snapshot in common with another node, or to any of its own. */
  async #resync(node: WorldNode): Promise<void> {
    const { random } = this;
    const { volume } = node;
    const others = this.nodes.filter((other) => other !== node);
    // Somebody has to write.
    if (!others.some(({ isOrigin }) => isOrigin) || volume.snapshots().length === 0) return;
    const source = random.pick(others);
    const theirs = new Set(source.volume.snapshots().map(({ id }) => id));
    const plan = planResync(volume, theirs);
    const to = random.oneIn(3) ? random.pick(volume.snapshots()) : plan.common;
    if (to === undefined) return this.#count("nothing in common");
    this.#touch(`goes back to ${to.name}`, node);
    if (node.isOrigin) this.#count("origins back");
    await volume.goBack(to);
    assertEquals([volume.role, volume.current.id], ["replica", to.id]);
    await node.received();
    this.#count("back");
    if (random.oneIn(2)) return;
    await this.#reopen(node);
  }

  /** Local changes, until an image comes in. */
  #beginLocal(node: WorldNode): void {
    if (node.place.make === "overlay" || node.writes !== undefined) return;
    this.#touch("local writes", node);
    this.#beginWriting(node);
    this.#count("local writes");
  }

  #beginWriting(node: WorldNode): void {
    if (node.writes !== undefined) return;
    node.write(this.truth.of(node.volume.current.id).model, this.random.fork());
  }

  async #reopen(node: WorldNode): Promise<void> {
    const how = this.random.oneIn(2) ? "in order" : "crash";
    this.#touch(`reopen, ${how}`, node);
    await node.reopen(how, this.random.fork());
    this.#count(how === "crash" ? "crashes" : "reopened");
  }

  #read(node: WorldNode): void {
    if (node.volume.snapshots().length === 0) return;
    const { id, name } = this.random.pick(node.volume.snapshots());
    this.#touch(`somebody reads ${name}`, node);
    node.read(id, this.truth.of(id).all);
  }

  /** A site is noted where it stands; nobody deletes that from now on. */
  async #confirm(node: WorldNode): Promise<void> {
    const { volume } = node;
    const site = this.random.pick(this.nodes.filter((other) => other !== node));
    const { id } = site.volume.current;
    if (volume.findBase(id) === undefined) return;
    this.#touch(`${site.name} stands on ${id}`, node);
    await volume.updateLocal(({ sites }) => {
      sites[site.name] = { snapshot: id, needs: [], confirmedAt: 0 };
    });
    this.#count("confirmed");
  }

  /** Bases of sites that keep too much become shadows; those of mirrors do not. */
  async #pinBudget(node: WorldNode): Promise<void> {
    this.#touch("pin budget", node);
    const { volume } = node;
    const { cp } = volume.current;
    const log: string[] = [];
    const holder = new Node({ name: node.name, path: node.name, volume });
    const before = volume.shadows().length;
    const mirrored = volume.snapshots().filter(({ name }) => name.startsWith("mirror."));
    await new PinBudget(holder, { bytes: 20_000, log: (text) => log.push(text) }).enforce();
    for (const { id, name } of mirrored) assert(volume.find(id) !== undefined, name);
    if (volume.current.cp !== cp) this.#committed(node);
    if (volume.shadows().length > before) this.#count("shadows by budget");
  }

  /** Some shadows of a node as bases of anything that it has, older tops too. */
  async #checkShadows({ volume }: WorldNode): Promise<void> {
    const [tops, shadows] = [volume.snapshots(), volume.shadows()];
    if (tops.length === 0 || shadows.length === 0) return;
    for (let i = 0; i < 3; i++) {
      const image = new Image(volume, this.random.pick(tops), this.random.pick(shadows));
      await this.truth.checkImage(image);
    }
  }

  /** What was changed at an origin is in a consistency point. */
  #committed({ writes }: WorldNode): void {
    if (writes !== undefined) writes.committed = writes.model.clone();
  }

  #touch(what: string, node: WorldNode): void {
    this.trace.push(`${this.#steps} ${node.name}: ${what}`);
    if (!this.#touched.includes(node)) this.#touched.push(node);
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}

function standsOn(volume: Volume, id: string): boolean {
  return Object.values(volume.local.sites)
    .some(({ snapshot, needs }) => snapshot === id || needs.includes(id));
}

/** Refused with an error of this kind. */
async function refused(promise: Promise<unknown>, kind: string): Promise<void> {
  const error = await assertRejects(() => promise, VolcastError);
  assertEquals(error.kind, kind, error.message);
}

/** What a node has to say to an image, by the definitions alone. */
function verdictOf(volume: Volume, image: Image): Verdict {
  if (image.header.fragment === true) return "unsupported";
  if (volume.role === "origin") return "diverged";
  if (image.top.id === volume.current.id) return "nothing";
  if (image.base === undefined) return "diverged";
  const withRole = (role: string) =>
    image.terms.filter((term) => term.role === role).map(({ snapshot }) => snapshot.id);
  const required = withRole("required");
  const here = new Set(volume.snapshots().map(({ id }) => id));
  const bases = [...withRole("alternative"), ...required, image.base.id];
  if (required.length > 0 && bases.some((id) => !here.has(id))) return "diverged";
  return bases.includes(volume.current.id) ? "fits" : "diverged";
}
