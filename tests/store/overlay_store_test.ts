import { assertEquals, assertThrows } from "@std/assert";
import { BLOCK_SIZE } from "../../src/format/mod.ts";
import { type BlockStore, MemoryStore, OverlayStore, PackedStore } from "../../src/store/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { imageOf, replicaOf, stateOf } from "../helpers/replicas.ts";
import { copyOf } from "../helpers/stores.ts";
import { sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { testBlockStore } from "../suites/block_store_suite.ts";

testBlockStore({
  name: "OverlayStore over nothing",
  make: (capacity) => ({
    store: new OverlayStore(new MemoryStore(capacity), new MemoryStore(capacity)),
    dispose() {},
  }),
});
testBlockStore({
  name: "OverlayStore of a packed one",
  make: (capacity) => ({
    store: new OverlayStore(
      new MemoryStore(capacity),
      PackedStore.create(new MemoryStore(capacity * 2 + 100), capacity),
    ),
    dispose() {},
  }),
});

/** A store that must not be written. */
function readOnly(store: BlockStore): BlockStore {
  const refuse = () => {
    throw new Error("the base is written");
  };
  return {
    capacity: store.capacity,
    read: (vbn, target) => store.read(vbn, target),
    write: refuse,
    discard: refuse,
    sync: refuse,
    close() {},
  };
}

test("OverlayStore reads what was written last, whichever of the two has it", () =>
  forSeeds(seeds(1, 20), async (random) => {
    const base = new MemoryStore(300);
    const model = new Uint8Array(300);
    for (let vbn = 0; vbn < 300; vbn++) {
      model[vbn] = random.pick([0, random.below(256)]);
      if (model[vbn] > 0) base.write(vbn, new Uint8Array(BLOCK_SIZE).fill(model[vbn]));
    }
    const upper = PackedStore.create(new MemoryStore(500), 300);
    const store = new OverlayStore(readOnly(base), upper);
    for (let step = 0; step < 200; step++) {
      const count = random.pick([1, 2, 30]);
      const vbn = random.below(301 - count);
      if (random.oneIn(2)) {
        const value = 1 + random.below(255);
        store.write(vbn, new Uint8Array(count * BLOCK_SIZE).fill(value));
        model.fill(value, vbn, vbn + count);
      } else {
        const target = new Uint8Array(count * BLOCK_SIZE);
        store.read(vbn, target);
        for (let i = 0; i < count; i++) {
          assertEquals(
            new Set(target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE)),
            new Set([model[vbn + i]]),
          );
        }
      }
      if (random.oneIn(40)) await store.sync();
    }
    const all = Array.from({ length: 300 }, (_, vbn) => vbn).filter((vbn) => store.has(vbn));
    assertEquals(all.length, upper.liveBlocks);
    store.discard(0, 300);
    assertEquals(upper.liveBlocks, 0);
  }));

test("an increment over a replica that is only read gives the volume, and takes its own size", () =>
  forSeeds([1], async (random) => {
    const history = await History.begin(new MemoryStore(3000), random);
    await history.change(60);
    await history.snapshot();
    const base = await replicaOf(history.volume, "s1");
    const before = copyOf(base.store);
    await base.volume.close();
    await history.change(20);
    await history.snapshot();
    const image = imageOf(history.volume, "s2", "s1");

    const upper = PackedStore.create(new MemoryStore(3500), 3000);
    const overlaid = Volume.open(new OverlayStore(readOnly(base.store), upper));
    await applyImage(overlaid, sourceOfImage(image));
    assertClean(overlaid);
    assertEquals(overlaid.current.name, "s2");
    assertEquals(stateOf(overlaid), stateOf(await replicaTo(before, image)));
    // Superblocks, owner and local zone besides.
    const extra = upper.liveBlocks - image.header.blockCount;
    if (extra < 1 || extra > 8) throw new Error(`${extra} blocks besides those of the image`);
    await overlaid.close();
    await history.close();
  }));

test("OverlayStore refuses two stores of different sizes", () => {
  assertThrows(() => new OverlayStore(new MemoryStore(10), new MemoryStore(11)));
});

async function replicaTo(store: MemoryStore, image: ReturnType<typeof imageOf>): Promise<Volume> {
  const volume = Volume.open(store);
  await applyImage(volume, sourceOfImage(image));
  return volume;
}
