import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage, Image, type ImageSource } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forgeImage, parseImage } from "../helpers/parse_image.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import {
  advance,
  assertSame,
  assertUnchanged,
  imageOf,
  imageOfText,
  type Replica,
  replicaOf,
  stateOf,
  twin,
} from "../helpers/replicas.ts";
import { copyOf, CrashStore, FaultStore, flipBit } from "../helpers/stores.ts";
import { bytesOf, sourceOf, sourceOfImage, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

interface Scene {
  readonly history: History;
  readonly ids: string[];
  /** Stands at the first snapshot. */
  readonly replica: Replica;
  /** The increment from the first to the last. */
  readonly increment: Uint8Array<ArrayBuffer>;
}

/** An origin with three snapshots and a replica at the first. */
async function scene(random: Random, capacity = 1500): Promise<Scene> {
  const history = await History.begin(new MemoryStore(capacity), random, { writeBytes: 30_000 });
  for (let i = 0; i < 3; i++) {
    await history.change(20);
    await history.snapshot({ pointers: ["master"] });
  }
  const ids = history.kept.map(({ id }) => id);
  const replica = await replicaOf(history.volume, ids[0]);
  const increment = await bytesOf(imageOf(history.volume, ids[2], ids[0]));
  return { history, ids, replica, increment };
}

async function closeScene({ history, replica }: Scene): Promise<void> {
  await history.close();
  await replica.volume.close();
}

function refused(replica: Replica, bytes: Uint8Array): Promise<VolcastError> {
  return assertRejects(() => applyImage(replica.volume, sourceOf(bytes)), VolcastError);
}

test("applyImage refuses images that do not belong here, and says why", async () => {
  const here = await scene(new Random(1));
  const { history, ids, replica } = here;
  const before = stateOf(replica.volume);
  const cases: [kind: string, bytes: Uint8Array][] = [
    ["diverged", await bytesOf(imageOf(history.volume, ids[2], ids[1]))],
    ["diverged", await bytesOf(imageOf(history.volume, ids[2]))],
    ["nothing", await bytesOf(imageOf(history.volume, ids[0], ids[1]))],
    ["nothing", await bytesOf(imageOf(history.volume, ids[0]))],
  ];
  const other = await scene(new Random(2));
  cases.push(["diverged", other.increment]);
  for (const [kind, bytes] of cases) {
    assertEquals((await refused(replica, bytes)).kind, kind);
    assertUnchanged(replica, before);
  }
  assertEquals(
    (await assertRejects(
      () => applyImage(history.volume, sourceOf(here.increment)),
      VolcastError,
    )).kind,
    "diverged",
  );
  for (const capacity of [1499, 1501]) {
    const volume = Volume.incoming(new MemoryStore(capacity), history.volume.volumeId);
    const full = await bytesOf(imageOf(history.volume, ids[0]));
    assertEquals(
      (await assertRejects(() => applyImage(volume, sourceOf(full)), VolcastError)).kind,
      "diverged",
    );
    assertEquals(volume.hasRoot, false);
    await volume.close();
  }
  const empty = Volume.incoming(new MemoryStore(1500), history.volume.volumeId);
  assertEquals(
    (await assertRejects(() => applyImage(empty, sourceOf(here.increment)), VolcastError)).kind,
    "diverged",
  );
  await empty.close();
  await closeScene(other);
  await closeScene(here);
});

test("applyImage never touches an origin, not even one that stands at the base", async () => {
  const history = await History.begin(new MemoryStore(1500), new Random(3));
  await history.change(20);
  await history.checkpoint();
  const store = copyOf(history.store);
  const base = history.volume.view();
  await history.change(10);
  const top = await history.snapshot();
  const image = new Image(history.volume, history.volume.resolve(top!.id), base.snapshot);
  const twin: Replica = { store, volume: Volume.open(store) };
  assertEquals([twin.volume.role, twin.volume.current.id], ["origin", base.snapshot.id]);
  const before = stateOf(twin.volume);
  const error = await refused(twin, await bytesOf(image));
  assertEquals(error.kind, "diverged");
  assert(error.message.includes("origin"), error.message);
  assertUnchanged(twin, before);
  await twin.volume.close();
  base.release();
  await history.close();
});

test("applyImage refuses a stream cut off anywhere, and goes on from the rest", async () => {
  await forSeeds(seeds(5, 2), async (random) => {
    const here = await scene(random);
    const { history, ids, replica, increment } = here;
    const before = stateOf(replica.volume);
    const { frameOffsets, length } = parseImage(increment);
    const cuts = new Set([0, 1, 500, 1023, 1024, 1025, length - 64, length - 1]);
    for (const offset of frameOffsets) {
      for (const cut of [offset - 1, offset, offset + 1, offset + 16]) cuts.add(cut);
    }
    for (const cut of cuts) {
      const target = twin(replica);
      const error = await refused(target, increment.subarray(0, cut));
      assertEquals(error.kind, "damaged");
      assertUnchanged(target, before);
      await applyImage(target.volume, sourceOf(increment));
      assertSame(history, target, ids[2]);
      await target.volume.close();
    }
    const target = twin(replica);
    const longer = new Uint8Array(length + 1);
    longer.set(increment);
    await refused(target, longer);
    assertUnchanged(target, before);
    await target.volume.close();
    await closeScene(here);
  });
});

test("applyImage refuses a stream with any single byte changed", async () => {
  await forSeeds(seeds(10, 3), async (random) => {
    const here = await scene(random);
    const { replica, increment } = here;
    const before = stateOf(replica.volume);
    const { frameOffsets, length } = parseImage(increment);
    const places = new Set<number>();
    for (let at = 0; at < 1024; at += 11) places.add(at);
    for (let at = 1024; at < frameOffsets[0]; at += 3) places.add(at);
    for (const offset of frameOffsets) for (let i = 0; i < 16; i += 3) places.add(offset + i);
    for (let at = length - 64; at < length; at += 2) places.add(at);
    for (let i = 0; i < 60; i++) places.add(random.below(length));
    const target = twin(replica);
    for (const place of places) {
      const bytes = increment.slice();
      bytes[place] ^= 1 << random.below(8);
      await refused(target, bytes);
      assertEquals(stateOf(target.volume), before, `byte ${place}`);
      if (random.oneIn(8)) assertUnchanged(target, before);
    }
    // After all these it is still as good as new.
    assertUnchanged(target, before);
    await applyImage(target.volume, sourceOf(increment));
    assertSame(here.history, target, here.ids[2]);
    await target.volume.close();
    await closeScene(here);
  });
});

/** A source whose streams break after some bytes, and which counts what it was asked for. */
function flaky(
  bytes: Uint8Array,
  breaks: number[],
  log: { offsets: number[]; progressed: boolean[] },
): ImageSource {
  return {
    open(offset) {
      log.offsets.push(offset);
      const most = breaks.shift();
      if (most === undefined) return Promise.resolve(streamOf(bytes.subarray(offset)));
      const whole = streamOf(bytes.subarray(offset, offset + most)).getReader();
      return Promise.resolve(
        new ReadableStream<Uint8Array>({
          async pull(controller) {
            const { value, done } = await whole.read();
            if (!done) controller.enqueue(value);
            // Some transports say so, some just end.
            else if (breaks.length % 2 === 0) controller.error(new Error("connection reset"));
            else controller.close();
          },
        }, { highWaterMark: 0 }),
      );
    },
    retry(_error, progressed) {
      log.progressed.push(progressed);
      return Promise.resolve(true);
    },
  };
}

test("applyImage goes on where a broken stream ended, as often as it takes", async () => {
  await forSeeds(seeds(20, 6), async (random) => {
    const here = await scene(random);
    const { history, ids, replica, increment } = here;
    const { frameOffsets } = parseImage(increment);
    const breaks = Array.from({ length: 12 }, () => random.pick([0, 300, 5000, 30_000]));
    const log = { offsets: [] as number[], progressed: [] as boolean[] };
    const applied = await applyImage(replica.volume, flaky(increment, breaks, log));
    assertEquals(applied.top, ids[2]);
    assertSame(history, replica, ids[2]);
    assertClean(replica.volume);
    assert(log.progressed.length > 5, "it broke often");
    // Never from the start again once the index is there, and never a frame twice.
    const offsets = log.offsets.filter((offset) => offset > 0);
    assertEquals([...offsets].sort((a, b) => a - b), offsets);
    for (const offset of offsets) assert(frameOffsets.includes(offset), `offset ${offset}`);
    assertEquals(applied.byteCount, increment.length);
    await closeScene(here);
  });
});

test("applyImage goes on after a reopen from what was recorded", async () => {
  await forSeeds(seeds(30, 6), async (random) => {
    const history = await History.begin(new MemoryStore(3000), random, { writeBytes: 200_000 });
    await history.change(40);
    await history.snapshot();
    await history.change(40);
    await history.snapshot();
    const ids = history.kept.map(({ id }) => id);
    for (const base of [undefined, ids[0]]) {
      const store = base === undefined
        ? new MemoryStore(3000)
        : (await replicaOf(history.volume, base)).store;
      const open = () =>
        base === undefined ? Volume.incoming(store, history.volume.volumeId) : Volume.open(store);
      const bytes = await bytesOf(imageOf(history.volume, ids[1], base));
      const { frameOffsets } = parseImage(bytes);
      const half = Math.floor(bytes.length / 2);
      let volume = open();
      await assertRejects(() =>
        applyImage(volume, sourceOf(bytes.subarray(0, half)), { recordBytes: 20_000 })
      );
      const recorded = volume.local.transfer!.frames;
      assert(recorded > 0 && recorded < frameOffsets.length);
      volume.abandon();

      volume = open();
      const log = { offsets: [] as number[], progressed: [] as boolean[] };
      const applied = await applyImage(volume, flaky(bytes, [], log));
      assertEquals(log.offsets, [0, frameOffsets[recorded]]);
      assert(applied.bytes < bytes.length);
      assertSame(history, { volume, store }, ids[1]);
      assertClean(volume);
      assertEquals(volume.local.transfer, undefined);
      await volume.close();
    }
    await history.close();
  });
});

test("applyImage starts anew when recorded blocks are not what was received", async () => {
  const here = await scene(new Random(41));
  const { history, ids, replica, increment } = here;
  const before = stateOf(replica.volume);
  const { blocks, frameOffsets } = parseImage(increment);
  const half = frameOffsets[Math.floor(frameOffsets.length / 2)];
  await assertRejects(() =>
    applyImage(replica.volume, sourceOf(increment.subarray(0, half)), { recordBytes: 1 })
  );
  assert(replica.volume.local.transfer!.frames > 1);
  // The first block came in, and then the disk lost it.
  flipBit(replica.store, [...blocks.keys()][0], 77);
  await refused(replica, increment);
  assertUnchanged(replica, before);
  // What was recorded was wrong, so it does not stand in the way for ever.
  await applyImage(replica.volume, sourceOf(increment));
  assertSame(history, replica, ids[2]);
  await closeScene(here);
});

test("applyImage is not misled by the record of another image", async () => {
  const here = await scene(new Random(43));
  const { history, ids, replica, increment } = here;
  const other = await bytesOf(imageOf(history.volume, ids[1], ids[0]));
  const cutAt = (bytes: Uint8Array) => {
    const { frameOffsets } = parseImage(bytes);
    return bytes.subarray(0, frameOffsets[frameOffsets.length - 1]);
  };
  const target = twin(replica);
  // The later one lacks blocks of the earlier one, so its record says nothing of that.
  await assertRejects(() =>
    applyImage(target.volume, sourceOf(cutAt(increment)), { recordBytes: 1 })
  );
  assertEquals(target.volume.local.transfer?.top, ids[2]);
  await applyImage(target.volume, sourceOf(other));
  assertSame(history, target, ids[1]);
  await target.volume.close();
  // One is recorded, another one then comes in over it unrecorded, then the first again.
  await assertRejects(() => applyImage(replica.volume, sourceOf(cutAt(other)), { recordBytes: 1 }));
  await assertRejects(() => applyImage(replica.volume, sourceOf(cutAt(increment))));
  await applyImage(replica.volume, sourceOf(other));
  assertSame(history, replica, ids[1]);
  await closeScene(here);
});

test("applyImage recovers when one parent sent a rotten block and another has it whole", async () => {
  const here = await scene(new Random(47));
  const { history, ids, replica, increment } = here;
  const before = stateOf(replica.volume);
  const rotten = copyOf(history.store);
  const { header, blocks, deallocated } = parseImage(increment);
  const vbn = [...blocks.keys()][1];
  flipBit(rotten, vbn, 1000);
  // A parent looks at what it sends.
  const parent = Volume.open(rotten);
  const refused = await assertRejects(() => bytesOf(imageOf(parent, ids[2], ids[0])), VolcastError);
  assertEquals(refused.kind, "damaged");
  parent.abandon();
  // One that does not: frames and digest are right for what it has on its disk.
  const block = new Uint8Array(4096);
  rotten.read(vbn, block);
  const bytes = forgeImage(header, new Map(blocks).set(vbn, block), deallocated);
  await assertRejects(() => applyImage(replica.volume, sourceOf(bytes), { recordBytes: 1 }));
  assertUnchanged(replica, before);
  await applyImage(replica.volume, sourceOf(increment));
  assertSame(history, replica, ids[2]);
  await closeScene(here);
});

test("applyImage ends between two frames when told to", async () => {
  const here = await scene(new Random(53));
  const { replica, increment } = here;
  const before = stateOf(replica.volume);
  const controller = new AbortController();
  let seen = 0;
  await assertRejects(() =>
    applyImage(replica.volume, sourceOf(increment), {
      signal: controller.signal,
      progress: () => {
        if (++seen === 3) controller.abort(new VolcastError("busy", "Cannot go on: stop"));
      },
    }), VolcastError);
  assertEquals(seen, 3);
  assertUnchanged(replica, before);
  await closeScene(here);
});

test("applyImage is old or new after a crash at every write, and can be repeated", async () => {
  await forSeeds(seeds(60, 3), async (random) => {
    const here = await scene(random);
    await crashEverywhere(here, here.increment, random);
    // The snapshot between comes along: it is there with the new root, never before.
    const both = imageOfText(here.history.volume, "s3 + s2 - s1");
    await crashEverywhere(here, await bytesOf(both), random);
    await closeScene(here);
  });
});

async function crashEverywhere(
  { history, ids, replica }: Scene,
  image: Uint8Array,
  random: Random,
): Promise<void> {
  const [before, store] = [stateOf(replica.volume), new CrashStore(copyOf(replica.store))];
  const volume = Volume.open(store);
  await applyImage(volume, sourceOf(image), { recordBytes: 30_000 });
  const after = stateOf(volume);
  volume.abandon();
  const found = { old: 0, new: 0 };
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < 12; i++) {
      const target = { store: store.crashed(count, random) } as Replica;
      target.volume = Volume.open(target.store);
      const isOld = target.volume.current.id === ids[0];
      found[isOld ? "old" : "new"]++;
      if (isOld) assertOldButDropped(target.volume, before);
      else assertEquals(stateOf(target.volume), after);
      assertClean(target.volume);
      if (isOld && i % 3 === 0) {
        await applyImage(target.volume, sourceOf(image));
        assertEquals(stateOf(target.volume), after);
        assertClean(target.volume);
      }
      target.volume.abandon();
    }
  }
  assert(found.old > 100 && found.new > 10, JSON.stringify(found));
  const whole = { store: store.whole(), volume: Volume.open(store.whole()) };
  for (const { id } of whole.volume.snapshots()) assertSame(history, whole, id);
  assertEquals(whole.volume.current.id, ids[2]);
}

/** The old root; snapshots that the image's blocks lie over may be gone already. */
function assertOldButDropped(volume: Volume, before: unknown): void {
  const old = before as { current: unknown; views: { id: string; lines: string[] }[] };
  const now = stateOf(volume) as typeof old;
  assertEquals(now.current, old.current);
  for (const { id, lines } of now.views) {
    assertEquals(lines, old.views.find((view) => view.id === id)?.lines);
  }
}

test("applyImage of a full image leaves nothing or all of it after a crash", async () => {
  const here = await scene(new Random(71), 800);
  const { history, ids } = here;
  const bytes = await bytesOf(imageOf(history.volume, ids[1]));
  const store = new CrashStore(new MemoryStore(800));
  const volume = Volume.incoming(store, history.volume.volumeId);
  await applyImage(volume, sourceOf(bytes), { recordBytes: 30_000 });
  volume.abandon();
  const random = new Random(72);
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < 10; i++) {
      const target = { store: store.crashed(count, random) } as Replica;
      try {
        target.volume = Volume.open(target.store);
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "damaged", String(error));
        if (i % 4 !== 0) continue;
        target.volume = Volume.incoming(target.store, history.volume.volumeId);
        await applyImage(target.volume, sourceOf(bytes));
      }
      assertSame(history, target, ids[1]);
      assertClean(target.volume);
      target.volume.abandon();
    }
  }
  await closeScene(here);
});

test("applyImage leaves the old root when a write or a sync fails, at every one", async () => {
  const here = await scene(new Random(81));
  const { history, ids, replica, increment } = here;
  const before = stateOf(replica.volume);
  for (const call of ["write", "sync"] as const) {
    for (const kind of ["full", "io"] as const) {
      for (let at = 1;; at++) {
        const store = copyOf(replica.store);
        const faulty = new FaultStore(store, { at, call, kind });
        const volume = Volume.open(faulty);
        let error: unknown;
        try {
          await applyImage(volume, sourceOf(increment), { recordBytes: 50_000 });
        } catch (caught) {
          error = caught;
        }
        volume.abandon();
        const found: Replica = { store, volume: Volume.open(store) };
        if (error === undefined) {
          assert(at > 4, "every write was tried");
          assertEquals(faulty.faults, 0);
          found.volume.abandon();
          break;
        }
        assert(error instanceof VolcastError && error.kind === kind, `${call} ${at}: ${error}`);
        // The last sync of all may fail after the flip got to the disk.
        if (found.volume.current.id === ids[0]) {
          assertOldButDropped(found.volume, before);
          assertEquals(faulty.writesAfterFault, 0, `${call} ${at}`);
          assertClean(found.volume);
          await applyImage(found.volume, sourceOf(increment));
        }
        assertSame(history, found, ids[2]);
        found.volume.abandon();
      }
    }
  }
  await closeScene(here);
});

/**
 * An origin that writes so much that deleted snapshots' blocks are used again, and a replica that
 * still lists them.
 */
async function crowded(random: Random): Promise<{ history: History; replica: Replica }> {
  const history = await History.begin(new MemoryStore(420), random, { writeBytes: 120_000 });
  await history.change(10);
  await history.snapshot();
  const replica = await replicaOf(history.volume, history.kept[0].id);
  return { history, replica };
}

test("applyImage drops snapshots before it writes over them, and ends their readers", async () => {
  let dropped = 0;
  let ended = 0;
  await forSeeds(seeds(90, 8), async (random) => {
    const { history, replica } = await crowded(random);
    for (let round = 0; round < 15; round++) {
      await history.change(2);
      await history.churn(5, 200_000);
      let kept = await history.snapshot();
      while (kept === undefined) {
        const old = history.kept.find(({ id }) => id !== replica.volume.current.id);
        if (old !== undefined) await history.deleteSnapshot(old);
        else await removeSomething(history);
        kept = await history.snapshot();
      }
      // A reader on everything that is there.
      const views = replica.volume.snapshots().map(({ id }) => {
        const view = replica.volume.view(id);
        return { id, view, lines: describe(view.fs, { all: true }) };
      });
      const applied = await applyImage(
        replica.volume,
        sourceOfImage(imageOf(history.volume, kept.id, replica.volume.current.id)),
        { drainMs: 0 },
      );
      dropped += applied.dropped.length;
      const listed = new Set(replica.volume.snapshots().map(({ id }) => id));
      for (const { id, view, lines } of views) {
        if (applied.dropped.includes(view.snapshot.name)) {
          assertEquals(listed.has(id), false);
          const error = assertThrows(() => view.fs, VolcastError);
          assertEquals(error.kind, "busy");
          ended++;
        } else assertEquals(describe(view.fs, { all: true }), lines);
        view.release();
      }
      assertClean(replica.volume);
      assertSame(history, replica, kept.id);
      for (const { id } of replica.volume.snapshots()) {
        if (history.kept.some((known) => known.id === id)) assertSame(history, replica, id);
      }
      while (history.kept.length > 2) {
        const old = history.kept.find(({ id }) => id !== replica.volume.current.id);
        await history.deleteSnapshot(old!);
      }
    }
    await history.close();
    await replica.volume.close();
  });
  assert(dropped > 10 && ended > 10, `${dropped} dropped, ${ended} ended`);
});

/** A replica at the second of three snapshots; the third may lie over blocks of the first. */
interface Overlapping {
  readonly history: History;
  readonly replica: Replica;
  readonly first: string;
  readonly second: string;
  readonly increment: Uint8Array<ArrayBuffer>;
}

async function overlapping(random: Random): Promise<Overlapping> {
  const history = await History.begin(new MemoryStore(420), random, { writeBytes: 20_000 });
  const taken = async () => (await history.snapshot())!.id;
  // The first one has much that the second has not, and some of it is used again by the third.
  await history.churn(1, 300_000);
  const first = await taken();
  await history.churn(1, 300_000);
  const second = await taken();
  const replica = await replicaOf(history.volume, first);
  await advance(replica.volume, history.volume, second);
  await history.deleteSnapshot(history.kept[0]);
  await history.churn(random.between(1, 9), 300_000);
  const third = await taken();
  const increment = await bytesOf(imageOf(history.volume, third, second));
  return { history, replica, first, second, increment };
}

test("a snapshot that was dropped is not listed again after a crash or a failure", async () => {
  let states = 0;
  await forSeeds(seeds(130, 8), async (random) => {
    const { history, replica, second, increment } = await overlapping(random);
    const cut = twin(replica);
    await refused(cut, increment.subarray(0, increment.length - 10));
    assertClean(cut.volume);
    assertEquals(cut.volume.current.id, second);
    await cut.volume.close();

    const store = new CrashStore(replica.store);
    const volume = Volume.open(store);
    const { dropped } = await applyImage(volume, sourceOf(increment), { drainMs: 0 });
    volume.abandon();
    for (let count = 0; dropped.length > 0 && count <= store.events.length; count++) {
      for (let i = 0; i < 4; i++) {
        const found = Volume.open(store.crashed(count, random));
        assertClean(found);
        found.abandon();
        states++;
      }
    }
    await history.close();
    await replica.volume.close();
  });
  assert(states > 100, `${states} states`);
});

async function removeSomething(history: History): Promise<void> {
  await history.volume.exclusive(({ fs }) => {
    for (const { parent, name, node } of history.model.places()) {
      if (node.type !== "file") continue;
      fs.remove(parent.ino, name);
      history.model.remove(parent, name);
    }
  });
  await history.checkpoint();
}

test("applyImage waits for readers of what must go, for as long as it was told", async () => {
  let waits = 0;
  await forSeeds(seeds(110, 8), async (random) => {
    const { history, replica, first, increment } = await overlapping(random);
    const view = replica.volume.view(first);
    const before = describe(view.fs, { all: true });
    let released = false;
    // The reader goes only when it is waited for: with that nothing depends on how fast this machine is.
    const { leases } = replica.volume;
    const clear = leases.clear.bind(leases);
    leases.clear = async (snapshots, limitMs) => {
      const cleared = clear(snapshots, limitMs);
      if (!released && snapshots.has(first)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        assertEquals(describe(view.fs, { all: true }), before);
        released = true;
        view.release();
      }
      await cleared;
    };
    const { dropped } = await applyImage(replica.volume, sourceOf(increment), { drainMs: 60_000 });
    assertEquals(dropped.length > 0, released);
    if (!released) assertEquals(describe(view.fs, { all: true }), before);
    if (released) waits++;
    view.release();
    await history.close();
    await replica.volume.close();
  });
  assert(waits > 0, "somebody was waited for");
});
