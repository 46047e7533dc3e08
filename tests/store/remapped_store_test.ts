import { assertEquals } from "@std/assert";
import { MemoryStore, RemappedStore } from "../../src/store/mod.ts";
import { forSeeds, Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { testBlockStore } from "../suites/block_store_suite.ts";

const BLOCK_SIZE = 4096;
const CAPACITY = 600;

/** Some blocks of `[0, limit)` and as many places behind `limit`. */
function randomRemap(random: Random, limit: number): { from: Uint32Array; to: Uint32Array } {
  const from: number[] = [];
  for (let vbn = 0; vbn < limit; vbn++) if (random.below(3) === 0) from.push(vbn);
  let place = limit;
  const to = from.map(() => place += random.pick([1, 1, 1, 2]));
  return { from: Uint32Array.from(from), to: Uint32Array.from(to) };
}

// As a view in which nothing lies elsewhere, and as one in which a third does.
testBlockStore({
  name: "RemappedStore without a map",
  make: (capacity) => ({
    store: new RemappedStore(new MemoryStore(capacity), {
      from: new Uint32Array(0),
      to: new Uint32Array(0),
    }),
    dispose() {},
  }),
});

test("RemappedStore reads and writes at the mapped places and leaves all others alone", async () => {
  await forSeeds([1, 2, 3, 4, 5], (random) => {
    const under = new MemoryStore(CAPACITY);
    const limit = 250;
    const remap = randomRemap(random, limit);
    const placeOf = new Map(Array.from(remap.from, (vbn, i) => [vbn, remap.to[i]]));
    const store = new RemappedStore(under, remap);
    const model = new Uint8Array(CAPACITY * BLOCK_SIZE);
    for (let step = 0; step < 200; step++) {
      const count = 1 + random.below(40);
      const vbn = random.below(limit - count);
      const bytes = random.bytes(16);
      const source = new Uint8Array(count * BLOCK_SIZE);
      for (let i = 0; i < count; i++) source.set(bytes, i * BLOCK_SIZE + i);
      store.write(vbn, source);
      for (let i = 0; i < count; i++) {
        const place = placeOf.get(vbn + i) ?? vbn + i;
        model.set(source.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE), place * BLOCK_SIZE);
      }
      const target = new Uint8Array(count * BLOCK_SIZE);
      store.read(vbn, target);
      assertEquals(target, source);
    }
    const whole = new Uint8Array(CAPACITY * BLOCK_SIZE);
    under.read(0, whole);
    assertEquals(whole, model);
  });
});
