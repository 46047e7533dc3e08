import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { PACKED, STRIPED } from "../helpers/arrangements.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { type Arrangement, ON_ONE_DISK, prepared, publish } from "../helpers/publisher.ts";
import { Random } from "../helpers/random.ts";
import { replicaOf, stateOf } from "../helpers/replicas.ts";
import { copyOf, CrashStore, type Fault, FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

/** Publishes until a fault of the first disk; `undefined` when it was not met. */
async function untilFault(
  { arrangement, initial, fault }: {
    arrangement: Arrangement;
    initial: readonly MemoryStore[];
    fault: Omit<Fault, "kind">;
  },
): Promise<
  { volume: Volume; disks: CrashStore[]; faulty: FaultStore; acknowledged: number } | undefined
> {
  const clock = { now: 0 };
  const disks = initial.map((disk) => new CrashStore(disk, clock));
  const faulty = new FaultStore(disks[0], { ...fault, kind: "full" });
  const volume = Volume.open(arrangement.open([faulty, ...disks.slice(1)]), {
    now: tickingClock(),
  });
  let acknowledged = volume.superblock.cp;
  try {
    await publish(volume, (cp) => acknowledged = cp);
  } catch {
    return { volume, disks, faulty, acknowledged };
  }
  await volume.close();
  return undefined;
}

/** More work: what a crash at any moment of it leaves is clean, and not older than what was there. */
async function goOn(
  { volume, disks, arrangement }: {
    volume: Volume;
    disks: readonly CrashStore[];
    arrangement: Arrangement;
  },
  random: Random,
): Promise<void> {
  const { cp } = volume.superblock;
  const before = disks.map((disk) => disk.events.length);
  await volume.exclusive(async (writer) => {
    writer.fs.write(
      writer.fs.create(2, "after", { type: "file" }),
      0,
      random.bytes(40_000),
    );
    await writer.checkpoint();
    await writer.takeSnapshot("late", { pointers: ["master"] });
  });
  assertClean(volume);
  assertEquals(volume.find("master")?.name, "late");
  const steps = Math.max(...disks.map((disk, i) => disk.events.length - before[i]));
  for (let i = 0; i < 4; i++) {
    const step = random.below(steps + 1);
    const found = Volume.open(
      arrangement.open(
        disks.map((disk, i) =>
          disk.crashed(Math.min(before[i] + step, disk.events.length), random)
        ),
      ),
    );
    assert(found.superblock.cp >= cp, `CP ${found.superblock.cp} was found, ${cp} was in force`);
    assertClean(found);
    found.abandon();
  }
}

for (
  const [name, arrangement, stride] of [
    ["a plain", ON_ONE_DISK, 2],
    ["a packed", PACKED, 7],
    ["a striped", STRIPED, 5],
  ] as const
) {
  test(`Volume recovers after any failed write or sync, readers read on: ${name} store`, async () => {
    const initial = await prepared(1500, arrangement);
    const random = new Random(11);
    let tried = 0;
    for (const call of ["write", "sync"] as const) {
      for (let at = 1;; at += stride) {
        const fault = { call, at, forEver: true };
        const met = await untilFault({ arrangement, initial, fault });
        if (met === undefined) break;
        tried++;
        const { volume, faulty, acknowledged } = met;
        assert(volume.superblock.cp >= acknowledged, "what was acknowledged is in force");
        const state = stateOf(volume);
        const view = volume.view();
        const lines = describe(view.fs, { all: true });
        assertEquals((await assertRejects(() => volume.recover(), VolcastError)).kind, "full");
        assertEquals(volume.poisoned?.kind, "full");
        assertEquals(stateOf(volume), state);

        faulty.fault = undefined;
        await volume.recover();
        assertEquals(volume.poisoned, undefined);
        assertEquals(stateOf(volume), state);
        assertClean(volume);
        await goOn({ ...met, arrangement }, random);
        assertEquals(describe(view.fs, { all: true }), lines);
        view.release();
        await volume.close();
      }
    }
    assert(tried > 10, `${tried} faults`);
  });
}

test("Volume.recover keeps what only readers keep from being used again", async () => {
  const [initial] = await prepared(400);
  const faulty = new FaultStore(copyOf(initial));
  const volume = Volume.open(faulty, { now: tickingClock() });
  const view = volume.view();
  const lines = describe(view.fs, { all: true });
  await volume.exclusive(async (writer) => {
    for (let i = 5; i < 20; i++) writer.fs.remove(2, `old${i}`);
    await writer.checkpoint();
  });
  const free = volume.freeBlocks;
  faulty.fault = { at: faulty.counts.write + 1, call: "write", kind: "io", forEver: true };
  await assertRejects(() =>
    volume.exclusive(async (writer) => {
      writer.fs.create(2, "lost", { type: "file" });
      await writer.checkpoint();
    })
  );
  faulty.fault = undefined;
  await volume.recover();
  assertEquals(volume.freeBlocks, free);
  for (let i = 0; i < 20; i++) {
    await volume.exclusive(async (writer) => {
      writer.fs.write(writer.fs.create(2, `new${i}`, { type: "file" }), 0, new Uint8Array(12_000));
      await writer.checkpoint();
    });
  }
  assertEquals(describe(view.fs, { all: true }), lines);
  const before = volume.freeBlocks;
  view.release();
  assert(volume.freeBlocks > before, "what the reader kept is free");
  assertClean(volume);
  await volume.close();
});

test("Volume.recover makes local state durable that could not be written", async () => {
  const store = copyOf((await prepared(300))[0]);
  const faulty = new FaultStore(store);
  const volume = Volume.open(faulty);
  await volume.updateLocal((state) => void (state.site = "one"));
  faulty.fault = { at: faulty.counts.write + 1, call: "write", kind: "io", forEver: true };
  // It is to be written next, and something else fails before.
  const refused = assertRejects(() => volume.updateLocal((state) => void (state.site = "two")));
  assertThrows(() => volume.noteOwner(undefined));
  await refused;
  // It is refused before anybody sees it.
  await assertRejects(() => volume.updateLocal((state) => void (state.site = "three")));
  assertEquals(volume.local.site, "two");
  faulty.fault = undefined;
  await volume.recover();
  volume.abandon();
  const found = Volume.open(store);
  assertEquals(found.local.site, "two");
  await found.close();
});

test("Volume.recover waits for an image that is coming in to end", async () => {
  const origin = Volume.open((await prepared(400))[0]);
  await origin.exclusive((writer) => writer.takeSnapshot("one", { pointers: ["master"] }));
  const { store, volume: made } = await replicaOf(origin, "one");
  await made.close();
  const faulty = new FaultStore(store);
  const replica = Volume.open(faulty);
  await replica.beginReceiving();
  faulty.fault = { at: faulty.counts.sync + 1, call: "sync", kind: "io" };
  await assertRejects(() => replica.syncReceived());
  assertEquals((await assertRejects(() => replica.recover(), VolcastError)).kind, "busy");
  assert(replica.poisoned !== undefined);
  replica.endReceiving();
  await replica.recover();
  assertEquals(replica.poisoned, undefined);
  await replica.close();
  await origin.close();
});
