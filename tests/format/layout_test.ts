import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { VolcastError } from "../../src/core/mod.ts";
import {
  defineLayout,
  DIRECTORY_PAGE_LAYOUT,
  END_LAYOUT,
  type Field,
  FRAME_LAYOUT,
  INDEX_END_LAYOUT,
  INODE_LAYOUT,
  type Layout,
  MAP_BLOCK_LAYOUT,
  MAP_ENTRY_LAYOUT,
  PACKED_HEADER_LAYOUT,
  POINTER_LAYOUT,
  ROOT_LAYOUT,
  RUN_LAYOUT,
  SEAL_LAYOUT,
  SEGMENT_HEADER_LAYOUT,
  SEGMENT_TRAILER_LAYOUT,
  SNAPSHOT_LAYOUT,
  STREAM_HEADER_LAYOUT,
  STRIPE_LAYOUT,
  SUPERBLOCK_LAYOUT,
  TAKEOVER_LAYOUT,
} from "../../src/format/mod.ts";
import { LOCAL_SLOT_LAYOUT } from "../../src/volume/mod.ts";
import { test } from "../helpers/strict.ts";

/** Every record there is, with the size it must keep for ever. */
const LAYOUTS: [layout: Layout<readonly Field[]>, size: number][] = [
  [SUPERBLOCK_LAYOUT, 4096],
  [ROOT_LAYOUT, 4096],
  [TAKEOVER_LAYOUT, 16],
  [INODE_LAYOUT, 256],
  [DIRECTORY_PAGE_LAYOUT, 16],
  [SEAL_LAYOUT, 768],
  [SNAPSHOT_LAYOUT, 512],
  [POINTER_LAYOUT, 512],
  [STREAM_HEADER_LAYOUT, 1024],
  [RUN_LAYOUT, 8],
  [INDEX_END_LAYOUT, 8],
  [FRAME_LAYOUT, 16],
  [END_LAYOUT, 64],
  [SEGMENT_HEADER_LAYOUT, 4096],
  [SEGMENT_TRAILER_LAYOUT, 64],
  [LOCAL_SLOT_LAYOUT, 32],
  [PACKED_HEADER_LAYOUT, 4096],
  [MAP_BLOCK_LAYOUT, 32],
  [MAP_ENTRY_LAYOUT, 12],
  [STRIPE_LAYOUT, 4096],
] as unknown as [Layout<readonly Field[]>, number][];

type Value = number | bigint | Uint8Array;

function valueOf([, type, size]: Field): fc.Arbitrary<Value> {
  switch (type) {
    case "u8":
      return fc.integer({ min: 0, max: 0xff });
    case "u16":
      return fc.integer({ min: 0, max: 0xffff });
    case "u32":
      return fc.integer({ min: 0, max: 0xffffffff });
    case "u64":
      return fc.maxSafeNat();
    case "i64":
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    default:
      return fc.uint8Array({ minLength: size, maxLength: size });
  }
}

/** The record's bytes by its table and plain arithmetic. */
function bytesBy(fields: readonly Field[], values: Record<string, Value>): number[] {
  return fields.flatMap(([name, type, size]) => {
    const value = values[name];
    if (type === "zero") return new Array<number>(size).fill(0);
    if (value instanceof Uint8Array) return [...value];
    let rest = BigInt.asUintN(64, BigInt(value));
    return Array.from({ length: size }, () => {
      const byte = Number(rest & 0xffn);
      rest >>= 8n;
      return byte;
    });
  });
}

for (const [layout, size] of LAYOUTS) {
  test(`the ${layout.name} is written and read as its table says`, () => {
    assertEquals(layout.size, size);
    const fields = layout.fields.filter(([, type]) => type !== "zero");
    const records = fc.record(
      Object.fromEntries(fields.map((field) => [field[0], valueOf(field)])),
    );
    fc.assert(
      fc.property(records, fc.integer({ min: 0, max: 9 }), (record, at) => {
        const bytes = new Uint8Array(size + 20).fill(0xaa);
        layout.write(record as never, bytes, at);
        const expected = bytesBy(layout.fields, record as Record<string, Value>);
        assertEquals([...bytes.subarray(at, at + size)], expected);
        assert(bytes.subarray(0, at).every((byte) => byte === 0xaa), "nothing before it");
        assert(bytes.subarray(at + size).every((byte) => byte === 0xaa), "nothing behind it");
        assertEquals(layout.read(bytes, at) as unknown, record);
        // A view into a buffer is read from where it begins.
        assertEquals(layout.read(bytes.subarray(at)) as unknown, record);
      }),
      { numRuns: 40, seed: 11, verbose: 1 },
    );
  });

  test(`the fields of the ${layout.name} follow each other, and its reserved bytes must be 0`, () => {
    let end = 0;
    for (const [field, type, fieldSize] of layout.fields) {
      assertEquals(layout.offsetOf(field), end, field);
      for (let i = 0; i < (type === "zero" ? fieldSize : 0); i += Math.ceil(fieldSize / 50)) {
        const bytes = new Uint8Array(size);
        bytes[end + i] = 1;
        const error = assertThrows(() => layout.read(bytes), VolcastError);
        assertEquals(error.kind, "damaged");
      }
      if (type === "u64") {
        const bytes = new Uint8Array(size);
        bytes[end + 6] = 0x20;
        assertThrows(() => layout.read(bytes), VolcastError, "2^53");
      }
      end += fieldSize;
    }
    assertEquals(end, size);
    assertThrows(() => layout.offsetOf("nothing" as never));
  });
}

test("defineLayout stops at a table that does not add up", () => {
  assertThrows(() => defineLayout("a", 5, [["b", "u32", 4, ""]]), Error, "has 4 bytes, wants 5");
  assertThrows(() => defineLayout("a", 2, [["b", "u32", 2, ""]]), Error, "u32 of 2");
  assertThrows(
    () => defineLayout("a", 2, [["b", "u8", 1, ""], ["b", "u8", 1, ""]]),
    Error,
    "twice",
  );
});

test("a layout reads no record that is cut off", () => {
  const layout = defineLayout("a", 12, [["b", "u32", 4, ""], ["c", "bytes", 8, ""]]);
  assertThrows(() => layout.read(new Uint8Array(11)), RangeError);
  assertThrows(() => layout.read(new Uint8Array(16).subarray(0, 12), 1), RangeError);
});

test("a layout writes no number it could not read", () => {
  const layout = defineLayout("a", 8, [["b", "u64", 8, ""]]);
  for (const b of [2 ** 53, -1.5, NaN]) {
    assertThrows(() => layout.write({ b }, new Uint8Array(8)));
  }
  const bytes = defineLayout("a", 2, [["b", "bytes", 2, ""]]);
  assertThrows(() => bytes.write({ b: new Uint8Array(3) }, new Uint8Array(2)));
  const target = new Uint8Array(2).fill(9);
  bytes.write({ b: new Uint8Array([1]) }, target);
  assertEquals([...target], [1, 0]);
});
