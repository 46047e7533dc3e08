import { assert, assertEquals } from "@std/assert";
import { PAGE_BITS } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { pinnedBlocks, sitePins } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { bitsOf, replicaOf } from "../helpers/replicas.ts";
import { test } from "../helpers/strict.ts";

test("pinnedBlocks is what would be free, counted bit by bit", async () => {
  await forSeeds(seeds(1, 6), async (random) => {
    const capacity = random.pick([2000, 3 * PAGE_BITS]);
    const history = await History.begin(new MemoryStore(capacity), random);
    let sum = 0;
    for (let step = 0; step < 25; step++) {
      await history.skip(random.below(40_000));
      await history.change(random.between(1, 15));
      if (random.oneIn(2)) await history.snapshot();
      else await history.checkpoint();
      const { volume } = history;
      if (random.oneIn(5) && history.kept.length > 2) {
        const { id } = random.pick(history.kept);
        await volume.exclusive((writer) => writer.shadowSnapshot(id));
        history.kept = history.kept.filter((one) => one.id !== id);
      }
      const all = volume.snapshots();
      const some = all.filter(() => random.oneIn(2)).map(({ id }) => id);
      const kept = new Set<number>();
      for (const one of all.filter(({ id }) => some.includes(id))) {
        for (const vbn of bitsOf(volume, one)) kept.add(vbn);
      }
      const others = all.filter(({ id }) => !some.includes(id));
      for (const one of [volume.current, ...others]) {
        for (const vbn of bitsOf(volume, one)) kept.delete(vbn);
      }
      assertEquals(pinnedBlocks(volume, some), kept.size);
      assertEquals(pinnedBlocks(volume, [...some].reverse()), kept.size);
      sum += kept.size;
    }
    assert(sum > 200, `${sum} blocks were kept`);
    await history.close();
  });
});

test("what a snapshot keeps is what it gives back when it becomes a shadow", async () => {
  const history = await History.begin(new MemoryStore(2000), new Random(3));
  for (let i = 0; i < 8; i++) {
    await history.change(15);
    await history.snapshot();
  }
  const { volume } = history;
  for (const { id } of history.kept.slice(0, -1)) {
    const pinned = pinnedBlocks(volume, [id]);
    const { released } = await volume.exclusive((writer) => writer.shadowSnapshot(id));
    assertEquals(released, pinned);
    assertEquals(pinnedBlocks(volume, [id]), 0);
  }
  await history.close();
});

test("sitePins knows bases, shadows among them, and what is not here any more", async () => {
  const history = await History.begin(new MemoryStore(2000), new Random(4));
  for (let i = 0; i < 3; i++) {
    await history.change(15);
    await history.snapshot();
  }
  const { volume, kept: [a, b, c] } = history;
  await volume.exclusive((writer) => writer.shadowSnapshot(a.id));
  await volume.updateLocal(({ sites }) => {
    sites["on a shadow"] = { snapshot: a.id, needs: [c.id] };
    sites["on two"] = { snapshot: c.id, needs: [b.id, c.id] };
    sites["on nothing"] = { needs: [] };
    sites["on what went"] = { snapshot: "99-00000000", needs: [] };
  });
  const found = sitePins(volume).map(({ site, base, snapshots }) => [
    site,
    base?.name,
    snapshots.map(({ name }) => name),
  ]);
  assertEquals(found, [
    ["on a shadow", a.name, [c.name]],
    ["on two", c.name, [b.name, c.name]],
    ["on nothing", undefined, []],
    ["on what went", undefined, []],
  ]);
  const [shadowed, two] = sitePins(volume);
  assertEquals(shadowed.blocks, pinnedBlocks(volume, [c.id]));
  assertEquals(two.blocks, pinnedBlocks(volume, [b.id, c.id]));
  assertEquals(sitePins(volume, ["on two"]), [two]);
  // A replica gives no blocks out, so nothing is kept from anybody.
  const replica = await replicaOf(volume, c.id);
  assertEquals(pinnedBlocks(replica.volume, [c.id]), 0);
  await replica.volume.close();
  await history.close();
});
