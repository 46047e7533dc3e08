import { assert, assertEquals, assertThrows } from "@std/assert";
import { HOST_CLOCK, VolcastError } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type Leased, Leases, type View, Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { sleep } from "../helpers/until.ts";

function leased(id: string): Leased {
  return { id, name: id, root: { vbn: 0, crc: 0 } };
}

test("a view shows the same for as long as it is held, whatever is written", async () => {
  await forSeeds(seeds(1, 8), async (random) => {
    // No cache to speak of: what is read comes from the store.
    const history = await History.begin(new MemoryStore(1200), random, {
      writeBytes: 60_000,
      volume: { cacheBytes: 0 },
    });
    const views: { view: View; lines: string[] }[] = [];
    for (let step = 0; step < 60; step++) {
      await history.change(random.between(1, 10));
      await history.checkpoint();
      if (random.oneIn(6)) await history.snapshot();
      // Reading a snapshot that is then deleted is like reading an old consistency point.
      if (random.oneIn(6) && history.kept.length > 0) {
        const kept = random.pick(history.kept);
        const view = history.volume.view(kept.name);
        views.push({ view, lines: describe(view.fs, { all: true }) });
        await history.deleteSnapshot(kept);
      }
      if (random.oneIn(4)) {
        const view = history.volume.view();
        views.push({ view, lines: describe(view.fs, { all: true }) });
      }
      for (const [i, { view, lines }] of [...views.entries()].reverse()) {
        try {
          assertEquals(describe(view.fs, { all: true }), lines);
        } catch (error) {
          // Space was short, so it was ended: an error, never other data.
          if (!(error instanceof VolcastError && error.kind === "busy")) throw error;
          views.splice(i, 1);
          continue;
        }
        if (random.oneIn(12)) {
          view.release();
          views.splice(i, 1);
        }
      }
    }
    for (const { view } of views) view.release();
    assertEquals(history.volume.leases.size, 0);
    history.check();
    await history.close();
  });
});

test("blocks freed while a view is held are used again only after its release", async () => {
  const volume = await Volume.create(new MemoryStore(600), { now: tickingClock() });
  const random = new Random(1);
  const write = () =>
    volume.exclusive(async (writer) => {
      const { fs } = writer;
      const ino = fs.lookup(2, "a") ?? fs.create(2, "a", { type: "file" });
      fs.write(ino, 0, random.bytes(40 * 4096));
      await writer.checkpoint();
    });
  await write();
  const empty = volume.freeBlocks;
  const first = volume.view();
  await write();
  const second = volume.view();
  const afterOne = volume.freeBlocks;
  assert(afterOne <= empty - 40, `${empty} free, then ${afterOne}`);
  await write();
  assert(volume.freeBlocks <= afterOne - 40);
  // The second one stands on what came later, so the first one's blocks go alone.
  first.release();
  first.release();
  assert(volume.freeBlocks >= empty - 50, `${volume.freeBlocks} of ${empty}`);
  second.release();
  assertEquals(volume.freeBlocks, empty);
  await volume.close();
});

test("Leases.endAll ends every view with busy, and release stays harmless", async () => {
  const volume = await Volume.create(new MemoryStore(300));
  const views = [volume.view(), volume.view()];
  assertEquals(volume.leases.size, 2);
  volume.leases.endAll();
  for (const view of views) {
    assertEquals(assertThrows(() => view.fs, VolcastError).kind, "busy");
    view.release();
  }
  assertEquals(volume.leases.size, 0);
  const later = volume.view();
  assert(later.fs !== undefined);
  await volume.close();
  assertEquals(assertThrows(() => later.fs, VolcastError).kind, "busy");
});

test("Leases.clear ends those that read what must go, and only those", async () => {
  const leases = new Leases(() => {});
  const going = leases.take(leased("1-00000000"), 1);
  const staying = leases.take(leased("2-00000000"), 2);
  assertEquals(leases.oldest, 1);
  await leases.clear(new Set(["1-00000000"]), 0);
  assertThrows(() => going.check(), VolcastError);
  staying.check();
  assertEquals([leases.size, leases.oldest], [1, 2]);
  assertEquals(leases.leased().some(({ id }) => id === "1-00000000"), false);
  assertEquals(leases.leased().some(({ id }) => id === "2-00000000"), true);
  staying.release();
  assertEquals(leases.oldest, Infinity);
});

test("Leases.clear waits for a release, and not longer", async () => {
  let released = 0;
  const leases = new Leases(() => released++);
  const lease = leases.take(leased("1-00000000"), 1);
  const other = leases.take(leased("2-00000000"), 1);
  let isCleared = false;
  const cleared = leases.clear(new Set(["1-00000000"]), 60_000).then(() => isCleared = true);
  other.release();
  await sleep(0);
  assert(!isCleared);
  lease.release();
  await sleep(0);
  assert(isCleared);
  await cleared;
  lease.check();
  assertEquals(released, 2);
});

test("Leases.clear ends a reader after the time it was given", async () => {
  const leases = new Leases(() => {});
  const lease = leases.take(leased("1-00000000"), 1);
  await leases.clear(new Set(["1-00000000"]), 20);
  assertThrows(() => lease.check(), VolcastError);
});

test("Leases.clear waits as long as was said, whatever the time of day does", async () => {
  const waits: number[] = [];
  let days = 0;
  const leases = new Leases(() => {}, {
    ...HOST_CLOCK,
    // Somebody sets the clock back, a day at each look.
    now: () => --days * 86_400_000,
    timer: (ms, ring) => {
      waits.push(ms);
      return HOST_CLOCK.timer(Math.min(ms, 20), ring);
    },
  });
  const lease = leases.take(leased("1-00000000"), 1);
  await leases.clear(new Set(["1-00000000"]), 20);
  assertThrows(() => lease.check(), VolcastError);
  assert(waits.every((ms) => ms <= 20), `${waits}`);
});

test("a reader that goes on with an ended view gets an error or the old bytes", async () => {
  await forSeeds(seeds(20, 4), async (random) => {
    const volume = await Volume.create(new MemoryStore(300), {
      now: tickingClock(),
      cacheBytes: 0,
    });
    const content = random.bytes(30 * 4096);
    await volume.exclusive(async (writer) => {
      writer.fs.write(writer.fs.create(2, "a", { type: "file" }), 0, content);
      await writer.checkpoint();
    });
    const { fs } = volume.view();
    const ino = fs.resolve("/a");
    volume.leases.endAll();
    let refused = 0;
    for (let i = 0; i < 12; i++) {
      await volume.exclusive(async (writer) => {
        writer.fs.write(writer.fs.resolve("/a"), 0, random.bytes(30 * 4096));
        await writer.checkpoint();
      });
      for (let index = 0; index < 30; index++) {
        const block = new Uint8Array(4096);
        try {
          fs.read(ino, index * 4096, block);
          assertEquals(block, content.subarray(index * 4096, (index + 1) * 4096));
        } catch (error) {
          assert(error instanceof VolcastError && error.kind === "damaged", String(error));
          refused++;
        }
      }
    }
    assert(refused > 30, "the blocks were used again");
    assertClean(volume);
    await volume.close();
  });
});
