import { assert, assertEquals } from "@std/assert";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import {
  advance,
  assertSame,
  bitsOf,
  imageOf,
  reachedFrom,
  type Replica,
  replicaOf,
} from "../helpers/replicas.ts";
import { bytesOf, collect, sourceOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { parseImage } from "../helpers/parse_image.ts";

/** A volume of one page of plane, or of four. */
function begin(random: Random): Promise<History> {
  const capacity = random.pick([3000, 100_000]);
  return History.begin(new MemoryStore(capacity), random, { sparse: true });
}

test("Image is what brute force finds, for every pair of snapshots", async () => {
  await forSeeds(seeds(1, 8), async (random) => {
    const history = await begin(random);
    const { volume } = history;
    while (history.kept.length < 6) {
      await history.skip(random.below(40_000));
      await history.change(random.between(1, 30));
      await history.snapshot();
      if (random.oneIn(3) && history.kept.length > 3) {
        await history.deleteSnapshot(random.pick(history.kept));
      }
    }
    const all = volume.snapshots();
    const reached = all.map((snapshot) => reachedFrom(volume, snapshot));
    for (const [i, top] of all.entries()) {
      // The plane of a root is what it reaches: everything else stands on this.
      assertEquals(bitsOf(volume, top), reached[i]);
      for (const [j, base] of [...all.entries(), [-1, undefined] as const]) {
        const image = imageOf(volume, top.id, base?.id);
        const wanted = [...reached[i]].filter((vbn) => !reached[j]?.has(vbn)).sort((a, b) => a - b);
        const gone = [...(reached[j] ?? [])].filter((vbn) => !reached[i].has(vbn));
        const parsed = parseImage(await bytesOf(image));
        assertEquals([...parsed.blocks.keys()], wanted);
        assertEquals(parsed.deallocated, gone.sort((a, b) => a - b));
        assertEquals(parsed.length, image.byteCount);
        const block = new Uint8Array(4096);
        for (const [vbn, bytes] of parsed.blocks) {
          volume.io.store.read(vbn, block);
          assertEquals(bytes, block);
        }
      }
    }
    await history.close();
  });
});

test("replicas are bit-identical under every plane, step by step, down a chain", async () => {
  await forSeeds(seeds(20, 8), async (random) => {
    const history = await begin(random);
    await history.change(20);
    await history.snapshot();
    const origin = history;
    const first = await replicaOf(history.volume, history.kept[0].id);
    const second = await replicaOf(first.volume, history.kept[0].id);
    for (let round = 0; round < 14; round++) {
      await history.skip(random.below(40_000));
      await history.change(random.between(0, 25));
      const kept = await history.snapshot();
      if (kept === undefined) break;
      await advance(first.volume, history.volume, kept.id);
      assertSame(origin, first, kept.id);
      assertClean(first.volume);
      if (random.oneIn(2)) {
        // The child of the replica is behind by several steps, or comes at once.
        const base = second.volume.current.id;
        if (first.volume.find(base) !== undefined) {
          await advance(second.volume, first.volume, kept.id);
        } else {
          await advance(second.volume, history.volume, kept.id);
        }
        assertSame(origin, second, kept.id);
        assertClean(second.volume);
      }
      for (const { id } of first.volume.snapshots()) {
        // What a replica lists it has whole, deleted at the origin or not.
        if (history.kept.some((known) => known.id === id)) assertSame(origin, first, id);
      }
      if (random.oneIn(3)) await history.reopen();
      if (random.oneIn(3)) {
        await first.volume.close();
        first.volume = Volume.open(first.store);
        assertSame(origin, first, kept.id);
      }
      // Any but the ones that the replicas stand on.
      const needed = [first.volume.current.id, second.volume.current.id];
      const others = history.kept.filter(({ id }) => !needed.includes(id));
      while (others.length > 2) await history.deleteSnapshot(others.shift()!);
    }
    history.check();
    await history.close();
    await first.volume.close();
    await second.volume.close();
  });
});

test("Image streams are the same bytes at origin and replica, whole and in ranges", async () => {
  await forSeeds(seeds(40, 6), async (random) => {
    const history = await begin(random);
    await history.change(20);
    await history.snapshot();
    const replica = await replicaOf(history.volume, history.kept[0].id);
    for (let i = 0; i < 3; i++) {
      await history.skip(40_000);
      await history.change(25);
      const kept = await history.snapshot();
      await advance(replica.volume, history.volume, kept!.id);
    }
    const common = replica.volume.snapshots();
    assert(common.length >= 2, "the replica holds several snapshots");
    const etags = new Set<string>();
    for (const top of common) {
      for (const base of [undefined, ...common.filter(({ id }) => id !== top.id)]) {
        const here = imageOf(history.volume, top.id, base?.id);
        const there = imageOf(replica.volume, top.id, base?.id);
        assertEquals(there.etag, here.etag);
        assert(!etags.has(here.etag), "another image has another entity tag");
        etags.add(here.etag);
        const bytes = await bytesOf(here);
        assertEquals(await bytesOf(there), bytes);
        assertEquals(await bytesOf(there), bytes, "a second time");
        for (let i = 0; i < 12; i++) {
          const from = random.below(bytes.length + 1);
          const to = from + random.below(bytes.length - from + 1);
          // A fresh plan has no digest yet; a used one has.
          const image = i % 2 === 0 ? there : imageOf(replica.volume, top.id, base?.id);
          assertEquals(await collect(image.stream({ from, to })), bytes.subarray(from, to));
        }
        const { length } = bytes;
        for (const from of [0, 1, 1023, 1024, length - 65, length - 64, length - 1, length]) {
          const image = imageOf(replica.volume, top.id, base?.id);
          assertEquals(await collect(image.stream({ from })), bytes.subarray(from));
        }
      }
    }
    assertEquals(replica.volume.leases.size, 0);
    assertEquals(history.volume.leases.size, 0);
    await history.close();
    await replica.volume.close();
  });
});

test("applyImage goes back to an older snapshot, and forth again", async () => {
  await forSeeds(seeds(60, 6), async (random) => {
    const history = await begin(random);
    const origin = history;
    for (let i = 0; i < 5; i++) {
      await history.skip(random.below(40_000));
      await history.change(20);
      await history.snapshot();
    }
    const ids = history.kept.map(({ id }) => id);
    const replica = await replicaOf(history.volume, ids[0]);
    for (let i = 0; i < 12; i++) {
      const id = random.pick(ids.filter((other) => other !== replica.volume.current.id));
      await advance(replica.volume, history.volume, id);
      assertEquals(replica.volume.current.id, id);
      for (const listed of replica.volume.snapshots()) assertSame(origin, replica, listed.id);
      assertClean(replica.volume);
    }
    await history.close();
    await replica.volume.close();
  });
});

test("applyImage takes streams in chunks of any size", async () => {
  const history = await History.begin(new MemoryStore(2000), new Random(1));
  await history.change(30);
  const kept = await history.snapshot();
  const bytes = await bytesOf(imageOf(history.volume, kept!.id));
  for (const chunkBytes of [1, 7, 4096, 4097, 1 << 20]) {
    const store = new MemoryStore(2000);
    const replica: Replica = { store, volume: Volume.incoming(store, history.volume.volumeId) };
    const source = sourceOf(bytes);
    await applyImage(replica.volume, {
      ...source,
      open: (offset) => Promise.resolve(streamOf(bytes.subarray(offset), chunkBytes)),
    });
    assertSame(history, replica, kept!.id);
    await replica.volume.close();
  }
  await history.close();
});
