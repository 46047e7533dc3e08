/**
 * What every block store must do, as a value: the same tests for each make.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import type { BlockStore } from "../../src/store/mod.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

const BLOCK_SIZE = 4096;

/** A make of block store, and how to get one. */
export interface BlockStoreSuite {
  readonly name: string;
  /** A new, empty store; `dispose` closes it and removes what it lay on. */
  make(capacity: number): { store: BlockStore; dispose(): void };
}

/** Registers the suite's tests. */
export function testBlockStore(suite: BlockStoreSuite): void {
  const check = (
    name: string,
    capacity: number,
    work: (store: BlockStore) => void | Promise<void>,
  ) =>
    test(`${suite.name} ${name}`, async () => {
      const { store, dispose } = suite.make(capacity);
      try {
        await work(store);
      } finally {
        dispose();
      }
    });

  check("says how many blocks it has", 77, (store) => assertEquals(store.capacity, 77));

  check("reads zeros where nothing was written", 64, (store) => {
    for (const [vbn, count] of [[0, 64], [63, 1], [5, 10]]) {
      const target = new Uint8Array(count * BLOCK_SIZE).fill(9);
      store.read(vbn, target);
      assertEquals(target, new Uint8Array(count * BLOCK_SIZE));
    }
    store.write(40, new Uint8Array(BLOCK_SIZE).fill(1));
    const target = new Uint8Array(3 * BLOCK_SIZE).fill(9);
    store.read(39, target);
    assertEquals([target[0], target[BLOCK_SIZE], target[2 * BLOCK_SIZE]], [0, 1, 0]);
  });

  check("gives back what was written, through any mix of sizes, orders and syncs", 2000, async (
    store,
  ) => {
    const random = new Random(3);
    const model = new Uint8Array(2000 * BLOCK_SIZE);
    let next = 0;
    for (let step = 0; step < 600; step++) {
      const count = random.pick([1, 1, 1, 3, 17, 255, 256, 257, 600]);
      // Mostly one behind the other, as an allocator gives them out.
      const vbn = random.oneIn(4) || next + count > 2000 ? random.below(2001 - count) : next;
      next = vbn + count;
      if (random.oneIn(3)) {
        const target = new Uint8Array(count * BLOCK_SIZE);
        store.read(vbn, target);
        const expected = model.subarray(vbn * BLOCK_SIZE, next * BLOCK_SIZE);
        assertEquals(compare(target, expected), -1, `step ${step}, VBN ${vbn}, ${count} blocks`);
      } else {
        const bytes = new Uint8Array(count * BLOCK_SIZE).fill(random.below(256));
        bytes.set(random.bytes(100), random.below(bytes.length - 100));
        store.write(vbn, bytes);
        model.set(bytes, vbn * BLOCK_SIZE);
        // The caller may use its buffer again at once.
        bytes.fill(0xee);
      }
      if (random.oneIn(50)) await store.sync();
    }
    const all = new Uint8Array(model.length);
    store.read(0, all);
    assertEquals(compare(all, model), -1);
  });

  check("reads and writes views in the middle of a buffer", 8, (store) => {
    const buffer = new Uint8Array(4 * BLOCK_SIZE + 3);
    buffer.fill(5);
    store.write(2, buffer.subarray(3, 3 + 2 * BLOCK_SIZE));
    buffer.fill(0);
    store.read(2, buffer.subarray(3, 3 + 2 * BLOCK_SIZE));
    assertEquals(buffer.indexOf(5), 3);
    assertEquals(buffer.lastIndexOf(5), 2 + 2 * BLOCK_SIZE);
  });

  check("reaches its last block and nothing behind it", 10, (store) => {
    const block = new Uint8Array(BLOCK_SIZE).fill(1);
    store.write(9, block);
    const target = new Uint8Array(BLOCK_SIZE);
    store.read(9, target);
    assertEquals(target, block);
    for (const vbn of [10, -1, 11]) {
      assertThrows(() => store.read(vbn, target));
      assertThrows(() => store.write(vbn, block));
    }
    assertThrows(() => store.read(9, new Uint8Array(2 * BLOCK_SIZE)));
    assertThrows(() => store.write(9, new Uint8Array(2 * BLOCK_SIZE)));
  });

  check("takes whole blocks only", 10, async (store) => {
    assertThrows(() => store.read(0, new Uint8Array(100)));
    assertThrows(() => store.read(0, new Uint8Array(BLOCK_SIZE + 1)));
    assertThrows(() => store.write(0, new Uint8Array(100)));
    assertThrows(() => store.write(0, new Uint8Array(BLOCK_SIZE - 1)));
    await store.sync();
  });

  check("can sync as often as one likes", 10, async (store) => {
    await store.sync();
    store.write(1, new Uint8Array(BLOCK_SIZE));
    await Promise.all([store.sync(), store.sync()]);
  });
}

/** Index of the first byte that differs, -1 when none does. */
function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : b.length;
}
