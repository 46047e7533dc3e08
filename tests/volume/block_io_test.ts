import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE, checksum } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockCache, BlockIo } from "../../src/volume/mod.ts";
import { test } from "../helpers/strict.ts";

function block(value: number): Uint8Array {
  return new Uint8Array(BLOCK_SIZE).fill(value);
}

test("BlockCache gives a block only with the checksum asked for", () => {
  const cache = new BlockCache(2 ** 20);
  cache.set(5, 77, block(1));
  assertEquals(cache.get(5, 77), block(1));
  assertEquals(cache.get(5, 78), undefined);
  assertEquals(cache.get(6, 77), undefined);
  cache.set(5, 78, block(2));
  assertEquals(cache.get(5, 77), undefined);
  assertEquals(cache.get(5, 78), block(2));
});

test("BlockCache forgets what will be written over, young or old", () => {
  const cache = new BlockCache(32 * BLOCK_SIZE);
  for (let vbn = 0; vbn < 24; vbn++) cache.set(vbn, vbn, block(vbn));
  cache.forget(10, 10);
  for (let vbn = 0; vbn < 24; vbn++) {
    const isGone = vbn >= 10 && vbn < 20;
    assertEquals(cache.get(vbn, vbn) === undefined, isGone, `VBN ${vbn}`);
  }
});

test("BlockCache keeps what is used, within its limit", () => {
  const limit = 200;
  const cache = new BlockCache(limit * BLOCK_SIZE);
  cache.set(0, 0, block(0));
  for (let vbn = 1; vbn < 2000; vbn++) {
    cache.set(vbn, vbn, block(1));
    assert(cache.get(0, 0) !== undefined, `after ${vbn}`);
  }
  let kept = 0;
  for (let vbn = 0; vbn < 2000; vbn++) if (cache.get(vbn, vbn) !== undefined) kept++;
  assert(kept >= limit / 2 - 1 && kept <= limit, `${kept} kept`);
});

test("BlockIo reads what its pointer names or nothing (I1)", () => {
  const store = new MemoryStore(10);
  const io = new BlockIo(store, new BlockCache(0));
  const [old, now] = [block(1), block(2)];
  io.write(3, checksum(old), old);
  assertEquals(io.read({ vbn: 3, crc: checksum(old) }), old);
  // Written over as content: neither the old bytes nor the new ones under the wrong name.
  io.writeRun(3, now);
  const stale = assertThrows(() => io.read({ vbn: 3, crc: checksum(old) }), VolcastError);
  assertEquals(stale.kind, "damaged");
  assert(stale.message.includes("VBN 3"), stale.message);
  assertEquals(io.read({ vbn: 3, crc: checksum(now) }), now);
  const target = new Uint8Array(2 * BLOCK_SIZE);
  const zero = checksum(block(0));
  io.readRun(3, [checksum(now), zero], target);
  assertEquals(target.subarray(0, BLOCK_SIZE), now);
  for (const crcs of [[checksum(old), zero], [checksum(now), checksum(now)]]) {
    assertThrows(() => io.readRun(3, crcs, target), VolcastError);
  }
  for (const [vbn, count] of [[10, 1], [9, 2], [2 ** 32 - 1, 1]]) {
    const crcs = new Array<number>(count).fill(zero);
    const run = assertThrows(
      () => io.readRun(vbn, crcs, new Uint8Array(count * BLOCK_SIZE)),
      VolcastError,
    );
    assertEquals(run.kind, "damaged");
  }
  assertEquals(assertThrows(() => io.read({ vbn: 10, crc: 0 }), VolcastError).kind, "damaged");
});
