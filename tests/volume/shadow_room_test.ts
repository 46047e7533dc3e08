// A wide volume that is nearly full, its free blocks few and far between: every consistency point walks
// over many pages of plane, and every page it takes a block from is a changed page in each slot.

import { assert, assertEquals } from "@std/assert";
import { PAGE_BITS } from "../../src/core/mod.ts";
import { SHADOW_SLOTS } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockCache, BlockIo, BlockTree, newShadowInode, Space } from "../../src/volume/mod.ts";
import { test } from "../helpers/strict.ts";

/** 262 GiB, with four free blocks on each page. */
const PAGES = 2100;
const FREE = [8, 9, 10, 11];

function wideSpace(): Space {
  const io = new BlockIo(new MemoryStore(PAGES * PAGE_BITS), new BlockCache(2 ** 28));
  // The planes lie among blocks that the map says are used.
  let next = 1000;
  const builder = { allocate: () => next++, free: () => {}, dirtied: () => {} };
  const build = (
    height: number,
    slots: Uint8Array,
    pages: number,
    fill: (page: Uint8Array) => void,
  ) => {
    const tree = new BlockTree(io, height, slots, builder);
    for (let index = 0; index < pages; index++) fill(tree.writableBlock(index));
    while (tree.assign());
    tree.write();
  };
  const slots = new Uint8Array(128);
  build(2, slots, PAGES, (page) => page.fill(255).fill(0b1111_0000, 1, 2));
  const inode = newShadowInode(PAGES);
  build(inode.height, inode.slots, SHADOW_SLOTS * PAGES, (page) => page.fill(255, 1, 2));
  assert(next < PAGE_BITS, "all of it fits into the first page");
  const space = new Space({ start: 8, count: PAGES * PAGE_BITS - 8 }, PAGES);
  space.attach(
    new BlockTree(io, 2, slots, space),
    new BlockTree(io, 2, new Uint8Array(128), space),
  );
  space.attachShadows(io, inode);
  return space;
}

test("a consistency point has room where every page that it touches is in six shadows", () => {
  const space = wideSpace();
  // The first eight bits lie before the data, and are counted as used.
  assertEquals(space.freeCount, FREE.length * PAGES - 8);
  assert(space.hasForChange(), "one more change is allowed");
  const given = [space.allocate()];
  const { allocateRun } = space;
  space.allocateRun = (most) => {
    const run = allocateRun.call(space, most);
    for (let i = 0; i < run.count; i++) given.push(run.start + i);
    return run;
  };
  const { tree } = space.shadows!;
  for (let more = true; more;) {
    more = tree.assign();
    more = space.map.assign() || more;
    more = space.summary.assign() || more;
  }
  space.detachWorkingPage();
  for (const one of [tree, space.map, space.summary]) one.write();
  assert(given.length > 1000, `${given.length} blocks were used`);
  for (const vbn of given) {
    const [index, bit] = [Math.floor(vbn / PAGE_BITS), vbn % PAGE_BITS];
    for (let slot = 0; slot < SHADOW_SLOTS; slot++) {
      const page = tree.block(slot * PAGES + index);
      assertEquals(page[bit >> 3] >> (bit & 7) & 1, 0, `VBN ${vbn} in slot ${slot}`);
    }
  }
  // Some pages were written anew while there was room, some became holes; most were not touched.
  const holes = Array.from({ length: SHADOW_SLOTS * PAGES }, (_, i) => tree.pointer(i).vbn)
    .filter((vbn) => vbn === 0).length;
  assert(holes > 100 && holes < SHADOW_SLOTS * PAGES / 2, `${holes} holes`);
});
