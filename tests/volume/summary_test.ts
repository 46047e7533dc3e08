// The summary is changed where snapshots differ, and must be as if all planes had been added up.

import { assert, assertEquals } from "@std/assert";
import { PAGE_BITS, pagesOnlyIn } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { History, skipBlocks, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

test("pagesOnlyIn is what brute force finds, in volumes of several pages", async () => {
  await forSeeds(seeds(1, 5), async (random) => {
    const history = await History.begin(new MemoryStore(5 * PAGE_BITS), random);
    const { volume } = history;
    for (let i = 0; i < 8; i++) {
      await history.skip(random.below(60_000));
      await history.change(random.between(1, 20));
      await history.snapshot();
    }
    for (let i = 0; i < 60; i++) {
      const some = () => volume.snapshots().filter(() => random.oneIn(3));
      const [mine, others] = [some(), some()];
      const wanted = new Set(mine.flatMap((one) => [...bitsOf(volume, one)]));
      for (const other of others) for (const vbn of bitsOf(volume, other)) wanted.delete(vbn);
      const planes = (list: typeof mine) => list.map((one) => volume.plane(one));
      const found = new Set<number>();
      let last = -1;
      for (const { index, words } of pagesOnlyIn(planes(mine), planes(others))) {
        assert(index > last, "pages come in order, once each");
        last = index;
        const before = found.size;
        for (let bit = 0; bit < PAGE_BITS; bit++) {
          if ((words[bit >>> 5] >>> (bit & 31) & 1) === 1) found.add(index * PAGE_BITS + bit);
        }
        assert(found.size > before, "no page is empty");
      }
      assertEquals(found, wanted);
    }
    await history.close();
  });
});

test("the summary is the sum of all regular planes, whatever is taken, deleted, made a shadow", async () => {
  await forSeeds(seeds(10, 6), async (random) => {
    const history = await History.begin(new MemoryStore(4 * PAGE_BITS), random);
    const { volume } = history;
    for (let step = 0; step < 40; step++) {
      await history.skip(random.below(50_000));
      await history.change(random.between(1, 8));
      const { kept } = history;
      const kind = random.below(3);
      if (kind === 0 || kept.length < 3) await history.snapshot();
      else if (kind === 1) await history.deleteSnapshot(random.pick(kept));
      else {
        const { id } = random.pick(kept);
        const before = volume.freeBlocks;
        await volume.exclusive((writer) => writer.shadowSnapshot(id));
        history.kept = kept.filter((one) => one.id !== id);
        assert(volume.freeBlocks > before - 40, "a few blocks for the consistency point");
      }
      const sum = new Set(volume.snapshots().flatMap((one) => [...bitsOf(volume, one)]));
      await volume.exclusive(({ space }) => {
        for (let vbn = 0; vbn < volume.zone.capacity; vbn++) {
          const block = space.summary.block(Math.floor(vbn / PAGE_BITS));
          const bit = vbn % PAGE_BITS;
          assertEquals((block[bit >> 3] >> (bit & 7) & 1) === 1, sum.has(vbn), `VBN ${vbn}`);
        }
      });
    }
    await history.close();
  });
});

test("deleting a snapshot reads what changed, not the volume", async () => {
  const reads: number[] = [];
  for (const pages of [64, 512]) {
    const store = new FaultStore(new MemoryStore(pages * PAGE_BITS));
    const volume = await Volume.create(store, { now: tickingClock(), cacheBytes: 1 });
    // Something on every page of plane, so that there are planes to read.
    for (let i = 0; i < pages; i++) {
      await skipBlocks(volume, PAGE_BITS - 8);
      await volume.exclusive(({ fs }) => {
        fs.write(fs.create(2, `${i}`, { type: "file" }), 0, new Random(i).bytes(4096));
      });
    }
    const take = (name: string) => volume.exclusive((writer) => writer.takeSnapshot(name));
    const first = await take("first");
    for (const name of ["second", "third"]) {
      await volume.exclusive(({ fs }) => fs.write(fs.resolve("/5"), 0, new Random(99).bytes(4096)));
      await take(name);
    }
    assert([...volume.plane(first).pages()].length > pages * 0.9, "the plane is wide");
    const before = store.counts.read;
    await volume.exclusive((writer) => writer.deleteSnapshot(first.id));
    reads.push(store.counts.read - before);
    await volume.close();
  }
  assert(reads[1] < reads[0] + 20, `${reads} blocks read in volumes of 64 and 512 pages`);
});
