/**
 * What volumes do, for the crash simulation: scenarios as values.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { INO, zoneOf } from "../../src/format/mod.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage, Image, type ImageSource } from "../../src/image/mod.ts";
import { Mirror, planResync, type Standby } from "../../src/replication/mod.ts";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import { discardUnused, putFile, Volume } from "../../src/volume/mod.ts";
import { PACKED, STRIPED } from "../helpers/arrangements.ts";
import { History } from "../helpers/history.ts";
import { type Arrangement, ON_ONE_DISK, prepared, publish } from "../helpers/publisher.ts";
import type { Random } from "../helpers/random.ts";
import { advance, imageOf, imageOfText, replicaOf } from "../helpers/replicas.ts";
import { checkShadows, type Contents, contentsOf } from "../helpers/shadow_history.ts";
import { copyOf } from "../helpers/stores.ts";
import { bytesOf, sourceOf, sourceOfImage } from "../helpers/streams.ts";
import { type Acknowledge, quiet, type Scenario, type Scene } from "./crash_sim.ts";

const LOCAL = { localWrites: true } as const;

/** All scenarios, by what is written in the name. */
export const SCENARIOS: readonly Scenario[] = [
  publishing("publish", ON_ONE_DISK),
  publishing("publish into a packed file", PACKED),
  publishing("publish over a stripe", STRIPED),
  { name: "writers that share consistency points", begin: sharing },
  { name: "files of all kinds", begin: files },
  { name: "snapshots and pointers", begin: snapshots },
  { name: "shadows whose blocks are used again", begin: shadows },
  { name: "files put whole", begin: puts },
  { name: "local zone", begin: localZone },
  { name: "increment", begin: increment },
  { name: "increment that is cut and gone on with", begin: cutIncrement },
  { name: "full image", begin: (random) => full(random, "s2") },
  { name: "full image that is cut and gone on with", begin: (random) => full(random, "s2", true) },
  { name: "snapshots that come along", begin: history },
  { name: "image since a shadow", begin: staged },
  { name: "mirror source", begin: mirrorSource },
  { name: "promote and write", begin: promote },
  { name: "local changes and the image that flushes them", begin: flush },
  { name: "going back and following again", begin: goBack },
];

/** Writes a file whole, made where it is not there. */
async function write(volume: Volume, name: string, bytes: Uint8Array): Promise<void> {
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    fs.write(fs.lookup(INO.root, name) ?? fs.create(INO.root, name, { type: "file" }), 0, bytes);
    await writer.checkpoint();
  });
}

/** Whether a file has this content. */
function hasFile(name: string, bytes: Uint8Array): (volume: Volume) => boolean {
  return (volume) => {
    const view = volume.view("active");
    try {
      const ino = view.fs.resolve(`/${name}`);
      const found = new Uint8Array(bytes.length);
      view.fs.read(ino, 0, found);
      return Number(view.fs.stat(ino).size) === bytes.length &&
        found.every((byte, i) => byte === bytes[i]);
    } catch (error) {
      if (error instanceof VolcastError && error.kind === "not-found") return false;
      throw error;
    } finally {
      view.release();
    }
  };
}

/** A number that a volume has not had before, so that equal runs stay equal. */
function mark(volume: Volume): number {
  return volume.superblock.sequence;
}

/** The next publish: a file, a snapshot, the pointer. */
async function publishNext(volume: Volume): Promise<void> {
  const name = `next${mark(volume)}`;
  const bytes = new Uint8Array(6000).fill(mark(volume));
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    fs.write(fs.create(INO.root, name, { type: "file" }), 0, bytes);
    await writer.takeSnapshot(name, { pointers: ["master"] });
  });
  assert(hasFile(name, bytes)(volume), "what was published is there");
  assertEquals(volume.find("master")?.name, name);
}

function publishing(name: string, arrangement: Arrangement): Scenario {
  const isOne = arrangement === ON_ONE_DISK;
  return {
    name,
    begin: async () => ({
      disks: await prepared(700, arrangement),
      ...(isOne ? {} : { store: (disks: readonly BlockStore[]) => arrangement.open(disks) }),
      open: (store) => {
        const volume = Volume.open(store, quiet());
        discardUnused(volume);
        return volume;
      },
      work: (volume, acknowledge) => publish(volume, () => acknowledge()),
      next: publishNext,
    }),
  };
}

/** An origin in memory with files that changed between its snapshots. */
async function origin(
  random: Random,
  refs: readonly string[],
  capacity = 700,
): Promise<{ volume: Volume; store: MemoryStore }> {
  const store = new MemoryStore(capacity);
  const volume = await Volume.create(store, quiet());
  for (const name of refs) await release(volume, random, name);
  return { volume, store };
}

async function release(volume: Volume, random: Random, name: string): Promise<void> {
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    for (let i = 0; i < 6; i++) {
      const file = fs.lookup(INO.root, `f${i}`) ?? fs.create(INO.root, `f${i}`, { type: "file" });
      if (random.oneIn(2)) fs.write(file, random.below(20_000), random.bytes(9000));
    }
    fs.create(INO.root, `only in ${name}`, { type: "file" });
    await writer.takeSnapshot(name, { pointers: ["master"] });
  });
}

async function sharing(random: Random): Promise<Scene> {
  const { volume, store } = await origin(random, ["s1"]);
  await volume.close();
  return {
    disks: [store],
    async work(found, acknowledge) {
      for (let round = 0; round < 5; round++) {
        await Promise.all(Array.from({ length: 4 }, async (_, i) => {
          const name = `r${round}.${i}`;
          const bytes = random.bytes(random.between(1, 12_000));
          await found.exclusive(({ fs }) => {
            fs.write(fs.create(INO.root, name, { type: "file" }), 0, bytes);
          });
          await found.checkpoint();
          acknowledge(hasFile(name, bytes));
        }));
      }
    },
    next: publishNext,
  };
}

async function files(random: Random): Promise<Scene> {
  const made = await History.begin(new MemoryStore(1200), random, {
    writeBytes: 20_000,
    volume: quiet(),
  });
  await made.change(20);
  await made.snapshot();
  const { model, store } = made;
  await made.close();
  return {
    disks: [store],
    async work(volume, acknowledge) {
      const going = History.resume({ store, volume, model }, random, {
        writeBytes: 20_000,
        prefix: "t",
      });
      for (let round = 0; round < 12; round++) {
        await going.change(8);
        await going.checkpoint();
        acknowledge();
      }
    },
    next: publishNext,
  };
}

async function snapshots(random: Random): Promise<Scene> {
  const { volume, store } = await origin(random, ["s1", "s2", "s3"], 900);
  await volume.close();
  return {
    disks: [store],
    async work(found, acknowledge) {
      for (let round = 0; round < 5; round++) {
        await release(found, random, `t${round}`);
        acknowledge((seen) => seen.find(`t${round}`) !== undefined || round < 4);
        const { id } = found.snapshots()[random.below(found.snapshots().length)];
        await found.exclusive((writer) => writer.setPointer("stable", id));
        acknowledge();
        const free = found.snapshots().find((one) =>
          found.pointers().every(({ snapshot }) => snapshot !== one.id)
        );
        if (free === undefined) continue;
        await found.exclusive((writer) => writer.deleteSnapshot(free.id));
        acknowledge((seen) => seen.snapshots().every(({ id }) => id !== free.id));
      }
    },
    next: publishNext,
  };
}

async function shadows(random: Random): Promise<Scene> {
  const store = new MemoryStore(400);
  await (await Volume.create(store, quiet())).close();
  const had = new Map<string, Contents>();
  const churn = (volume: Volume) =>
    volume.exclusive(async (writer) => {
      const { fs } = writer;
      for (const name of ["x", "y"]) {
        const ino = fs.lookup(INO.root, name) ?? fs.create(INO.root, name, { type: "file" });
        fs.write(ino, random.below(10) * 4096, random.bytes(random.between(4096, 60_000)));
      }
      await writer.checkpoint();
    });
  return {
    disks: [store],
    async work(volume, acknowledge) {
      for (let round = 0; round < 8; round++) {
        await churn(volume);
        const taken = await volume.exclusive((writer) => writer.takeSnapshot(`s${round}`));
        had.set(taken.id, contentsOf(volume.io.store, volume, taken));
        acknowledge();
        if (round > 0) {
          const { id } = volume.resolve(`s${round - 1}`);
          await volume.exclusive((writer) => writer.shadowSnapshot(id));
          acknowledge((seen) => seen.snapshots().every((one) => one.id !== id));
        }
        for (let i = 0; i < 3; i++) await churn(volume);
        acknowledge();
        if (round !== 5) continue;
        await volume.exclusive((writer) => writer.deleteSnapshot(volume.shadows()[1].id));
        acknowledge();
      }
    },
    check: (volume, found) => void checkShadows(found, volume, had),
    async next(volume) {
      const ino = await volume.exclusive(async (writer) => {
        const { fs } = writer;
        const x = fs.lookup(INO.root, "x") ?? fs.create(INO.root, "x", { type: "file" });
        fs.write(x, 0, new Uint8Array(60_000).fill(mark(volume)));
        await writer.checkpoint();
        return x;
      });
      assert(ino > 0);
      checkShadows(volume.io.store, volume, had);
    },
  };
}

/** Files that take several consistency points to come in: under their names they are whole, or not there. */
async function puts(random: Random): Promise<Scene> {
  const { volume, store } = await origin(random, ["s1"], 1600);
  await volume.close();
  const open = (found: BlockStore) => Volume.open(found, quiet({ dirtyBytes: 1 }));
  const contents = [1, 2, 3].map((i) => random.bytes(i * 700_000));
  const put = (found: Volume, bytes: Uint8Array) =>
    putFile(found, "/backup", ReadableStream.from([bytes]), { overwrite: true });
  return {
    disks: [store],
    open,
    async work(found, acknowledge) {
      for (const bytes of contents) {
        await put(found, bytes);
        acknowledge((seen) => contents.some((one) => hasFile("backup", one)(seen)));
      }
    },
    check(found) {
      const isWhole = contents.some((bytes) => hasFile("backup", bytes)(found));
      assert(
        isWhole || found.fileSystem(found.current).directory(INO.root).find("backup") === undefined,
      );
    },
    async next(found) {
      const bytes = new Uint8Array(20_000).fill(mark(found));
      await put(found, bytes);
      assert(hasFile("backup", bytes)(found));
    },
  };
}

async function localZone(random: Random): Promise<Scene> {
  const { volume, store } = await origin(random, ["s1", "s2"]);
  const ids = volume.snapshots().map(({ id }) => id);
  await volume.close();
  return {
    disks: [store],
    async work(found, acknowledge) {
      for (let round = 0; round < 12; round++) {
        // Several sites confirm at once; consistency points are made between and beside them.
        const writing = round % 3 === 0
          ? write(found, `w${round}`, random.bytes(5000)).then(() => acknowledge())
          : undefined;
        await Promise.all([1, 2, 3].map(async (site) => {
          await found.updateLocal((state) => {
            state.sites[`site${site}`] = {
              snapshot: random.pick(ids),
              needs: Array.from({ length: round * 40 }, (_, i) => `${i + 1}-0000000${round % 10}`),
            };
          });
          acknowledge();
        }));
        await writing;
      }
    },
    async next(found) {
      await found.updateLocal((state) => {
        state.site = `site${mark(found)}`;
      });
      await publishNext(found);
    },
  };
}

/** The pull that follows: a replica comes to the parent's newest, from wherever it is. */
async function pull(volume: Volume, parent: Volume): Promise<void> {
  await volume.settle(0);
  const top = parent.resolve("master");
  if (!volume.hasRoot) {
    await applyImage(volume, sourceOfImage(new Image(parent, top)), { drainMs: 0 });
  } else if (volume.current.id !== top.id) await advance(volume, parent, top.id);
  assertEquals([volume.current.id, volume.superblock.remap], [top.id, undefined]);
  // The same bytes at every node (I4, I5), which also reads every block.
  assertEquals(volume.current.root, top.root);
}

/** A pull, and one more to what the parent published meanwhile. */
function pulling(parent: Volume, newer: Volume): Scene["next"] {
  return async (volume) => {
    if (!volume.hasRoot || volume.current.name !== "s3") await pull(volume, parent);
    await pull(volume, newer);
    const there = imageOf(newer, "master", "s2");
    const here = imageOf(volume, volume.current.id, undefined);
    assertEquals(here.header.top.root, there.header.top.root);
  };
}

/** A parent, a twin of it that went on, and a replica at `s1`. */
async function family(
  random: Random,
  capacity = 700,
): Promise<{ parent: Volume; newer: Volume; replica: MemoryStore; close: () => Promise<void> }> {
  const { volume: parent, store } = await origin(random, ["s1", "s2"], capacity);
  const replica = await replicaOf(parent, "s1");
  await replica.volume.close();
  const newer = Volume.open(copyOf(store), quiet());
  await release(newer, random, "s3");
  const close = async () => {
    await parent.close();
    await newer.close();
  };
  return { parent, newer, replica: replica.store, close };
}

async function increment(random: Random): Promise<Scene> {
  const { parent, newer, replica, close } = await family(random);
  return {
    disks: [replica],
    close,
    async work(volume, acknowledge) {
      await advance(volume, parent, "s2");
      acknowledge();
      await advance(volume, newer, "s3");
      acknowledge();
    },
    next: pulling(parent, newer),
  };
}

/** A source that breaks off after some bytes, every time. */
function breaking(bytes: Uint8Array<ArrayBuffer>, step: number): ImageSource {
  let limit = step;
  const source = sourceOf(bytes);
  return {
    open(offset) {
      if (limit >= bytes.length) return source.open(offset);
      return sourceOf(bytes.slice(0, Math.max(offset, limit))).open(offset);
    },
    retry: () => {
      limit += step;
      return Promise.resolve(limit % (2 * step) === 0);
    },
  };
}

/** Applies an image whose line breaks, beginning anew each time the transfer ends. */
async function applyInParts(
  volume: Volume,
  image: Image,
  acknowledge: Acknowledge,
): Promise<void> {
  const bytes = await bytesOf(image);
  const source = breaking(bytes, Math.ceil(bytes.length / 6));
  for (let turn = 0; turn < 9; turn++) {
    try {
      await applyImage(volume, source, { drainMs: 0, recordBytes: 20_000 });
      return acknowledge();
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind !== "damaged") throw error;
      acknowledge();
    }
  }
  throw new Error("the image never came in whole");
}

async function cutIncrement(random: Random): Promise<Scene> {
  const { parent, newer, replica, close } = await family(random);
  return {
    disks: [replica],
    close,
    async work(volume, acknowledge) {
      await applyInParts(volume, imageOf(parent, "s2", "s1"), acknowledge);
    },
    next: pulling(parent, newer),
  };
}

async function full(random: Random, ref: string, isCut = false): Promise<Scene> {
  const { parent, newer, close } = await family(random);
  const { volumeId } = parent;
  const { capacity } = zoneOf(700);
  return {
    disks: [new MemoryStore(capacity)],
    close,
    open(store) {
      try {
        return Volume.open(store, quiet());
      } catch (error) {
        if (!(error instanceof VolcastError) || error.kind !== "damaged") throw error;
        return Volume.incoming(store, volumeId, quiet());
      }
    },
    async work(volume, acknowledge) {
      if (isCut) return await applyInParts(volume, imageOf(parent, ref), acknowledge);
      await applyImage(volume, sourceOfImage(imageOf(parent, ref)));
      acknowledge();
      await advance(volume, newer, "s3");
      acknowledge();
    },
    next: pulling(parent, newer),
  };
}

/** Images that bring several snapshots, and one by an expression. */
async function history(random: Random): Promise<Scene> {
  const { volume: parent } = await origin(random, ["s1", "s2", "s3", "s4"], 900);
  const replica = await replicaOf(parent, "s1");
  await replica.volume.close();
  return {
    disks: [replica.store],
    close: () => parent.close(),
    async work(volume, acknowledge) {
      await applyImage(volume, sourceOfImage(imageOfText(parent, "s2 + s3 - s1")), { drainMs: 0 });
      acknowledge((seen) => seen.find("s2") !== undefined);
      await advance(volume, parent, "s4");
      acknowledge();
    },
    next: (volume) => pull(volume, parent),
  };
}

async function staged(random: Random): Promise<Scene> {
  for (;;) {
    const made = await History.begin(new MemoryStore(1500), random, {
      writeBytes: 40_000,
      volume: quiet(),
    });
    await made.churn(8, 500_000);
    await made.change(6);
    const begun = (await made.snapshot())!;
    const replica = await replicaOf(made.volume, begun.id);
    await made.volume.exclusive((writer) => writer.shadowSnapshot(begun.id));
    await made.churn(12, 800_000);
    const top = (await made.snapshot({ pointers: ["master"] }))!;
    await replica.volume.close();
    const twin = Volume.open(copyOf(replica.store), quiet());
    // Only where something has to be staged is there anything to see.
    let isStaged = false;
    const { stagedView } = twin;
    twin.stagedView = (staging) => {
      isStaged = true;
      return stagedView.call(twin, staging);
    };
    await advance(twin, made.volume, top.id);
    twin.abandon();
    if (!isStaged) {
      await made.close();
      continue;
    }
    return {
      disks: [replica.store],
      close: () => made.close(),
      async work(volume, acknowledge) {
        await advance(volume, made.volume, top.id);
        acknowledge();
      },
      async next(volume) {
        const view = volume.view();
        view.release();
        await pull(volume, made.volume);
      },
    };
  }
}

/** A standby in memory; what it has at each moment is kept. */
class MemoryStandby implements Standby {
  readonly name = "memory";
  store: MemoryStore;
  volume: Volume | undefined;

  constructor(store: MemoryStore, isEmpty: boolean) {
    this.store = store;
    this.volume = isEmpty ? undefined : Volume.open(store, quiet());
  }

  position(): ReturnType<Standby["position"]> {
    const { volume } = this;
    if (volume === undefined) return Promise.resolve({ node: "paris", role: "replica" });
    const { id, name, cp } = volume.current;
    const { volumeId, history: { epoch } } = volume;
    return Promise.resolve({
      node: "paris",
      role: "replica",
      volumeId,
      epoch,
      current: { id, name, cp },
    });
  }

  async take(image: Image): Promise<void> {
    this.volume ??= Volume.incoming(this.store, image.name.volumeId, quiet());
    await applyImage(this.volume, sourceOfImage(image), { drainMs: 0 });
  }
}

async function mirrorSource(random: Random): Promise<Scene> {
  const { volume: made, store } = await origin(random, ["s1"], 900);
  await made.close();
  interface Kept {
    readonly moment: number;
    readonly store: MemoryStore;
    readonly isEmpty: boolean;
  }
  const kept: Kept[] = [{ moment: 0, store: new MemoryStore(900), isEmpty: true }];
  /** What the standby had while the work went on after a crash. */
  let again: Kept[] = [];
  const mirrorOf = (volume: Volume, standby: Standby) =>
    new Mirror({ volume, volumeIfAny: volume }, standby);
  return {
    disks: [store],
    async work(volume, acknowledge, now) {
      const standby = new MemoryStandby(new MemoryStore(900), true);
      const mirror = mirrorOf(volume, {
        name: standby.name,
        position: () => standby.position(),
        take: async (image) => {
          await standby.take(image);
          kept.push({ moment: now(), store: copyOf(standby.store), isEmpty: false });
        },
      });
      for (let round = 0; round < 5; round++) {
        await write(volume, `m${round % 3}`, random.bytes(15_000));
        acknowledge();
        await mirror.round();
        acknowledge();
      }
      standby.volume?.abandon();
    },
    async next(volume, { moment, second, now }) {
      const last =
        (second === undefined ? undefined : again.findLast((one) => one.moment <= second)) ??
          kept.findLast((one) => one.moment <= moment)!;
      const standby = new MemoryStandby(copyOf(last.store), last.isEmpty);
      if (second === undefined) again = [];
      const mirror = mirrorOf(volume, {
        name: standby.name,
        position: () => standby.position(),
        take: async (image) => {
          await standby.take(image);
          if (now !== undefined) {
            again.push({ moment: now(), store: copyOf(standby.store), isEmpty: false });
          }
        },
      });
      await write(volume, "after", new Uint8Array(5000).fill(mark(volume)));
      await mirror.round();
      const there = standby.volume!;
      const here = volume.resolve(there.current.id);
      assertEquals(there.current.root, here.root);
      assert(volume.snapshots().filter(({ name }) => name.startsWith("mirror.")).length <= 3);
      there.abandon();
    },
  };
}

async function promote(random: Random): Promise<Scene> {
  const { parent, replica, close } = await family(random, 900);
  return {
    disks: [replica],
    close,
    async work(volume, acknowledge) {
      await advance(volume, parent, "s2");
      acknowledge();
      await volume.promote();
      acknowledge((seen) => seen.role === "origin");
      for (let i = 0; i < 4; i++) {
        const bytes = random.bytes(9000);
        await write(volume, `own${i}`, bytes);
        acknowledge(hasFile(`own${i}`, bytes));
      }
      await release(volume, random, "mine");
      acknowledge();
    },
    async next(volume) {
      if (volume.role === "replica") {
        await pull(volume, parent);
        await volume.promote();
      }
      await publishNext(volume);
    },
  };
}

async function flush(random: Random): Promise<Scene> {
  const { parent, newer, replica, close } = await family(random, 900);
  return {
    disks: [replica],
    close,
    open: (store) => Volume.open(store, quiet(LOCAL)),
    async work(volume, acknowledge) {
      for (let round = 0; round < 2; round++) {
        const bytes = random.bytes(9000);
        await write(volume, "here", bytes);
        acknowledge();
        await volume.exclusive((writer) => writer.takeSnapshot(`mine${round}`));
        acknowledge();
        await write(volume, "f0", random.bytes(20_000));
        acknowledge();
        await advance(volume, round === 0 ? parent : newer, round === 0 ? "s2" : "s3");
        acknowledge((seen) => seen.current.name !== "s1");
      }
    },
    async next(volume) {
      await write(volume, "again", new Uint8Array(7000).fill(mark(volume)));
      const isBehind = volume.current.name !== "s3";
      await pull(volume, newer);
      // Local changes last until an image comes in, and no longer.
      assertEquals(volume.superblock.branch === undefined, isBehind);
    },
  };
}

async function goBack(random: Random): Promise<Scene> {
  const { parent, newer, replica, close } = await family(random, 900);
  const parentHas = new Set(newer.snapshots().map(({ id }) => id));
  const resync = async (volume: Volume) => {
    const { common, goesBack } = planResync(volume, parentHas);
    if (common === undefined) throw new Error("there is nothing in common");
    if (goesBack) await volume.goBack(common);
    await pull(volume, newer);
  };
  return {
    disks: [replica],
    close,
    async work(volume, acknowledge) {
      await advance(volume, parent, "s2");
      await volume.promote();
      for (let i = 0; i < 3; i++) await write(volume, "own", random.bytes(12_000));
      await release(volume, random, "mine");
      acknowledge();
      await resync(volume);
      acknowledge();
    },
    next: resync,
  };
}
