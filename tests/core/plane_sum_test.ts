import { assertEquals, assertNotEquals } from "@std/assert";
import { createCipheriv, createHash } from "node:crypto";
import { PlaneSum, SUM_BYTES } from "../../src/core/mod.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

type Blocks = Map<number, Uint8Array>;

/** The same by the book: numbers of 16 bits, one after the other. */
function sumOf(blocks: Blocks): Uint8Array {
  const columns = new Array<number>(1024).fill(0);
  for (const [vbn, block] of blocks) {
    const name = new Uint8Array([vbn & 255, (vbn >>> 8) & 255, (vbn >>> 16) & 255, vbn >>> 24]);
    const key = createHash("sha256").update(name).update(block).digest();
    const cipher = createCipheriv("aes-256-ctr", key, new Uint8Array(16));
    const stream = cipher.update(new Uint8Array(2048));
    cipher.final();
    columns.forEach((column, i) =>
      columns[i] = (column + stream[i * 2] + stream[i * 2 + 1] * 256) % 65536
    );
  }
  return Uint8Array.from(columns.flatMap((column) => [column & 255, column >>> 8]));
}

function blockOf(random: Random): Uint8Array {
  return Uint8Array.from({ length: 4096 }, () => random.below(256));
}

test("PlaneSum is the sum of what was added and not taken away, in any order", () => {
  const random = new Random(1);
  const sum = new PlaneSum();
  const blocks: Blocks = new Map();
  for (let step = 0; step < 400; step++) {
    if (blocks.size > 0 && random.oneIn(3)) {
      const vbn = random.pick([...blocks.keys()]);
      sum.subtract(vbn, blocks.get(vbn)!);
      blocks.delete(vbn);
    } else {
      const vbn = random.below(2 ** 32);
      if (blocks.has(vbn)) continue;
      const block = blockOf(random);
      sum.add(vbn, block);
      blocks.set(vbn, block);
    }
  }
  assertEquals(sum.bytes, sumOf(blocks) as Uint8Array<ArrayBuffer>);
  assertEquals(PlaneSum.from(sum.bytes).digest, sum.digest);
  const copy = sum.copy();
  for (const [vbn, block] of blocks) sum.subtract(vbn, block);
  assertEquals(sum.bytes, new Uint8Array(SUM_BYTES));
  assertNotEquals(copy.bytes, sum.bytes);
});

test("PlaneSum tells blocks that changed places, and one bit", () => {
  const random = new Random(2);
  const [a, b] = [blockOf(random), blockOf(random)];
  const digest = (blocks: [number, Uint8Array][]) => {
    const sum = new PlaneSum();
    for (const [vbn, block] of blocks) sum.add(vbn, block);
    return sum.digest;
  };
  const whole = digest([[7, a], [8, b]]);
  assertEquals(digest([[8, b], [7, a]]), whole);
  assertNotEquals(digest([[8, a], [7, b]]), whole);
  assertNotEquals(digest([[7, a]]), whole);
  assertNotEquals(digest([[7, a], [8, b], [8, b]]), whole);
  const flipped = a.slice();
  flipped[4095] ^= 128;
  assertNotEquals(digest([[7, flipped], [8, b]]), whole);
});

test("PlaneSum has the value that signatures stand on", () => {
  const sum = new PlaneSum();
  sum.add(0x01020304, new Uint8Array(4096).fill(5));
  assertEquals(
    [...sum.digest].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    "29e0fd55a2039ce2c3ca5c8e4a2a6a2f3befe091ffcd76e3180088f159a2c45a",
  );
});
