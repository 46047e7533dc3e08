import { assert, assertEquals } from "@std/assert";
import { BLOCK_SIZE, checksum, HOLE, ZERO_BLOCK } from "../../src/format/mod.ts";
import { BlockTree } from "../../src/volume/mod.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { TestTree } from "../helpers/trees.ts";

/** Most blocks by height, with 16 slots. */
const SPANS = [0, 16, 16 * 512, 16 * 512 ** 2, 16 * 512 ** 3];

function block(random: Random): Uint8Array {
  return random.bytes(BLOCK_SIZE);
}

test("BlockTree follows a map: sparse, dirty and written, cut and grown", async () => {
  await forSeeds(seeds(1, 12), (random) => {
    const slotCount = random.pick([1, 16]);
    const test = new TestTree(slotCount);
    const limit = random.pick([slotCount, 40, 9000, 5_000_000]);
    let model = new Map<number, number>();
    for (let step = 0; step < 300; step++) {
      const known = [...model.keys()];
      const index = random.oneIn(2) && known.length > 0 ? random.pick(known) : random.below(limit);
      const kind = random.below(10);
      if (kind < 6) {
        const bytes = block(random);
        test.tree.writableBlock(index).set(bytes);
        model.set(index, checksum(bytes));
      } else if (kind === 6) {
        const from = random.pick([0, index, index + 1, limit]);
        test.tree.truncate(from);
        model = new Map([...model].filter(([at]) => at < from));
      } else if (kind === 7) {
        test.commit();
        checkReached(test);
      } else if (kind === 8) {
        assertEquals(test.tree.block(index + 1).length, BLOCK_SIZE);
      }
      for (const [at, crc] of random.oneIn(10) ? model : []) {
        assertEquals(checksum(test.tree.block(at)), crc, `block ${at}`);
      }
      const probe = random.below(limit);
      if (!model.has(probe)) assert(isEmpty(test.tree.block(probe)), `block ${probe} is a hole`);
    }
    test.commit();
    checkReached(test);
    for (const [at, crc] of model) {
      assertEquals(test.tree.pointer(at).crc, crc);
      assertEquals(checksum(test.tree.block(at)), crc);
    }
    const leaves: number[] = [];
    test.tree.forEachPointer((_, level, index) => {
      if (level === 0) leaves.push(index);
      return true;
    });
    assertEquals(leaves, [...model.keys()].sort((a, b) => a - b));
    test.tree.truncate(0);
    assertEquals(test.allocator.used.size, 0);
    assertEquals(test.tree.height, 0);
  });
});

function isEmpty(bytes: Uint8Array): boolean {
  return checksum(bytes) === checksum(ZERO_BLOCK);
}

/** What the tree reaches is exactly what it has been given and has not given back. */
function checkReached(test: TestTree): void {
  assertEquals(test.reached(), new Set(test.allocator.used));
}

test("BlockTree.setPointer frees what was there before, and takes holes", async () => {
  await forSeeds(seeds(20, 6), (random) => {
    const test = new TestTree();
    const limit = random.pick([16, 600, 300_000]);
    const model = new Map<number, { vbn: number; crc: number }>();
    for (let step = 0; step < 400; step++) {
      const index = random.oneIn(2) && model.size > 0
        ? random.pick([...model.keys()])
        : random.below(limit);
      if (random.oneIn(4)) {
        test.tree.setPointer(index, HOLE);
        model.delete(index);
      } else {
        const bytes = block(random);
        const pointer = { vbn: test.allocator.allocate(), crc: checksum(bytes) };
        test.io.writeRun(pointer.vbn, bytes);
        test.tree.setPointer(index, pointer);
        model.set(index, pointer);
      }
      if (random.oneIn(40)) test.commit();
      if (random.oneIn(40)) {
        const from = random.below(limit);
        test.tree.truncate(from);
        for (const at of model.keys()) if (at >= from) model.delete(at);
      }
      for (const [at, pointer] of random.oneIn(20) ? model : []) {
        assertEquals(test.tree.pointer(at), pointer);
      }
    }
    test.commit();
    checkReached(test);
    for (const [at, pointer] of model) assertEquals(test.tree.pointer(at), pointer);
  });
});

test("BlockTree has the least height that reaches its last block", () => {
  for (let height = 1; height < SPANS.length; height++) {
    for (const index of [SPANS[height - 1], SPANS[height] - 1]) {
      const test = new TestTree();
      test.tree.writableBlock(index)[5] = 1;
      assertEquals(test.tree.height, height, `block ${index}`);
      test.commit();
      assertEquals(test.tree.block(index)[5], 1);
      assertEquals(test.reached().size, height);
    }
  }
});

test("BlockTree keeps its blocks when it grows through every height", () => {
  const test = new TestTree();
  const indexes = SPANS.slice(1).flatMap((span) => [span - 1, span]).filter((at) => at < 2 ** 31);
  for (const [i, index] of indexes.entries()) {
    test.tree.writableBlock(index).fill(i + 1);
    if (i % 3 === 2) test.commit();
    for (let j = 0; j <= i; j++) assertEquals(test.tree.block(indexes[j])[0], j + 1);
  }
  test.commit();
  for (const [i, index] of indexes.entries()) assertEquals(test.tree.block(index)[0], i + 1);
  for (const [i, index] of [...indexes.entries()].reverse()) {
    test.tree.truncate(index);
    assert(isEmpty(test.tree.block(index)));
    if (i > 0) assertEquals(test.tree.block(indexes[i - 1])[0], i);
    test.commit();
    checkReached(test);
  }
});

test("BlockTree never changes a block on disk", async () => {
  await forSeeds(seeds(40, 4), (random) => {
    const test = new TestTree();
    for (let round = 0; round < 8; round++) {
      for (let i = 0; i < 30; i++) test.tree.writableBlock(random.below(2000)).set(block(random));
      test.commit();
      const before = new BlockTree(test.io, test.tree.height, test.tree.slots.slice());
      const content: [number, number][] = [];
      before.forEachPointer(({ crc }, level, index) => {
        if (level === 0) content.push([index, crc]);
        return true;
      });
      // Freed blocks are not given out again by this allocator, so all of it must still be there.
      for (let i = 0; i < 20; i++) test.tree.writableBlock(random.below(2000)).set(block(random));
      test.tree.truncate(random.below(2000));
      test.commit();
      const uncached = new BlockTree(test.io, before.height, before.slots);
      for (const [index, crc] of content) assertEquals(checksum(uncached.block(index)), crc);
    }
  });
});

test("BlockTree.differing names the blocks that differ, and reads nothing shared", async () => {
  await forSeeds(seeds(60, 8), (random) => {
    const test = new TestTree();
    const limit = random.pick([10, 1000, 300_000]);
    for (let i = 0; i < 60; i++) test.tree.writableBlock(random.below(limit)).set(block(random));
    test.tree.writableBlock(limit - 1)[0] = 1;
    test.commit();
    const old = new BlockTree(test.io, test.tree.height, test.tree.slots.slice());
    const changed = new Set<number>();
    for (let i = 0; i < 5; i++) {
      const index = random.below(limit);
      test.tree.writableBlock(index).set(block(random));
      changed.add(index);
    }
    const now = test.tree;
    test.commit();
    const wanted = [...changed].sort((a, b) => a - b);
    const isSameHeight = now.height === old.height;
    assert(isSameHeight);
    assertEquals([...test.tree.differing(old)], wanted);
    assertEquals([...old.differing(test.tree)], wanted);
    assertEquals([...test.tree.differing(test.tree)], []);
  });
});
