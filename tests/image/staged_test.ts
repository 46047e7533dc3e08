// Images from shadow bases: blocks may come in where live ones lie. Nothing may be missing, nothing may be
// read from the wrong place, and a crash at any moment leaves the old root or the new one, whole.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { hasBit, VolcastError } from "../../src/core/mod.ts";
import { applyImage, Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forgeImage, parseImage } from "../helpers/parse_image.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import {
  advance,
  assertSame,
  blockAt,
  reachedFrom,
  type Replica,
  replicaOf,
} from "../helpers/replicas.ts";
import { type Contents, contentsOf } from "../helpers/shadow_history.ts";
import { bytesOf, sourceOf, sourceOfImage } from "../helpers/streams.ts";
import { CrashStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

const CAPACITY = 1500;

async function shadow(history: History, id: string): Promise<void> {
  await history.volume.exclusive((writer) => writer.shadowSnapshot(id));
  history.kept = history.kept.filter((kept) => kept.id !== id);
}

/** Uses blocks again: the file is small against the volume, and written many times. */
async function reuse(history: History): Promise<void> {
  await history.churn(history.random.between(6, 12), history.random.between(300_000, 900_000));
  await history.change(history.random.between(1, 12));
}

/** All that `top` reaches and that is not as it was in the base; found without any plane. */
function mustTravel(history: History, top: string, before: Contents): number[] {
  const { volume, store } = history;
  return [...reachedFrom(volume, volume.resolve(top))].filter((vbn) => {
    const old = before.get(vbn);
    return old === undefined || blockAt(store, vbn).some((byte, i) => byte !== old[i]);
  });
}

test("images since shadows lack nothing and are applied, step by step, down a chain", async () => {
  const sums = { images: 0, staged: 0, full: 0 };
  await forSeeds(seeds(1, 5), async (random) => {
    const history = await History.begin(new MemoryStore(CAPACITY), random, { writeBytes: 40_000 });
    await reuse(history);
    const begun = (await history.snapshot())!;
    const had = new Map([[
      begun.id,
      contentsOf(history.store, history.volume, at(history, begun)),
    ]]);
    const first = await replicaOf(history.volume, begun.id);
    const second = await replicaOf(history.volume, begun.id);
    for (let round = 0; round < 12; round++) {
      // What nobody stands on goes, what somebody stands on becomes a shadow.
      for (const kept of [...history.kept]) {
        const stands = [first, second].some(({ volume }) => volume.current.id === kept.id);
        if (!stands || !random.oneIn(4)) {
          if (stands) await shadow(history, kept.id);
          else await history.deleteSnapshot(kept);
        }
      }
      await reuse(history);
      const kept = await history.snapshot();
      if (kept === undefined) break;
      had.set(kept.id, contentsOf(history.store, history.volume, at(history, kept)));
      if (random.oneIn(3)) await history.reopen();
      // Sometimes the shadow is made after the top was taken.
      for (const old of history.kept.filter(({ id }) => id !== kept.id)) {
        if (random.oneIn(3)) await shadow(history, old.id);
      }
      const base = history.volume.resolveBase(first.volume.current.id);
      const image = new Image(history.volume, at(history, kept), base);
      const sent = parseImage(await bytesOf(image)).blocks;
      for (const vbn of mustTravel(history, kept.id, had.get(base.id)!)) {
        assert(sent.has(vbn), `VBN ${vbn} is missing in round ${round}`);
      }
      const live = first.volume.plane(first.volume.current);
      const staged = [...sent.keys()].filter((vbn) => hasBit(live, vbn)).length;
      sums.images++;
      sums.staged += base.slot === undefined ? 0 : staged;
      const isDone = await advance(first.volume, history.volume, kept.id).then(
        () => true,
        (error) => {
          // No room to stage: the replica is as it was, and would take a full image now.
          assertEquals(error.kind, "full", error.message);
          return false;
        },
      );
      assertClean(first.volume);
      if (!isDone) {
        sums.full++;
        break;
      }
      assertSame(history, first, kept.id);
      assertEquals(first.volume.superblock.remap, undefined);
      // The child goes to the replica, which has the shadow by its own root, or to the origin.
      const parent = [first.volume, history.volume].find((volume) =>
        volume.findBase(second.volume.current.id) !== undefined && random.oneIn(2)
      );
      if (parent !== undefined) {
        await advance(second.volume, parent, kept.id);
        assertSame(history, second, kept.id);
        assertClean(second.volume);
      }
      if (random.oneIn(3)) {
        await first.volume.close();
        first.volume = Volume.open(first.store);
        assertSame(history, first, kept.id);
      }
    }
    history.check();
    await history.close();
    await first.volume.close();
    await second.volume.close();
  });
  // Otherwise nothing was tested.
  assert(sums.images > 20 && sums.staged > 300, JSON.stringify(sums));
});

function at({ volume }: History, { id }: { id: string }) {
  return volume.resolve(id);
}

/** An origin two releases ahead of a replica whose base is a shadow there by now. */
async function scene(random: Random): Promise<{ history: History; replica: Replica; top: string }> {
  for (;;) {
    const history = await History.begin(new MemoryStore(CAPACITY), random, { writeBytes: 40_000 });
    await reuse(history);
    const begun = (await history.snapshot())!;
    const replica = await replicaOf(history.volume, begun.id);
    await shadow(history, begun.id);
    await history.churn(6, 800_000);
    const top = (await history.snapshot())!;
    const live = replica.volume.plane(replica.volume.current);
    const image = new Image(history.volume, at(history, top), history.volume.resolveBase(begun.id));
    const sent = parseImage(await bytesOf(image)).blocks;
    if ([...sent.keys()].some((vbn) => hasBit(live, vbn))) return { history, replica, top: top.id };
    await history.close();
    await replica.volume.close();
  }
}

test("a crash at any write of a staged image leaves the old root or the new one", async () => {
  let roots = { old: 0, new: 0 };
  await forSeeds(seeds(20, 1), async (random) => {
    const { history, replica, top } = await scene(random);
    const old = replica.volume.current.id;
    await replica.volume.close();
    const store = new CrashStore(replica.store);
    const volume = Volume.open(store);
    await advance(volume, history.volume, top);
    volume.abandon();
    // Each moment three times: what of the unsynced writes is there is another thing each time.
    for (let turn = 0; turn < 3 * (store.events.length + 1); turn++) {
      const count = Math.floor(turn / 3);
      const disk = store.crashed(count, random);
      const found = Volume.open(disk);
      assertClean(found);
      const { id } = found.current;
      assert(id === old || id === top, `${id} after ${count} writes`);
      roots = { old: roots.old + Number(id === old), new: roots.new + Number(id === top) };
      const here = { store: disk, volume: found };
      if (id === old) await advance(found, history.volume, top);
      // What a crash left staged is read from where it lies, and put into its place.
      else assertEquals(found.fileSystem(found.current).root.cp, found.current.cp);
      await found.settle();
      assertEquals(found.superblock.remap, undefined);
      assertSame(history, here, top);
      assertClean(found);
      found.abandon();
    }
    await history.close();
  });
  assert(roots.old > 10 && roots.new > 10, JSON.stringify(roots));
});

test("readers of the old root go on while the new one is current, until they are ended", async () => {
  const { history, replica, top } = await scene(new Random(31));
  const { volume } = replica;
  const before = volume.view();
  const files = before.fs.directory(2).entries();
  const names = [...files].map(({ name }) => name);
  const base = history.volume.resolveBase(volume.current.id);
  const image = new Image(history.volume, history.volume.resolve(top), base);
  const applying = applyImage(volume, sourceOfImage(image), { drainMs: 2_000 });
  while (volume.current.id !== top) await new Promise((resolve) => setTimeout(resolve, 5));
  assert(volume.superblock.remap !== undefined, "blocks are staged while somebody reads");
  assertEquals([...before.fs.directory(2).entries()].map(({ name }) => name), names);
  const after = volume.view();
  assertEquals(after.snapshot.id, top);
  assertSame(history, { ...replica, store: viewOf(replica.volume) }, top);
  before.release();
  await applying;
  assertEquals(volume.superblock.remap, undefined);
  // Who began to read while blocks were staged goes on as well.
  assert([...after.fs.directory(2).entries()].length > 0);
  after.release();
  assertSame(history, replica, top);
  await history.close();
  await volume.close();
});

/** A store with the blocks as the volume reads them now. */
function viewOf(volume: Volume): MemoryStore {
  const store = new MemoryStore(volume.zone.capacity);
  const block = new Uint8Array(4096);
  for (let vbn = 0; vbn < store.capacity; vbn++) {
    volume.io.store.read(vbn, block);
    store.write(vbn, block);
  }
  return store;
}

test("a staged transfer that was cut goes on where it was", async () => {
  await forSeeds(seeds(40, 2), async (random) => {
    const { history, replica, top } = await scene(random);
    const base = history.volume.resolveBase(replica.volume.current.id);
    const image = new Image(history.volume, history.volume.resolve(top), base);
    const bytes = await bytesOf(image);
    // Somewhere in the last frames, or in the end record.
    const cut = bytes.slice(0, bytes.length - random.pick([30, 64 + 5000]));
    await assertRejects(
      () => applyImage(replica.volume, sourceOf(cut)),
      VolcastError,
      "incomplete",
    );
    if (random.oneIn(2)) {
      await replica.volume.close();
      replica.volume = Volume.open(replica.store);
    }
    assertClean(replica.volume);
    const applied = await applyImage(replica.volume, sourceOf(bytes));
    assert(applied.bytes < bytes.length, `${applied.bytes} of ${bytes.length} bytes again`);
    assertSame(history, replica, top);
    await history.close();
    await replica.volume.close();
  });
});

test("a shadow's plane that lacks a reused block is found out before the flip", async () => {
  let refused = 0;
  await forSeeds(seeds(50, 2), async (random) => {
    const { history, replica, top } = await scene(random);
    const { volume } = history;
    const base = volume.resolveBase(replica.volume.current.id);
    const good = new Image(volume, volume.resolve(top), base);
    const { header, blocks } = parseImage(await bytesOf(good));
    const live = replica.volume.plane(replica.volume.current);
    const reused = [...blocks.keys()].filter((vbn) => hasBit(live, vbn));
    for (let i = 0; i < 6; i++) {
      const gone = random.pick(reused);
      // As a parent would send it whose shadow had kept the bit of this block.
      const rest = new Map([...blocks].filter(([vbn]) => vbn !== gone));
      const before = replica.volume.current.id;
      const error = await assertRejects(
        () => applyImage(replica.volume, sourceOf(forgeImage(header, rest, []))),
        VolcastError,
      );
      assertEquals(error.kind, "damaged", error.message);
      assertEquals(replica.volume.current.id, before);
      assertClean(replica.volume);
      refused++;
    }
    await history.close();
    await replica.volume.close();
  });
  assert(refused > 10);
});
