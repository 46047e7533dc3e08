import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import type { BlockStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { prepared, problemOf, problems, publish, type Run, run } from "../helpers/publisher.ts";
import { Random } from "../helpers/random.ts";
import { stateOf } from "../helpers/replicas.ts";
import { copyOf, CrashStore, FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

test("Volume has an old or the new root after a crash at every write and sync", async () => {
  const whole = await run();
  assert(whole.moments > 60 && whole.acknowledged.length > 15);
  assertEquals(problems(whole, new Random(1), 12), []);
});

test("the crash test sees a superblock that is written before its blocks are durable", async () => {
  // Each consistency point syncs twice; the first one is lost, every second time.
  const broken = await run({ brokenSync: (number) => number % 2 === 1 });
  assertNotEquals(problems(broken, new Random(2), 5), []);
});

test("the crash test sees an acknowledgement before the superblock is durable", async () => {
  const broken = await run({ brokenSync: (number) => number % 2 === 0 });
  assertNotEquals(problems(broken, new Random(3), 5), []);
});

test("the crash test sees a disk that lost one durable block", async () => {
  const whole = await run();
  const random = new Random(4);
  let seen = 0;
  for (let i = 0; i < 40; i++) {
    const disk = whole.disks[0].whole();
    const intact = Volume.open(disk);
    const plane = intact.plane(intact.current);
    intact.abandon();
    const used = [...disk.blocks.keys()].filter((vbn) =>
      (plane.page(0)[vbn >> 5] >>> (vbn & 31) & 1) === 1
    );
    disk.blocks.delete(random.pick(used));
    if (problemOf(whole, whole.moments, [disk]) !== undefined) seen++;
  }
  assertEquals(seen, 40);
});

test("Volume.create leaves a volume or none after a crash", async () => {
  const store = new CrashStore(new MemoryStore(300));
  (await Volume.create(store)).abandon();
  const random = new Random(5);
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < 10; i++) {
      let volume: Volume;
      try {
        volume = Volume.open(store.crashed(count, random));
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "damaged", String(error));
        assert(count < store.events.length, "it was acknowledged");
        continue;
      }
      assertClean(volume);
      volume.abandon();
    }
  }
});

test("Volume finds its local state, the old or the new, after a crash", async () => {
  const store = new CrashStore((await prepared(300))[0]);
  const volume = Volume.open(store);
  const acknowledged = [0];
  for (let i = 1; i <= 6; i++) {
    await volume.updateLocal((state) => {
      state.site = `site${i}`;
      // Longer than a block, so that it can be torn between blocks too.
      state.sites = {
        below: { needs: Array.from({ length: i * 80 }, (_, j) => `${j + 1}-0000000${i}`) },
      };
    });
    acknowledged.push(store.events.length);
  }
  volume.abandon();
  const random = new Random(6);
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < 30; i++) {
      const found = Volume.open(store.crashed(count, random));
      const number = Number(found.local.site?.slice(4) ?? 0);
      assertEquals(found.local.sites.below?.needs.length ?? 0, number * 80);
      const least = acknowledged.findLastIndex((events) => events <= count);
      assert(number === least || number === least + 1, `${number}, acknowledged ${least}`);
      found.abandon();
    }
  }
});

test("Volume is poisoned by the first write error, and a reopen finds the last CP", async () => {
  const [initial] = await prepared(700);
  const reference = await run();
  let tried = 0;
  for (const call of ["write", "sync"] as const) {
    for (const [kind, forEver] of [["full", true], ["io", false]] as const) {
      for (let at = 1;; at++) {
        const store = copyOf(initial);
        const faulty = new FaultStore(store, { at, call, kind, forEver });
        const volume = Volume.open(faulty, { now: tickingClock() });
        let last = volume.superblock.cp;
        let error: unknown;
        try {
          await publish(volume, (cp) => last = cp);
        } catch (caught) {
          error = caught;
        }
        if (error === undefined) {
          await volume.close();
          break;
        }
        tried++;
        assert(error instanceof VolcastError && error.kind === kind, `${call} ${at}: ${error}`);
        assertEquals(volume.poisoned?.kind, kind);
        // Nothing is written after it, whatever is tried.
        for (
          const attempt of [
            () => volume.checkpoint(),
            () => volume.exclusive(({ fs }) => fs.create(2, "late", { type: "file" })),
            () => volume.updateLocal((state) => void (state.site = "late")),
            () => volume.exclusive((writer) => writer.takeSnapshot("late")),
          ]
        ) {
          const refused = await assertRejects(attempt, VolcastError);
          assertEquals(refused.kind, kind);
        }
        await volume.close();
        assertEquals(faulty.writesAfterFault, 0, `${call} ${at}`);

        const found = Volume.open(store);
        assert(found.superblock.cp >= last, `CP ${found.superblock.cp}, acknowledged ${last}`);
        assertClean(found);
        assertSameShape(found, reference);
        await found.exclusive(async (writer) => {
          writer.fs.write(writer.fs.create(2, "again", { type: "file" }), 0, new Uint8Array(9));
          await writer.checkpoint();
        });
        assertClean(found);
        await found.close();
      }
    }
  }
  assert(tried > 80, `${tried} faults`);
});

/** Two runs have other root checksums (a root holds random bytes), and the same content by CP. */
function assertSameShape(volume: Volume, { states }: Run): void {
  const shape = (state: unknown) => {
    const { current, views } = state as {
      current: { cp: number };
      views: { id: string; lines: string[] }[];
    };
    return {
      cp: current.cp,
      views: views.map(({ id, lines }) => ({ cp: id.split("-")[0], lines })),
    };
  };
  assertEquals(shape(stateOf(volume)), shape(states.get(volume.superblock.cp)));
}

test("Volume gives no wrong byte when reads fail", async () => {
  const [initial] = await prepared(700);
  const sound = Volume.open(copyOf(initial));
  const wanted = stateOf(sound);
  await sound.close();
  for (let at = 1; at < 60; at++) {
    const faulty: FaultStore & BlockStore = new FaultStore(copyOf(initial), {
      at,
      call: "read",
      kind: "io",
    });
    let volume: Volume;
    try {
      volume = Volume.open(faulty, { cacheBytes: BLOCK_SIZE });
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "io", String(error));
      continue;
    }
    try {
      assertEquals(stateOf(volume), wanted);
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "io", String(error));
    }
    // It was a passing trouble.
    volume.leases.endAll();
    assertEquals(stateOf(volume), wanted);
    await volume.close();
  }
});

test("Volume is poisoned by a consistency point that finds no room, and the last one stays", async () => {
  const [store] = await prepared(300);
  const volume = Volume.open(store, { now: tickingClock() });
  const before = stateOf(volume);
  const error = await assertRejects(() =>
    volume.exclusive(async (writer) => {
      writer.fs.create(2, "lost", { type: "file" });
      // Nobody gets here who asks for room first, as every operation does.
      while (writer.space.freeCount > 0) writer.space.allocate();
      await writer.checkpoint();
    }), VolcastError);
  assertEquals([error.kind, volume.poisoned?.kind], ["full", "full"]);
  assertEquals((await assertRejects(() => volume.checkpoint(), VolcastError)).kind, "full");
  assertEquals(stateOf(volume), before);
  await volume.close();
  const found = Volume.open(store);
  assertEquals(stateOf(found), before);
  assertClean(found);
  await found.close();
});
