import { assert, assertEquals, assertThrows } from "@std/assert";
import { hasBit, VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE, type Zone } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  BlockCache,
  BlockIo,
  BlockTree,
  Space,
  type View,
  type Volume,
  type Writer,
} from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { test } from "../helpers/strict.ts";

/** A map and a summary of their own, and a space over them. */
function bareSpace(dataStart: number, dataCount: number): Space {
  const io = new BlockIo(new MemoryStore(2 ** 32), new BlockCache(2 ** 24));
  const pages = Math.ceil((dataStart + dataCount) / 32768);
  const space = new Space({ start: dataStart, count: dataCount }, pages);
  const trees = [0, 1].map(() => {
    const slots = new Uint8Array(128);
    return new BlockTree(io, 3, slots, space);
  });
  space.attach(trees[0], trees[1]);
  return space;
}

test("Space gives out every block once, in order, and says when there is none", () => {
  const space = bareSpace(67, 40_000);
  assertEquals(space.freeCount, 40_000);
  const given = new Set<number>();
  let next = 67;
  for (let left = 40_000; left > 0;) {
    const run = space.allocateRun(1 + left % 500);
    assertEquals(run.start, next);
    for (let i = 0; i < run.count; i++) given.add(run.start + i);
    next += run.count;
    left -= run.count;
  }
  assertEquals(given.size, 40_000);
  assertEquals(space.freeCount, 0);
  const error = assertThrows(() => space.allocate(), VolcastError);
  assertEquals(error.kind, "full");
  // A block given out since the last consistency point is free again at once.
  for (const vbn of [40_066, 67, 32_768, 32_767]) {
    space.free(vbn);
    assertEquals(space.freeCount, 1);
    assertEquals(space.allocate(), vbn);
  }
});

test("Space stops at a block that is freed twice", () => {
  const space = bareSpace(67, 1000);
  const vbn = space.allocate();
  space.free(vbn);
  assertThrows(() => space.free(vbn), Error, "freed and not in use");
});

test("Space does not make a page dirty by looking through it", () => {
  const pages = 40;
  const space = bareSpace(100, pages * 32768 - 100);
  // Every page is full but the last one; the cursor stands at the first.
  for (let index = 0; index < pages - 1; index++) {
    const page = space.map.writableBlock(index);
    page.fill(255);
    if (index === 0) page.fill(0, 0, 12);
  }
  // Written where no map counts it: this test is about what comes after.
  let next = 2 ** 31;
  const give = { allocate: () => next++, free: () => {}, dirtied: () => {} };
  const io = new BlockIo(new MemoryStore(2 ** 32), new BlockCache(2 ** 24));
  const full = new BlockTree(io, 3, new Uint8Array(128), give);
  for (let index = 0; index < pages; index++) {
    if (index < pages - 1) full.writableBlock(index).set(space.map.block(index));
  }
  while (full.assign());
  full.write();
  const fresh = new Space({ start: 100, count: pages * 32768 - 100 }, pages);
  const summary = new BlockTree(io, 3, new Uint8Array(128), fresh);
  fresh.attach(new BlockTree(io, 3, full.slots, fresh), summary);
  assert(fresh.freeCount > 32_000 && fresh.freeCount < 34_000);
  assertEquals(fresh.allocate() >= (pages - 2) * 32768, true);
  // One page of the map and what leads to it.
  assert(fresh.dirtyCount <= 3, `${fresh.dirtyCount} dirty blocks`);
});

/** What may not be given out now, from the volume's own roots and nothing else. */
function forbidden(volume: Volume): Set<number> {
  const used = bitsOf(volume, volume.current);
  for (const snapshot of volume.snapshots()) {
    for (const vbn of bitsOf(volume, snapshot)) used.add(vbn);
  }
  return used;
}

test("Space gives out no block of the last CP, of a snapshot or of a reader", async () => {
  await forSeeds(seeds(1, 8), async (random) => {
    const history = await History.begin(new MemoryStore(700), random, { writeBytes: 60_000 });
    // Readers hold what was current when they came, whatever goes after that.
    let readers: { blocks: Set<number>; view: View }[] = [];
    for (let step = 0; step < 50; step++) {
      await history.step();
      const { volume } = history;
      if (random.oneIn(3)) {
        const view = volume.view();
        readers.push({ blocks: bitsOf(volume, view.snapshot), view });
      }
      if (random.oneIn(5) && history.kept.length > 0) {
        const view = volume.view(random.pick(history.kept).name);
        readers.push({ blocks: bitsOf(volume, view.snapshot), view });
      }
      if (random.oneIn(4)) readers.shift()?.view.release();
      await volume.exclusive(async (writer) => {
        await writer.checkpoint();
        history.committed = history.model.clone();
        readers = readers.filter(({ view }) => isHeld(view));
        assertEquals(readers.length, volume.leases.size);
        const busy = forbidden(volume);
        const { zone } = volume;
        for (const { blocks } of readers) for (const vbn of blocks) busy.add(vbn);
        checkSpace(writer, busy, { zone, isExact: readers.length === 0 });
      });
    }
    for (const { view } of readers) view.release();
    await history.checkpoint();
    history.check();
    await history.close();
  });
});

function isHeld(view: View): boolean {
  try {
    return view.fs !== undefined;
  } catch {
    return false;
  }
}

/**
 * Takes every free block, compares with what must be free, and puts all of them back. While somebody
 * reads, blocks that came and went since then are kept too, though nobody can read them.
 */
function checkSpace(
  writer: Writer,
  busy: Set<number>,
  { zone, isExact }: { zone: Zone; isExact: boolean },
): void {
  const { space } = writer;
  const expected = new Set<number>();
  for (let i = 0; i < zone.data.count; i++) {
    const vbn = zone.data.start + i;
    if (!busy.has(vbn)) expected.add(vbn);
  }
  const { freeCount } = space;
  if (isExact) assertEquals(freeCount, expected.size);
  const taken: number[] = [];
  while (taken.length < freeCount) {
    const run = space.allocateRun(1000);
    for (let i = 0; i < run.count; i++) taken.push(run.start + i);
  }
  assertEquals(new Set(taken).size, freeCount);
  for (const vbn of taken) assert(expected.has(vbn), `VBN ${vbn} is in use`);
  assertEquals(space.freeCount, 0);
  assertThrows(() => space.allocate(), VolcastError);
  for (const vbn of taken) space.free(vbn);
  assertEquals(space.freeCount, freeCount);
}

test("Space counts the same after a reopen", async () => {
  await forSeeds(seeds(40, 4), async (random) => {
    const history = await History.begin(new MemoryStore(900), random);
    for (let step = 0; step < 30; step++) {
      await history.step();
      if (!random.oneIn(4)) continue;
      await history.checkpoint();
      const counted = await history.volume.exclusive(({ space }) => ({
        free: space.freeCount,
        map: space.mapCount,
      }));
      assertEquals(counted.map, bitsOf(history.volume, history.volume.current).size);
      await history.reopen();
      const again = await history.volume.exclusive(({ space }) => ({
        free: space.freeCount,
        map: space.mapCount,
      }));
      assertEquals(again, counted);
    }
    await history.close();
  });
});

test("the summary is the sum of the planes of all snapshots", async () => {
  await forSeeds(seeds(60, 4), async (random) => {
    const history = await History.begin(new MemoryStore(1200), random);
    for (let step = 0; step < 40; step++) {
      await history.step();
      await history.checkpoint();
      const sum = new Set<number>();
      for (const snapshot of history.volume.snapshots()) {
        for (const vbn of bitsOf(history.volume, snapshot)) sum.add(vbn);
      }
      await history.volume.exclusive(({ space }) => {
        const words = space.summary.block(0);
        const plane = {
          pageCount: 1,
          pages: () => [0],
          page: () => new Uint32Array(words.buffer, words.byteOffset, BLOCK_SIZE / 4),
        };
        for (let vbn = 0; vbn < 1200; vbn++) assertEquals(hasBit(plane, vbn), sum.has(vbn));
      });
    }
    await history.close();
  });
});
