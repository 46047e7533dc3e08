// What planes may take on disk: a bit a block each, 32 snapshots four bytes a block, shadows one byte
// a block together with the marks that mirrors keep in memory.

import { assert, assertEquals } from "@std/assert";
import { PAGE_BITS } from "../../src/core/mod.ts";
import { INO, SHADOW_SLOTS } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { planeSpace, Volume, walkRoot } from "../../src/volume/mod.ts";
import { skipBlocks, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

const PAGES = 40;
const CAPACITY = PAGES * PAGE_BITS;

/** Changes something on every page of plane, the worst that a release can do to the planes. */
async function touchEveryPage(volume: Volume, seed: number): Promise<void> {
  for (let i = 0; i < PAGES; i++) {
    await skipBlocks(volume, PAGE_BITS);
    await volume.exclusive(({ fs }) => {
      const ino = fs.lookup(2, `${i}`) ?? fs.create(2, `${i}`, { type: "file" });
      fs.write(ino, 0, new Random(seed * PAGES + i).bytes(8192));
    });
  }
}

test("32 snapshots and all shadows stay in their bounds when every page changes each time", async () => {
  const volume = await Volume.create(new MemoryStore(CAPACITY), { now: tickingClock() });
  for (let i = 0; i < 32 + SHADOW_SLOTS + 2; i++) {
    await touchEveryPage(volume, i);
    await volume.exclusive((writer) => writer.takeSnapshot(`s${i}`));
  }
  for (let i = 0; i < SHADOW_SLOTS + 2; i++) {
    await volume.exclusive((writer) => writer.shadowSnapshot(volume.resolve(`s${i}`).id));
  }
  const { planes, blockMaps, summary, shadows } = planeSpace(volume);
  const bits = (pages: number) => pages * PAGE_BITS / CAPACITY;
  assertEquals(volume.snapshots().length, 32);
  for (const { name, kind, pages } of planes) {
    assert(bits(pages) <= 1, `${name} takes ${bits(pages)} bits a block`);
    // Shadows that share a slot have little in common here.
    if (kind !== "shadow") {
      assert(bits(pages) > 0.8, `${name} takes ${bits(pages)} bits a block: nothing was tested`);
    }
  }
  // 32 snapshots and the active file system, which is one more.
  assert(bits(blockMaps.pages) <= 33, `${bits(blockMaps.pages)} bits a block`);
  assert(bits(blockMaps.pages) > 20, `${bits(blockMaps.pages)} bits a block: nothing was tested`);
  assert(bits(summary.pages) <= 1);
  // Six of the eight bits; two are left for planes of marks in memory.
  assert(bits(shadows.pages) <= SHADOW_SLOTS, `${bits(shadows.pages)} bits a block`);
  assert(bits(shadows.pages) > SHADOW_SLOTS - 2, `${bits(shadows.pages)} bits a block`);
  for (const { pages, pointers } of [blockMaps, summary, shadows]) {
    assert(pointers <= pages, `${pointers} blocks of pointers to ${pages} pages`);
  }
  await volume.close();
});

test("planeSpace counts what a walk over all roots finds in the files of planes", async () => {
  const volume = await Volume.create(new MemoryStore(3 * PAGE_BITS), { now: tickingClock() });
  for (let i = 0; i < 6; i++) {
    await skipBlocks(volume, 20_000);
    await volume.exclusive(({ fs }) => {
      fs.write(fs.create(2, `${i}`, { type: "file" }), 0, new Random(i).bytes(50_000));
    });
    await volume.exclusive((writer) => writer.takeSnapshot(`s${i}`));
    if (i > 2) await volume.exclusive((one) => one.shadowSnapshot(volume.resolve(`s${i - 2}`).id));
  }
  const files = new Map<number, Set<number>>();
  for (const root of [...volume.snapshots(), volume.current]) {
    walkRoot(volume.io, root.root, ({ vbn }, _, ino) => {
      let blocks = files.get(ino);
      if (blocks === undefined) files.set(ino, blocks = new Set());
      blocks.add(vbn);
      return true;
    });
  }
  const space = planeSpace(volume);
  const sum = (...parts: { pages: number; pointers: number }[]) =>
    parts.reduce((total, { pages, pointers }) => total + pages + pointers, 0);
  assertEquals(sum(space.blockMaps), files.get(INO.blockMap)!.size);
  assertEquals(
    sum(space.summary, space.shadows, space.older),
    files.get(INO.summary)!.size + files.get(INO.shadows)!.size,
  );
  assert(space.older.pages > 0);
  assertEquals(space.planes.map(({ kind }) => kind), [
    "regular",
    "shadow",
    "shadow",
    "shadow",
    "regular",
    "regular",
    "active",
  ]);
  await volume.close();
});
