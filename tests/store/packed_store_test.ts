import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  BLOCK_SIZE,
  checksum,
  decodePackedHeader,
  encodeMapBlock,
  encodePackedHeader,
  type MapEntry,
  type PackedHeader,
} from "../../src/format/mod.ts";
import { type BlockStore, FileStore, MemoryStore, PackedStore } from "../../src/store/mod.ts";
import { PACKED } from "../helpers/arrangements.ts";
import { cpuMs } from "../helpers/cpu_time.ts";
import { crashedDisks, problemOf, problems, run } from "../helpers/publisher.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { copyOf, CrashStore, FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { testBlockStore } from "../suites/block_store_suite.ts";

testBlockStore({
  name: "PackedStore over memory",
  make: (capacity) => ({
    store: PackedStore.create(new MemoryStore(capacity * 2 + 100), capacity),
    dispose() {},
  }),
});
testBlockStore({
  name: "PackedStore over a file that grows",
  make(capacity) {
    const path = Deno.makeTempFileSync();
    Deno.removeSync(path);
    const store = PackedStore.create(
      FileStore.open(path, { create: true, most: capacity * 2 + 100 }),
      capacity,
    );
    return {
      store,
      dispose() {
        store.close();
        Deno.removeSync(path);
      },
    };
  },
});

function block(value: number): Uint8Array {
  return new Uint8Array(BLOCK_SIZE).fill(value);
}

function firstByte(store: BlockStore, vbn: number): number {
  const target = block(0xff);
  store.read(vbn, target);
  assert(target.every((byte) => byte === target[0]), `VBN ${vbn} is torn`);
  return target[0];
}

/** Random writes, discards, syncs and reopenings beside a model. */
async function live(random: Random, under: MemoryStore, capacity: number): Promise<void> {
  let store = PackedStore.create(under, capacity);
  const model = new Map<number, number>();
  for (let step = 0; step < 400; step++) {
    const count = random.pick([1, 1, 2, 7, 40]);
    const vbn = random.oneIn(4) ? random.below(capacity - count) : random.below(120);
    const kind = random.below(10);
    if (kind <= 4 && model.size + count < 400) {
      const value = 1 + random.below(250);
      store.write(vbn, new Uint8Array(count * BLOCK_SIZE).fill(value));
      for (let i = 0; i < count; i++) model.set(vbn + i, value);
    } else if (kind <= 6) {
      const wide = random.oneIn(20) ? capacity - vbn : count;
      store.discard(vbn, wide);
      for (const key of [...model.keys()]) if (key >= vbn && key < vbn + wide) model.delete(key);
    } else if (kind === 7) {
      await store.sync();
      if (random.oneIn(3)) store = PackedStore.open(under);
    } else {
      for (let i = 0; i < count; i++) {
        assertEquals(store.has(vbn + i), model.has(vbn + i), `step ${step}, VBN ${vbn + i}`);
        assertEquals(firstByte(store, vbn + i), model.get(vbn + i) ?? 0, `VBN ${vbn + i}`);
      }
    }
    assertEquals(store.liveBlocks, model.size);
  }
  await store.sync();
  const again = PackedStore.open(under);
  assertEquals(again.liveBlocks, model.size);
  for (const [vbn, value] of model) assertEquals(firstByte(again, vbn), value);
  // What is there, two headers and the map of it: nothing was lost on the way.
  const taken = under.capacity - again.freeBlocks;
  assert(taken >= model.size + 2 && taken <= model.size + 2 + 12, `${taken} for ${model.size}`);
}

test("PackedStore gives what was written through any history, and loses no room", () =>
  forSeeds(seeds(1, 25), (random) => live(random, new MemoryStore(700), 2 ** 32)));

test("PackedStore uses the room of discarded blocks again, once that is durable", async () => {
  const under = new MemoryStore(40);
  const store = PackedStore.create(under, 10_000);
  for (let round = 0; round < 200; round++) {
    store.write(round * 50, new Uint8Array(10 * BLOCK_SIZE).fill(round));
    await store.sync();
    if (round > 0) store.discard((round - 1) * 50, 10);
    await store.sync();
    assertEquals([firstByte(store, round * 50 + 9), store.liveBlocks], [round, 10]);
  }
  assert(store.fileBlocks <= 40);
  const before = [...under.blocks.keys()].length;
  // Not durable: the blocks may not be touched yet, whatever is written.
  store.discard(199 * 50, 10);
  store.write(0, new Uint8Array(10 * BLOCK_SIZE).fill(77));
  const crashed = PackedStore.open(copyOf(under));
  assertEquals(firstByte(crashed, 199 * 50 + 3), 199);
  assert(before > 0);
});

test("PackedStore says that it is full before it writes, and goes on after a discard", async () => {
  const under = new MemoryStore(30);
  const store = PackedStore.create(under, 1000);
  let written = 0;
  const error = assertThrows(() => {
    for (;; written++) store.write(written * 2, block(7));
  }, VolcastError);
  assertEquals(error.kind, "full");
  assert(written >= 24 && written < 28, `${written} of 28`);
  // There is room for the map all the same, again and again.
  await store.sync();
  for (let i = 0; i < 5; i++) {
    store.discard(i * 4, 4);
    await store.sync();
    store.write(500 + i, block(8));
    await store.sync();
  }
  const again = PackedStore.open(under);
  const values = [504, 4, 30].map((vbn) => firstByte(again, vbn));
  assertEquals([again.liveBlocks, ...values], [written - 5, 8, 0, 7]);
});

test("PackedStore.sync after a few new blocks writes a few blocks, and none after overwriting", async () => {
  const under = new FaultStore(new MemoryStore(200_000));
  const store = PackedStore.create(under, 2 ** 20);
  // Every second block, so that each needs an entry of its own.
  for (let i = 0; i < 50_000; i++) store.write(i * 2, block(1));
  await store.sync();
  const counts = { ...under.counts };
  for (let i = 0; i < 20; i++) {
    store.write(600_000 + i * 3, block(2));
    await store.sync();
  }
  // For each: the block, the end of the log, a header; the data with the log, then the header.
  assertEquals([under.counts.write - counts.write, under.counts.sync - counts.sync], [60, 40]);
  store.write(600_000, block(3));
  store.write(0, block(3));
  await store.sync();
  assertEquals([under.counts.write - counts.write, under.counts.sync - counts.sync], [62, 41]);
});

test("PackedStore opens at the cost of what is there, however long its life was", async () => {
  const under = new FaultStore(new MemoryStore(5000));
  const store = PackedStore.create(under, 2 ** 20);
  for (let i = 0; i < 3000; i++) {
    store.write((i * 7) % 100_000, block(i));
    if (i > 50) store.discard(((i - 50) * 7) % 100_000, 1);
    if (i % 3 === 0) await store.sync();
  }
  await store.sync();
  const reads = under.counts.read;
  assertEquals(PackedStore.open(under).liveBlocks, store.liveBlocks);
  const spent = under.counts.read - reads;
  assert(spent <= 2 + 2 * 8, `${spent} reads for ${store.liveBlocks} blocks`);
});

test("PackedStore keeps a sync apart from what is done meanwhile, at whatever moment", async () => {
  const random = new Random(1);
  for (let turns = 0; turns < 12; turns++) {
    const disk = new CrashStore(new MemoryStore(200));
    const store = PackedStore.create(disk, 1000);
    store.write(1, block(1));
    store.write(4, block(4));
    const first = store.sync();
    for (let i = 0; i < turns; i++) await Promise.resolve();
    store.write(2, block(2));
    store.discard(1, 1);
    store.write(4, block(5));
    store.write(900, block(9));
    const second = store.sync();
    store.write(3, block(3));
    await first;
    const found = PackedStore.open(disk.crashed(disk.events.length, random));
    assert([0, 1].includes(firstByte(found, 1)) && found.has(4), `${turns} turns`);
    await second;
    for (let i = 0; i < 20; i++) {
      const found = PackedStore.open(disk.crashed(disk.events.length, random));
      assertEquals([1, 2, 4, 900].map((vbn) => firstByte(found, vbn)), [0, 2, 5, 9]);
    }
  }
});

/** What a call made of a VBN, 0 for discarded; `at`: events of the disk before the call. */
interface Call {
  readonly vbn: number;
  readonly value: number;
  readonly at: number;
}

/** Writes and discards while syncs are under way, none of which waits for another. */
async function hurried(
  store: PackedStore,
  disk: CrashStore,
  random: Random,
): Promise<{ calls: Call[]; synced: { calls: number; at: number }[] }> {
  const calls: Call[] = [];
  const synced = [{ calls: 0, at: disk.events.length }];
  const present = new Set<number>();
  const syncs: Promise<void>[] = [];
  for (let step = 0; step < 120; step++) {
    const vbn = random.below(40);
    if (random.oneIn(4)) {
      const count = calls.length;
      const sync = store.sync().then(() => {
        synced.push({ calls: count, at: disk.events.length });
      });
      if (random.oneIn(3)) await sync;
      else syncs.push(sync);
    } else {
      const at = disk.events.length;
      // Never over what is there: that would be torn, as on any disk.
      const value = present.delete(vbn) ? 0 : 1 + random.below(255);
      if (value === 0) store.discard(vbn, 1);
      else {
        present.add(vbn);
        store.write(vbn, block(value));
      }
      calls.push({ vbn, value, at });
    }
    for (let i = random.below(4); i > 0; i--) await Promise.resolve();
  }
  await Promise.all(syncs);
  return { calls, synced };
}

test("PackedStore has every block as of the last sync, or of a later call, after any crash", () =>
  forSeeds(seeds(1, 12), async (random) => {
    const disk = new CrashStore(new MemoryStore(120));
    const store = PackedStore.create(disk, 1000);
    await store.sync();
    const first = disk.events.length;
    const { calls, synced } = await hurried(store, disk, random);
    for (let count = first; count <= disk.events.length; count++) {
      const found = PackedStore.open(disk.crashed(count, random));
      const least = Math.max(...synced.filter(({ at }) => at <= count).map((sync) => sync.calls));
      for (let vbn = 0; vbn < 40; vbn++) {
        const before = calls.slice(0, least).findLast((call) => call.vbn === vbn)?.value ?? 0;
        const later = calls.slice(least).filter((call) => call.vbn === vbn && call.at <= count);
        const allowed = [before, ...later.map(({ value }) => value)];
        const value = firstByte(found, vbn);
        assert(allowed.includes(value), `VBN ${vbn} is ${value} of ${allowed} after ${count}`);
      }
    }
  }));

test("PackedStore writes nothing after a write or a sync that failed", async () => {
  for (const call of ["write", "sync"] as const) {
    for (let at = 3; at < 8; at++) {
      const under = new FaultStore(new MemoryStore(100), { at, call, kind: "io" });
      const store = PackedStore.create(under, 1000);
      const error = await assertRejects(async () => {
        for (let i = 0;; i++) {
          store.write(i, block(i));
          await store.sync();
        }
      }, VolcastError);
      assertThrows(() => store.write(0, block(1)), VolcastError);
      assertThrows(() => store.discard(0, 1), VolcastError);
      assertEquals(await assertRejects(() => store.sync(), VolcastError), error);
      assertEquals(under.writesAfterFault, 0);
    }
  }
});

test("a volume in a PackedStore has an old or the new root after a crash at every write and sync", async () => {
  const whole = await run({ arrangement: PACKED });
  assert(whole.moments > 90, `${whole.moments}`);
  assertEquals(problems(whole, new Random(1), 12), []);
});

test("the crash test sees a packed header that is written before its blocks are durable", async () => {
  // Of the three syncs of a consistency point each one is lost in turn.
  for (const lost of [0, 1, 2]) {
    const broken = await run({ arrangement: PACKED, brokenSync: (n) => n % 3 === lost });
    assertNotEquals(problems(broken, new Random(2), 5), [], `sync ${lost}`);
  }
});

test("a packed volume that gave up blocks survives a crash at every moment too", async () => {
  // What no plane has is discarded when the volume is opened, so its slots are in use again at once.
  const unused = (store: BlockStore) => store.discard!(600, 90);
  const whole = await run({ arrangement: PACKED, before: unused });
  assertEquals(problems(whole, new Random(3), 6), []);
});

test("a torn header slot or block of the map leaves the state before", async () => {
  const whole = await run({ arrangement: PACKED });
  const random = new Random(4);
  let torn = 0;
  for (let i = 0; i <= whole.moments * 8; i++) {
    const moment = Math.floor(i / 8);
    const [disk] = crashedDisks(whole, moment, random);
    const slots = [0, 1].map((slot) => {
      const bytes = block(0);
      disk.read(slot, bytes);
      return bytes;
    });
    const valid = slots.map(decodePackedHeader);
    assert(valid.some((header) => header !== undefined), "one header is whole");
    if (valid.includes(undefined) && slots.every((bytes) => bytes.some((byte) => byte !== 0))) {
      torn++;
    }
    assertEquals(problemOf(whole, moment, [disk]), undefined);
  }
  assert(torn > 3, `${torn} torn headers were met`);
});

/** A packed file with some blocks in it. */
async function sample(): Promise<MemoryStore> {
  const under = new MemoryStore(300);
  const store = PackedStore.create(under, 5000);
  for (let i = 0; i < 60; i++) store.write(i * 37, block(i + 1));
  await store.sync();
  for (let i = 0; i < 30; i++) store.discard(i * 74, 1);
  store.write(4000, new Uint8Array(20 * BLOCK_SIZE).fill(9));
  await store.sync();
  return under;
}

test("PackedStore.open refuses any damaged byte of its map as damaged, or gives what was there", async () => {
  const whole = await sample();
  const sound = PackedStore.open(whole);
  const expected = Array.from(
    { length: 5000 },
    (_, vbn) => sound.has(vbn) ? firstByte(sound, vbn) : 0,
  );
  const header = decodePackedHeader(whole.blocks.get(0)!)!;
  const random = new Random(5);
  let refused = 0;
  for (let i = 0; i < 600; i++) {
    const disk = copyOf(whole);
    const target = random.pick([0, 1, header.mapHead, header.mapHead]);
    const bytes = (disk.blocks.get(target) ?? block(0)).slice();
    const at = random.oneIn(2) ? random.below(64) : random.below(BLOCK_SIZE);
    bytes[at] ^= 1 << random.below(8);
    disk.blocks.set(target, bytes);
    try {
      const found = PackedStore.open(disk);
      const same = expected.every((value, vbn) =>
        value === (found.has(vbn) ? firstByte(found, vbn) : 0)
      );
      // A damaged newest header is as one that was torn: the one before counts.
      assert(same || target === header.sequence % 2, `byte ${at} of block ${target}`);
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "damaged", String(error));
      refused++;
    }
  }
  assert(refused > 150, `${refused} refused`);
});

/** A packed file that says what it likes, with checksums that are right. */
function forged(
  header: Partial<PackedHeader>,
  chain: readonly (readonly MapEntry[])[],
): MemoryStore {
  const disk = new MemoryStore(300);
  let link = { slot: 0, crc: 0 };
  chain.forEach((entries, index) => {
    const bytes = encodeMapBlock({ index, previous: link.slot, previousCrc: link.crc }, entries);
    link = { slot: 10 + index, crc: checksum(bytes) };
    disk.write(link.slot, bytes);
  });
  disk.write(
    0,
    encodePackedHeader({
      capacity: 2 ** 32,
      sequence: 2,
      end: 300,
      mapBlocks: chain.length,
      mapHead: link.slot,
      mapCrc: link.crc,
      ...header,
    }),
  );
  return disk;
}

test("PackedStore.open refuses maps that cannot be, fast and without much memory", () => {
  const run = (vbn: number, count: number, slot: number): MapEntry => ({ vbn, count, slot });
  const many = (make: (i: number) => MapEntry) => Array.from({ length: 338 }, (_, i) => make(i));
  const cases: [string, MemoryStore][] = [
    ["a slot of a header", forged({}, [[run(5, 1, 1)]])],
    ["behind the end", forged({}, [[run(5, 10, 295)]])],
    ["behind the volume", forged({ capacity: 100 }, [[run(99, 2, 20)]])],
    ["an empty run", forged({}, [[run(5, 0, 20)]])],
    ["a slot used twice", forged({}, [[run(5, 3, 20), run(90, 1, 22)]])],
    ["a slot of the map", forged({}, [[run(5, 1, 10)]])],
    ["as long as all", forged({}, [many(() => run(0, 2 ** 32 - 1, 0))])],
    ["dropped over and over", forged({}, [many(() => run(7, 4_000_000, 0))])],
    [
      "mapped over and over",
      forged({}, Array.from({ length: 200 }, () => many(() => run(0, 280, 20)))),
    ],
    ["more than the file has", forged({}, [many((i) => run(i * 1000, 1, 20 + i))])],
    ["a chain that is too short", forged({ mapBlocks: 2 }, [[run(5, 1, 20)]])],
    ["a chain that is too long", forged({ mapBlocks: 1 }, [[], []])],
    ["a chain out of the file", forged({ mapHead: 400 }, [[run(5, 1, 20)]])],
    ["a file that was cut off", forged({ end: 301 }, [[run(5, 1, 20)]])],
    ["a map larger than the file", forged({ mapBlocks: 2 ** 32 - 1 }, [[run(5, 1, 20)]])],
    ["no capacity", forged({ capacity: 0 }, [])],
    ["a capacity beyond all", forged({ capacity: 2 ** 40 }, [])],
  ];
  for (const [what, disk] of cases) {
    const begin = cpuMs();
    const error = assertThrows(() => PackedStore.open(disk), VolcastError, undefined, what);
    assertEquals(error.kind, "damaged", what);
    const took = cpuMs() - begin;
    assert(took < 1000, `${what}: ${took} ms`);
  }
  // The measure itself is not at fault.
  assertEquals(PackedStore.open(forged({}, [[run(5, 3, 20)], [run(6, 1, 0)]])).liveBlocks, 2);
});

test("PackedStore.open survives random bytes with right checksums", () =>
  forSeeds(seeds(1, 300), (random) => {
    const entries = Array.from({ length: random.between(1, 338) }, () => ({
      vbn: random.pick([random.below(50), random.word()]),
      count: random.pick([1, random.below(300), random.word()]),
      slot: random.pick([0, random.below(300), random.word()]),
    }));
    try {
      PackedStore.open(forged({ end: random.pick([20, 300]) }, [entries]));
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "damaged", String(error));
    }
  }));
