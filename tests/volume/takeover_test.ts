// From a received root to one that can be written, at every cut: promotion, local changes, going back.

import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { popcount, sum, VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { countChanged, fsck, readAll, Volume } from "../../src/volume/mod.ts";
import { everyCut, fullState } from "../helpers/cuts.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import {
  advance,
  assertSame,
  blockAt,
  imageOf,
  reachedFrom,
  type Replica,
  replicaOf,
} from "../helpers/replicas.ts";
import { copyOf, flipBit } from "../helpers/stores.ts";
import { sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const LOCAL = { localWrites: true } as const;

async function release(volume: Volume, name: string, pointers = ["master"]): Promise<void> {
  const random = new Random(name.length * 1000 + name.charCodeAt(name.length - 1));
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    for (let i = 0; i < 6; i++) {
      const file = fs.lookup(INO.root, `f${i}`) ?? fs.create(INO.root, `f${i}`, { type: "file" });
      if (random.oneIn(2)) fs.write(file, random.below(20_000), random.bytes(9000));
    }
    fs.create(INO.root, `only in ${name}`, { type: "file" });
    await writer.takeSnapshot(name, { pointers });
  });
}

interface World {
  readonly origin: { store: MemoryStore; volume: Volume };
  /** Has s3 whole, and s4 and s5 by increments; s1 and s2 are listed and not here. */
  readonly replica: Replica;
}

/** An origin and a replica whose received root lists more than is there. */
async function world(capacity = 1500): Promise<World> {
  const store = new MemoryStore(capacity);
  const volume = await Volume.create(store, { now: tickingClock() });
  for (const name of ["s1", "s2", "s3"]) await release(volume, name);
  await volume.exclusive((w) => w.setPointer("stable", volume.resolve("s2").id));
  for (const name of ["s4", "s5"]) {
    await release(volume, name, name === "s4" ? ["master", "beta"] : ["master"]);
  }
  const replica = await replicaOf(volume, "s3");
  await advance(replica.volume, volume, "s4");
  await advance(replica.volume, volume, "s5");
  return { origin: { store, volume }, replica };
}

/** Everything that is under no plane of what is held becomes garbage: none of it may be read. */
function spoil({ store, volume }: Replica): void {
  const kept = new Set<number>();
  for (const snapshot of volume.snapshots()) {
    for (const vbn of reachedFrom(volume, snapshot)) kept.add(vbn);
  }
  const garbage = new Random(3).bytes(4096);
  for (let vbn = volume.zone.data.start; vbn < volume.zone.capacity; vbn++) {
    if (!kept.has(vbn)) store.write(vbn, garbage);
  }
}

/** The volume of a store, opened as another process would. */
function reopened(replica: Replica, options = {}): Volume {
  replica.volume.abandon();
  return replica.volume = Volume.open(replica.store, { now: tickingClock(), ...options });
}

function textOf(volume: Volume, ref: string, path: string): string {
  const view = volume.view(ref);
  try {
    return new TextDecoder().decode(readAll(view.fs, view.fs.resolve(path)));
  } finally {
    view.release();
  }
}

async function write(volume: Volume, name: string, text: string): Promise<void> {
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    const ino = fs.lookup(INO.root, name) ?? fs.create(INO.root, name, { type: "file" });
    fs.truncate(ino, 0);
    fs.write(ino, 0, new TextEncoder().encode(text));
    await writer.checkpoint();
  });
}

test("Volume.promote makes an origin that lists what is here, and reads nothing that is not", async () => {
  const { origin, replica } = await world();
  const before = describe(replica.volume.view().fs, { all: true });
  const applied = replica.volume.current;
  const held = replica.volume.snapshots().map(({ id, name }) => ({ id, name }));
  assertEquals(held.map(({ name }) => name), ["s3", "s4", "s5"]);
  spoil(replica);
  const volume = reopened(replica);
  await volume.promote();
  const free = volume.freeBlocks;
  for (const open of [() => volume, () => reopened(replica)]) {
    const one = open();
    assertEquals(one.freeBlocks, free, "as counted anew");
    assertEquals([one.role, one.root.epoch], ["origin", 2]);
    assertEquals(one.snapshots().map(({ id, name }) => ({ id, name })), held);
    assertEquals(one.history.takeovers.map(({ cp }) => cp), [applied.cp + 1]);
    // `stable` means s2, which is not here; `beta` means s4, which is.
    assertEquals(one.pointers().map(({ name, snapshot }) => [name, one.resolve(snapshot).name]), [
      ["master", "s5"],
      ["beta", "s4"],
    ]);
    // The record of the applied snapshot is the one that the old source has.
    assertEquals({ ...one.resolve("s5") }, { ...origin.volume.resolve("s5") });
    const views = [one.view(), one.view("s5")];
    for (const view of views) {
      assertEquals(describe(view.fs, { all: true }), before);
      view.release();
    }
    assertClean(one);
  }
  for (const { id } of held) assertSame(origin, replica, id);
  // It is written on, and the sites that stood on what it lists go on with increments.
  await release(replica.volume, "s6");
  assertClean(replica.volume);
  for (const base of ["s3", "s4", "s5"]) {
    const site = await replicaOf(origin.volume, base);
    await advance(site.volume, replica.volume, "s6");
    assertSame(replica, site, replica.volume.resolve("s6").id);
    assertClean(site.volume);
  }
  const error = await assertRejects(() => replica.volume.promote(), VolcastError, "in epoch 2");
  assertEquals(error.kind, "nothing");
});

test("Volume.promote leaves a replica or an origin after a crash at every write and sync", async () => {
  const { replica } = await world();
  replica.volume.abandon();
  const states = await everyCut(replica.store, (volume) => volume.promote(), { seed: 1 });
  assertEquals(states.map((state) => JSON.parse(state).role), ["replica", "origin"]);
});

test("a promoted volume never gives out a block of a snapshot that is held", async () => {
  const { replica } = await world(1100);
  const { volume, store } = replica;
  const held = volume.snapshots();
  const before = new Map<number, Uint8Array>();
  for (const snapshot of held) {
    for (const vbn of reachedFrom(volume, snapshot)) before.set(vbn, blockAt(store, vbn));
  }
  await volume.promote();
  // Until the allocator has come around more than once.
  for (let i = 0; i < 60; i++) {
    await write(volume, "churn", "x".repeat(150_000));
    await volume.exclusive(async (writer) => {
      writer.fs.remove(INO.root, "churn");
      await writer.checkpoint();
    });
  }
  for (const [vbn, bytes] of before) assertEquals(blockAt(store, vbn), bytes, `VBN ${vbn}`);
  assertClean(volume);
  const planes = held.map((snapshot) => volume.plane(snapshot));
  assert(popcount(sum(...planes)) > popcount(planes[2]), "the planes differ, or nothing is tested");
});

test("Volume.promote works in a full volume, and is refused where its consistency point has no room", async () => {
  let refused = 0;
  // More and more of what is kept back for consistency points is taken; nobody can, a test can.
  for (const left of [200, 40, 24, 20, 18, 16, 14, 12, 10]) {
    const volume = await Volume.create(new MemoryStore(700), { now: tickingClock() });
    await volume.exclusive(async (writer) => {
      const ino = writer.fs.create(INO.root, "large", { type: "file" });
      await writer.checkpoint();
      const bytes = new Random(1).bytes((writer.space.freeCount - left) * 4096);
      writer.fs.writeMetafile(ino, bytes);
      await writer.checkpoint();
    });
    const replica = await replicaOf(volume, "active");
    const before = fullState(replica.volume);
    const error = await replica.volume.promote().catch((error) => error);
    assertEquals(
      replica.volume.poisoned,
      undefined,
      `${left}: ${replica.volume.poisoned?.message}`,
    );
    if (error !== undefined) {
      refused++;
      assert(error instanceof VolcastError && error.kind === "full", String(error));
      assertEquals(fullState(reopened(replica)), before);
      continue;
    }
    assertEquals(refused, 0, `promoted with ${left}, refused with more`);
    // A snapshot of `active` has no name of its own.
    assertEquals(reopened(replica).snapshots().map(({ name }) => name), ["cp3"]);
    assertClean(replica.volume);
  }
  // An origin keeps back 32 blocks for its consistency points; half of them are enough.
  assert(refused >= 1 && refused <= 4, `${refused} refused`);
});

test("local changes are read as active, last through a reopen, and leave all else as it was", async () => {
  const { origin, replica } = await world();
  spoil(replica);
  const volume = reopened(replica, LOCAL);
  const { current } = volume;
  const shown = () => ({
    current: volume.current,
    snapshots: volume.snapshots(),
    pointers: volume.pointers(),
    history: volume.history,
  });
  const before = shown();
  const blocks = new Map<number, Uint8Array>();
  for (const snapshot of volume.snapshots()) {
    for (const vbn of reachedFrom(volume, snapshot)) blocks.set(vbn, blockAt(replica.store, vbn));
  }
  await write(volume, "here", "only here");
  await volume.exclusive((w) => w.takeSnapshot("mine", { pointers: ["local"] }));
  await write(volume, "f0", "changed here");
  for (let i = 0; i < 20; i++) await write(volume, "churn", `${i}`.repeat(100_000));
  assertEquals(shown(), before);
  for (const open of [() => volume, () => reopened(replica, LOCAL)]) {
    const one = open();
    assertEquals(one.role, "replica");
    assertEquals(one.find("active")?.name, "active");
    assertNotEquals(one.active.id, current.id);
    assertEquals(one.localSnapshots().map(({ name }) => name), ["mine"]);
    assertEquals(textOf(one, "active", "f0"), "changed here");
    assertEquals(textOf(one, "local", "here"), "only here");
    assertEquals(
      describe(one.view("master").fs, { all: true }),
      describe(origin.volume.view("s5").fs, { all: true }),
    );
    assertEquals(one.view("mine").fs.lookup(INO.root, "churn"), undefined);
    assertClean(one);
    one.leases.endAll();
  }
  // I4: nothing under a plane of what was applied has changed.
  for (const [vbn, bytes] of blocks) assertEquals(blockAt(replica.store, vbn), bytes, `VBN ${vbn}`);
  for (const { id } of before.snapshots) assertSame(origin, replica, id);
  // Written on after the reopen.
  await write(replica.volume, "again", "and again");
  assertEquals(textOf(replica.volume, "active", "again"), "and again");
  assertClean(replica.volume);
});

test("fsck checks the applied root and the local changes: blocks, snapshots, summary", async () => {
  const { replica } = await world();
  const volume = reopened(replica, LOCAL);
  await write(volume, "here", "only in mine".repeat(1000));
  await volume.exclusive((w) => w.takeSnapshot("mine"));
  await write(volume, "here", "only in active".repeat(1000));
  const placeOf = (ref: string, path: string) => {
    const fs = volume.fileSystem(volume.resolve(ref));
    return fs.open(fs.resolve(path)).tree.pointer(0).vbn;
  };
  const places = [placeOf("s5", "f0"), placeOf("mine", "here"), placeOf("active", "here")];
  assertEquals(new Set(places).size, 3);
  for (const vbn of places) {
    const store = copyOf(replica.store);
    // Nothing of the session that wrote it waits in memory.
    await volume.syncReceived();
    flipBit(store, vbn, 99);
    const found = Volume.open(store);
    const { findings } = fsck(found);
    assert(findings.some(({ problem }) => problem.includes(`VBN ${vbn}`)), `VBN ${vbn} is wrong`);
    found.abandon();
  }
  await volume.exclusive(async (writer) => {
    // The last block of the volume, which nothing uses.
    writer.space.summary.writableBlock(0)[Math.floor((volume.zone.capacity - 1) / 8)] ^= 0x80;
    await writer.checkpoint();
  });
  assertMatch(fsck(volume).findings[0].problem, /The summary has/);
});

test("a replica takes local changes only where that was asked for, and keeps the parent's things", async () => {
  const { replica } = await world();
  const refused = await assertRejects(() => write(replica.volume, "a", "b"), VolcastError);
  assertEquals(refused.kind, "read-only");
  const volume = reopened(replica, LOCAL);
  const before = fullState(volume);
  await volume.checkpoint();
  assertEquals(fullState(volume), before, "a consistency point of nothing begins no changes");
  const refusals = [
    () => volume.exclusive((w) => w.takeSnapshot("x", { pointers: ["master"] })),
    () => volume.exclusive((w) => w.setPointer("beta", volume.resolve("s4").id)),
    () => volume.exclusive((w) => w.deleteSnapshot(volume.resolve("s4").id)),
    () => volume.exclusive((w) => w.deleteSnapshot(volume.resolve("s5").id)),
  ];
  for (const refusal of refusals) {
    assertEquals((await assertRejects(refusal, VolcastError)).kind, "read-only");
  }
  await volume.exclusive((w) => w.takeSnapshot("mine"));
  const taken = volume.resolve("mine").id;
  await volume.exclusive((w) => w.setPointer("local", taken));
  const held = await assertRejects(() => volume.exclusive((w) => w.deleteSnapshot(taken)));
  assert(held instanceof VolcastError && held.kind === "held", String(held));
  await volume.exclusive((w) => w.setPointer("local", volume.resolve("s4").id));
  await volume.exclusive((w) => w.deleteSnapshot(taken));
  assertEquals([volume.find("mine"), volume.find("local")?.name], [undefined, "s4"]);
  assertClean(volume);
  // Without being asked for they can be read still, and nothing more.
  const found = reopened(replica);
  assertEquals(found.find("active")?.name, "active");
  await assertRejects(() => found.checkpoint(), VolcastError, "replica");
  assertClean(found);
});

test("consistency points of local changes are there or not after a crash at every write and sync", async () => {
  const { replica } = await world();
  replica.volume.abandon();
  const states = await everyCut(replica.store, async (volume) => {
    await write(volume, "one", "1");
    await volume.exclusive((w) => w.takeSnapshot("mine", { pointers: ["local"] }));
    await write(volume, "two", "2".repeat(20_000));
  }, { seed: 2, volume: LOCAL });
  const local = states.map((state) => JSON.parse(state).local.length);
  assertEquals([local[0], local.at(-1)], [0, 1]);
  assert(states.length >= 4, `${states.length} states`);
});

test("an image flushes local changes, says what went, and a crash leaves one of three states", async () => {
  const { origin, replica } = await world();
  await release(origin.volume, "s6");
  const volume = reopened(replica, LOCAL);
  await write(volume, "here", "only here");
  await write(volume, "f0", "changed here");
  await volume.exclusive((w) => w.takeSnapshot("mine"));
  volume.abandon();
  const image = imageOf(origin.volume, "s6", "s5");
  let said: unknown;
  const states = await everyCut(copyOf(replica.store), async (found) => {
    const view = found.view("active");
    const applied = await applyImage(found, sourceOfImage(image), {
      drainMs: 0,
      flushed: (flushed) => said = flushed,
    });
    assertEquals(applied.flushed, said as typeof applied.flushed);
    view.release();
  }, { seed: 3, volume: LOCAL });
  assertEquals(said, { files: 2, snapshots: ["mine"] });
  const seen = states.map((text) => {
    const { state, local } = JSON.parse(text);
    return `${state.current.name} and ${local.length} of its own`;
  });
  assertEquals([...new Set(seen)], [
    "s5 and 1 of its own",
    "s5 and 0 of its own",
    "s6 and 0 of its own",
  ]);

  // And new ones begin on what was applied.
  const after = reopened(replica, LOCAL);
  await applyImage(after, sourceOfImage(image));
  assertSame(origin, replica, origin.volume.resolve("s6").id);
  assertEquals(after.active.id, after.current.id);
  await write(after, "here", "again");
  assertEquals(textOf(after, "active", "here"), "again");
  assertClean(after);
});

test("no local change begins while an image comes in, nor goes on over what a cut one left", async () => {
  const { origin, replica } = await world();
  await release(origin.volume, "s6");
  const volume = reopened(replica, LOCAL);
  const image = imageOf(origin.volume, "s6", "s5");
  const whole = sourceOfImage(image);
  // The end is missing: what came before it is recorded.
  const cut = {
    ...whole,
    open: (offset: number) =>
      Promise.resolve(image.stream({ from: offset, to: image.byteCount - 70 })),
  };
  let busy: unknown;
  await assertRejects(() =>
    applyImage(volume, cut, {
      progress: () => void (busy ??= write(volume, "x", "y").catch((error) => error)),
    })
  );
  const error = await busy;
  assert(error instanceof VolcastError && error.kind === "busy", String(error));
  assert(volume.local.transfer !== undefined, "what has arrived is recorded");
  await write(volume, "x", "y".repeat(50_000));
  assertEquals(volume.local.transfer, undefined);
  await applyImage(volume, whole);
  assertSame(origin, replica, origin.volume.resolve("s6").id);
  assertClean(volume);
});

test("Volume.promote with local changes makes them the origin's, of the new epoch from the first on", async () => {
  const { origin, replica } = await world();
  const volume = reopened(replica, LOCAL);
  const { cp } = volume.current;
  await write(volume, "here", "only here");
  await volume.exclusive((w) => w.takeSnapshot("mine"));
  await write(volume, "later", "not in a snapshot");
  await volume.promote();
  const one = reopened(replica);
  assertEquals(one.history.takeovers[0].cp, cp + 1);
  assertEquals(one.snapshots().map(({ name }) => name), ["s3", "s4", "s5", "mine"]);
  assertEquals(one.localSnapshots(), []);
  assertEquals([one.find("master")?.name, one.superblock.branch], ["s5", undefined]);
  assertEquals(textOf(one, "active", "later"), "not in a snapshot");
  assertClean(one);
  assertSame(origin, replica, origin.volume.resolve("s5").id);
});

test("who reads a snapshot that no list has any more is waited for before its blocks are given out", async () => {
  const { origin, replica } = await world();
  const { volume } = replica;
  const view = volume.view("s4");
  await origin.volume.exclusive((w) => w.setPointer("beta", origin.volume.resolve("s5").id));
  await origin.volume.exclusive((w) => w.deleteSnapshot(origin.volume.resolve("s4").id));
  await origin.volume.exclusive((w) => w.takeSnapshot("s6", { pointers: ["master"] }));
  await advance(volume, origin.volume, "s6");
  assertEquals([volume.find("s4"), volume.leases.size], [undefined, 1], "nothing was in its way");
  let isPromoted = false;
  const promoted = volume.promote().then(() => isPromoted = true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(isPromoted, false);
  view.release();
  await promoted;
  assertClean(volume);
});

test("Volume.goBack takes an origin, a replica and local changes back, at every cut", async () => {
  const { origin, replica } = await world();
  await write(origin.volume, "unpublished", "x");
  await release(origin.volume, "s6");
  origin.volume.abandon();
  replica.volume.abandon();
  for (const [name, store] of [["origin", origin.store], ["replica", replica.store]] as const) {
    const states = await everyCut(store, (volume) => volume.goBack(volume.resolve("s4")), {
      seed: 4,
    });
    const [first, last] = [states[0], states.at(-1)!].map((state) => JSON.parse(state));
    assertEquals([first.role, last.role], [name, "replica"]);
    assertEquals(last.state.current.name, "s4");
    const here = last.state.views.length;
    // The origin has s1 to s3 below s4; the replica only s3.
    assertEquals(here, name === "origin" ? 4 : 2);
  }
  const volume = reopened(replica, LOCAL);
  await write(volume, "here", "only here");
  const top = origin.volume.resolve("s6").id;
  await volume.updateLocal((state) => {
    state.transfer = { top, base: volume.current.id, frames: 3 };
  });
  await volume.goBack(volume.current);
  assertEquals([volume.superblock.branch, volume.current.name], [undefined, "s5"]);
  assertEquals(volume.local.transfer, undefined, "what had arrived may be written over");
  assertClean(volume);
});

test("Volume.goBack holds nothing whose blocks were given out since, though the older root lists it", async () => {
  const { origin, replica } = await world(1100);
  const volume = reopened(replica, LOCAL);
  const fill = async () => {
    for (let i = 0; i < 12; i++) await write(volume, `fill${i % 3}`, `${i}`.repeat(400_000));
  };
  // At the origin s4 goes; s6 does not list it, and local changes may use its blocks.
  const s4 = origin.volume.resolve("s4");
  await origin.volume.exclusive((w) => w.setPointer("beta", origin.volume.resolve("s5").id));
  await origin.volume.exclusive((w) => w.deleteSnapshot(s4.id));
  await release(origin.volume, "s6");
  await advance(volume, origin.volume, "s6");
  assertEquals(volume.snapshots().map(({ name }) => name), ["s3", "s5", "s6"]);
  await fill();
  await volume.goBack(volume.resolve("s5"));
  assertEquals(volume.snapshots().map(({ name }) => name), ["s3", "s5"]);
  assertClean(volume);
  // After a takeover s3 goes here, and its blocks are used as well.
  await volume.promote();
  const s3 = volume.resolve("s3").id;
  await volume.exclusive((w) => w.deleteSnapshot(s3));
  await fill();
  await volume.goBack(volume.resolve("s5"));
  assertEquals(volume.snapshots().map(({ name }) => name), ["s5"]);
  assertClean(volume);
});

test("an origin that went back pulls forward from the new source, block by block the same", async () => {
  const { origin, replica } = await world();
  await write(origin.volume, "unpublished", "lost");
  await release(origin.volume, "s6");
  await replica.volume.promote();
  await release(replica.volume, "t1");
  await release(replica.volume, "t2");
  const back = { store: origin.store, volume: Volume.open(origin.store) };
  origin.volume.abandon();
  assertEquals(
    countChanged(
      back.volume.fileSystem(back.volume.resolve("s5")),
      back.volume.fileSystem(back.volume.active),
    ) > 1,
    true,
  );
  await back.volume.goBack(back.volume.resolve("s5"));
  assertClean(back.volume);
  await advance(back.volume, replica.volume, "t2");
  assertSame(replica, back, replica.volume.resolve("t2").id);
  assertClean(back.volume);
  assertEquals(back.volume.root.epoch, 2);
});
