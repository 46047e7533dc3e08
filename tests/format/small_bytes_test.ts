import { assert, assertEquals } from "@std/assert";
import { copyOf, smallBytes } from "../../src/format/small_bytes.ts";
import { test } from "../helpers/strict.ts";

test("smallBytes() hands out zeros that are nobody else's", () => {
  const parts = Array.from({ length: 2000 }, (_, i) => smallBytes(i % 600));
  for (const [i, part] of parts.entries()) {
    assertEquals(part.length, i % 600);
    assert(part.every((byte) => byte === 0), "nobody wrote there before");
    part.fill(1 + i % 255);
  }
  for (const [i, part] of parts.entries()) {
    assert(part.every((byte) => byte === 1 + i % 255), "nobody wrote there since");
  }
});

test("copyOf() copies a part, and changes with neither", () => {
  const source = new Uint8Array(5000).map((_, i) => i);
  for (const length of [0, 1, 128, 513, 4000]) {
    const copy = copyOf(source, 700, length);
    assertEquals(copy, source.slice(700, 700 + length));
    copy.fill(9);
  }
  assertEquals(source[700], 700 % 256);
});
