// Headers of packed files and of members of stripes.

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import {
  BLOCK_SIZE,
  decodeMapBlock,
  decodeMapEntries,
  decodePackedHeader,
  decodeStripeHeader,
  encodeMapBlock,
  encodePackedHeader,
  encodeStripeHeader,
  isPackedHeader,
  MAP_ENTRIES,
  memberBlocksOf,
  type PackedHeader,
  sealHeader,
  STRIPE_MEMBERS,
  type StripeHeader,
} from "../../src/format/mod.ts";
import { test } from "../helpers/strict.ts";

const PACKED: PackedHeader = {
  capacity: 2 ** 32,
  sequence: 2 ** 40,
  end: 1000,
  mapBlocks: 7,
  mapHead: 999,
  mapCrc: 0xfedcba98,
};
const STRIPE: StripeHeader = {
  stripeId: "0123456789abcdef0123456789abcdef",
  capacity: 70_000,
  memberBlocks: memberBlocksOf(70_000, 3),
  index: 2,
  names: ["a.vol", "/disk2/b.vol", "ümlaut 名.vol"],
};

function refused(work: () => unknown, kind: ErrorKind): void {
  assertEquals(assertThrows(work, VolcastError).kind, kind);
}

/** A block with one number changed and the checksum made right. */
function changed(block: Uint8Array, at: number, value: number): Uint8Array {
  const copy = block.slice();
  new DataView(copy.buffer).setUint32(at, value, true);
  return sealHeader(copy);
}

test("packed headers are read as they were written", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 2 ** 32 }),
      fc.nat(),
      fc.maxSafeNat(),
      (end, map, seq) => {
        const mapBlocks = Math.min(map, end - 2);
        const header = {
          ...PACKED,
          sequence: seq,
          end,
          mapBlocks,
          mapHead: mapBlocks === 0 ? 0 : end - 1,
        };
        const block = encodePackedHeader(header);
        assert(block.length === BLOCK_SIZE && isPackedHeader(block));
        assertEquals(decodePackedHeader(block), header);
      },
    ),
  );
});

test("a packed header with any bit flipped is as if there were none", () => {
  const block = encodePackedHeader(PACKED);
  for (let bit = 0; bit < BLOCK_SIZE * 8; bit += bit < 512 ? 1 : 61) {
    block[bit >> 3] ^= 1 << (bit & 7);
    assertEquals(decodePackedHeader(block), undefined, `bit ${bit}`);
    block[bit >> 3] ^= 1 << (bit & 7);
  }
  assertEquals(decodePackedHeader(new Uint8Array(BLOCK_SIZE)), undefined);
});

test("packed headers that cannot be are refused", () => {
  const block = encodePackedHeader(PACKED);
  refused(() => decodePackedHeader(changed(block, 8, 2)), "unsupported");
  for (const [at, value] of [[12, 512], [20, 2], [36, 5000], [32, 8], [40, 0], [44, 0], [60, 1]]) {
    refused(() => decodePackedHeader(changed(block, at, value)), "damaged");
  }
});

test("blocks of the map are read as they were written, up to their last entry", () => {
  for (const count of [0, 1, MAP_ENTRIES]) {
    const entries = Array.from({ length: count }, (_, i) => ({
      vbn: 2 ** 32 - 1 - i,
      count: i + 1,
      slot: i * 10_000_000 % 2 ** 32,
    }));
    const head = { index: 7, previous: 2 ** 32 - 1, previousCrc: 5 };
    const block = encodeMapBlock(head, entries);
    assertEquals(block.length, BLOCK_SIZE);
    assertEquals(decodeMapBlock(block), { ...head, count });
    assertEquals(decodeMapEntries(block, count), entries);
  }
  const block = encodeMapBlock({ index: 0, previous: 0, previousCrc: 0 }, []);
  new DataView(block.buffer).setUint32(16, MAP_ENTRIES + 1, true);
  refused(() => decodeMapBlock(block), "damaged");
  refused(() => decodeMapBlock(new Uint8Array(BLOCK_SIZE)), "damaged");
});

test("stripe headers are read as they were written", () => {
  assertEquals(decodeStripeHeader(encodeStripeHeader(STRIPE)), STRIPE);
  for (const count of [STRIPE_MEMBERS.least, STRIPE_MEMBERS.most]) {
    const names = Array.from({ length: count }, (_, i) => `${i}`.padStart(247, "n"));
    const header = { ...STRIPE, names, index: 0, memberBlocks: memberBlocksOf(70_000, count) };
    assertEquals(decodeStripeHeader(encodeStripeHeader(header)), header);
  }
  const names = Array.from({ length: 16 }, () => "n".repeat(248));
  refused(() => encodeStripeHeader({ ...STRIPE, names }), "usage");
});

test("stripe headers that cannot be are refused, and what is none is told apart", () => {
  const block = encodeStripeHeader(STRIPE);
  assertEquals(decodeStripeHeader(new Uint8Array(BLOCK_SIZE)), undefined);
  assertEquals(decodeStripeHeader(encodePackedHeader(PACKED)), undefined);
  refused(() => decodeStripeHeader(changed(block, 8, 2)), "unsupported");
  // Unit, capacity, size, start, count with index, names, reserved.
  for (const at of [12, 32, 36, 40, 48, 52, 56, 4030]) {
    for (const value of [0xffffffff, 1]) {
      refused(() => decodeStripeHeader(changed(block, at, value)), "damaged");
    }
  }
  for (let bit = 64; bit < BLOCK_SIZE * 8; bit += bit < 600 ? 1 : 61) {
    block[bit >> 3] ^= 1 << (bit & 7);
    refused(() => decodeStripeHeader(block), "damaged");
    block[bit >> 3] ^= 1 << (bit & 7);
  }
});

test("members have room for the whole volume, and no unit more", () => {
  for (const capacity of [256, 257, 768, 769, 1_000_000, 2 ** 32]) {
    for (const count of [2, 3, 16]) {
      const units = (memberBlocksOf(capacity, count) - 256) / 256;
      assert(units * count * 256 >= capacity && (units - 1) * count * 256 < capacity);
    }
  }
});
