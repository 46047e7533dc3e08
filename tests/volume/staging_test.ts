import { assert, assertEquals, assertThrows } from "@std/assert";
import { BitPlane, sum, VolcastError } from "../../src/core/mod.ts";
import { REMAP_ENTRIES } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  BlockCache,
  BlockIo,
  planStaging,
  readStaging,
  replaySteps,
  type Staging,
  writeStaging,
} from "../../src/volume/mod.ts";
import { forSeeds, Random } from "../helpers/random.ts";
import { flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

const BLOCK_SIZE = 4096;
const CAPACITY = 40_000;
const DATA = { start: 80, count: CAPACITY - 80 };

function randomPlane(random: Random, density: number): BitPlane {
  const plane = new BitPlane(2);
  for (let vbn = DATA.start; vbn < CAPACITY; vbn++) if (random.below(100) < density) plane.set(vbn);
  return plane;
}

function planned(random: Random): {
  received: BitPlane;
  live: BitPlane;
  kept: BitPlane;
  staging: Staging;
} {
  const received = randomPlane(random, 20);
  const live = randomPlane(random, 20);
  const kept = randomPlane(random, 20);
  const staging = planStaging({ received, live, taken: sum(received, live, kept), data: DATA });
  return { received, live, kept, staging: staging! };
}

const ioOn = (store: MemoryStore) => new BlockIo(store, new BlockCache(0));

test("staged blocks are those that are live, and lie where nothing is", async () => {
  await forSeeds([1, 2, 3], (random) => {
    const { received, live, kept, staging: { remap, mapVbns } } = planned(random);
    let next = 0;
    for (let vbn = 0; vbn < CAPACITY; vbn++) {
      if (!received.has(vbn) || !live.has(vbn)) continue;
      assertEquals(remap.from[next++], vbn);
    }
    assertEquals(remap.from.length, next);
    assertEquals(mapVbns.length, Math.ceil(next / REMAP_ENTRIES));
    const seen = new Set<number>();
    for (const vbn of [...remap.to, ...mapVbns]) {
      assert(vbn >= DATA.start && vbn < CAPACITY);
      assert(!received.has(vbn) && !live.has(vbn) && !kept.has(vbn) && !seen.has(vbn));
      seen.add(vbn);
    }
  });
});

test("planStaging says nothing when no block is live, and full when there is no room", () => {
  const received = BitPlane.ofRuns(2, [{ start: 100, count: 50 }]);
  const live = BitPlane.ofRuns(2, [{ start: 150, count: 39_000 }]);
  const taken = sum(received, live);
  assertEquals(planStaging({ received, live, taken, data: DATA }), undefined);
  // 870 blocks are left, two of them for the map.
  received.setRun(150, 868);
  assert(planStaging({ received, live, taken: sum(received, live), data: DATA }) !== undefined);
  received.set(150 + 868);
  const error = assertThrows(
    () => planStaging({ received, live, taken: sum(received, live), data: DATA }),
    VolcastError,
  );
  assertEquals(error.kind, "full");
});

test("a map is read as it was written, and refused when a bit of it is another", async () => {
  await forSeeds([1, 2, 3], (random) => {
    const { staging } = planned(random);
    const store = new MemoryStore(CAPACITY);
    const head = writeStaging(store, staging);
    const count = staging.remap.from.length;
    assertEquals(head.count, count);
    assertEquals(readStaging(ioOn(store), head, DATA).remap, staging.remap);
    for (const wrong of [count - 1, count + 1, DATA.count + 1, 0]) {
      const lie = { ...head, count: wrong };
      assertThrows(() => readStaging(ioOn(store), lie, DATA), VolcastError, "map of staged");
    }
    flipBit(store, random.pick([...staging.mapVbns]), random.below(BLOCK_SIZE * 8));
    assertThrows(() => readStaging(ioOn(store), head, DATA), VolcastError);
  });
});

test("the replay puts every block in its place and changes no other, cut and repeated", async () => {
  await forSeeds([1, 2, 3], (random) => {
    const { staging: { remap } } = planned(random);
    const store = new MemoryStore(CAPACITY);
    const block = new Uint8Array(BLOCK_SIZE);
    for (let i = 0; i < remap.from.length; i++) {
      new DataView(block.buffer).setUint32(8, remap.from[i], true);
      store.write(remap.to[i], block);
    }
    const cutAfter = random.below(100);
    let steps = 0;
    for (const _ of replaySteps(store, remap)) if (++steps > cutAfter) break;
    for (const _ of replaySteps(store, remap));
    const places = new Set(remap.from);
    const staged = new Set(remap.to);
    for (let vbn = 0; vbn < CAPACITY; vbn++) {
      store.read(vbn, block);
      const found = new DataView(block.buffer).getUint32(8, true);
      if (places.has(vbn)) assertEquals(found, vbn);
      else if (!staged.has(vbn)) assertEquals(found, 0);
    }
  });
});
