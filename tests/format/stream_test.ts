import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { VolcastError } from "../../src/core/mod.ts";
import {
  checkEnd,
  checkFrame,
  checkIndexEnd,
  checksum,
  decodeStreamHeader,
  decodeTerms,
  encodeEnd,
  encodeIndexEnd,
  encodeStreamHeader,
  encodeTerms,
  END_LAYOUT,
  idOf,
  MAX_TERMS,
  sealFrame,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
  streamLength,
  type StreamTerm,
  TERM_LAYOUT,
  TERM_ROLES,
} from "../../src/format/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { Random } from "../helpers/random.ts";
import { imageOf, replicaOf } from "../helpers/replicas.ts";
import { copyOf } from "../helpers/stores.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const HEADER: StreamHeader = {
  volumeId: "0123456789abcdef0123456789abcdef",
  capacity: 1000,
  dataStart: 67,
  top: { name: "june-5", cp: 9, root: { vbn: 99, crc: 0xfedcba98 }, time: 5n },
  base: { name: "größe", cp: 7, root: { vbn: 98, crc: 1 }, time: -5n },
  blockCount: 20,
  runCount: 3,
  deallocatedCount: 2,
  frameCount: 4,
  byteCount: streamLength({ blocks: 20, runs: 3, deallocated: 2, frames: 4 }),
};

test("streamLength is the sum of the parts", () => {
  assertEquals(streamLength({ blocks: 0, runs: 0, deallocated: 0, frames: 0 }), 1024 + 8 + 64);
  assertEquals(
    streamLength({ blocks: 2, runs: 3, deallocated: 5, frames: 7 }),
    1024 + 8 * 8 + 8 + 7 * 16 + 2 * 4096 + 64,
  );
  assertEquals(
    streamLength({ blocks: 0, runs: 0, deallocated: 0, frames: 0, terms: 3 }),
    1024 + 3 * 288 + 8 + 64,
  );
});

test("a stream header is read as it was written", () => {
  assertEquals(decodeStreamHeader(encodeStreamHeader(HEADER)), HEADER);
  const { base: _, ...full } = HEADER;
  assertEquals(decodeStreamHeader(encodeStreamHeader(full)), full);
  assertEquals(idOf(HEADER.top), "9-fedcba98");
});

const end = fc.record({
  name: fc.string({ unit: "grapheme", maxLength: 20 }),
  cp: fc.integer({ min: 10, max: 2 ** 50 }),
  root: fc.record({ vbn: fc.nat(2 ** 32 - 1), crc: fc.nat(2 ** 32 - 1) }),
  time: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
});

/** Terms that can stand together, and the header that has them. */
const images: fc.Arbitrary<{ header: StreamHeader; terms: StreamTerm[] }> = fc.record({
  top: end,
  base: end,
  others: fc.array(end, { maxLength: 6 }),
  bases: fc.array(end, { maxLength: 6 }),
  kind: fc.constantFrom("full", "alternative", "required", "fragment", "shadow"),
  counts: fc.record({
    blocks: fc.nat(900),
    deallocated: fc.nat(1000),
    runs: fc.nat(900),
    frames: fc.nat(900),
  }),
}).map(({ top, base, others, bases, kind, counts: { blocks, deallocated, ...rest } }) => {
  const unique = (list: typeof others) => [...new Map(list.map((one) => [one.cp, one])).values()];
  const terms: StreamTerm[] = kind === "fragment"
    ? unique(others).map((one) => ({ ...one, role: "named" }))
    : unique(others).filter(({ cp }) => cp < top.cp).map((one) => ({ ...one, role: "top" }));
  if (kind === "alternative" || kind === "required") {
    terms.push(...unique(bases).map((one): StreamTerm => ({ ...one, role: kind })));
  }
  terms.sort((a, b) => TERM_ROLES.indexOf(a.role) - TERM_ROLES.indexOf(b.role) || a.cp - b.cp);
  const counts = {
    blocks,
    deallocated,
    runs: Math.min(rest.runs, blocks),
    frames: Math.min(rest.frames, blocks),
  };
  const header: StreamHeader = {
    volumeId: HEADER.volumeId,
    capacity: 1000,
    dataStart: 67,
    top,
    ...(kind === "full" || kind === "fragment" ? {} : { base }),
    blockCount: counts.blocks,
    runCount: counts.runs,
    deallocatedCount: counts.deallocated,
    frameCount: counts.frames,
    byteCount: streamLength({ ...counts, terms: terms.length }),
    ...(terms.length === 0
      ? {}
      : { terms: { count: terms.length, crc: checksum(encodeTerms(terms)) } }),
    ...(kind === "fragment" ? { fragment: true } : {}),
    ...(kind === "shadow" ? { shadowState: { cp: 12, crc: 0xfedcba98 } } : {}),
  };
  return { header, terms };
});

test("headers and terms of any image are read as they were written", () => {
  let termCount = 0;
  fc.assert(
    fc.property(images, ({ header, terms }) => {
      const bytes = encodeTerms(terms);
      termCount += terms.length;
      assertEquals(bytes.length, terms.length * TERM_LAYOUT.size);
      assertEquals(decodeStreamHeader(encodeStreamHeader(header)), header);
      assertEquals(decodeTerms(bytes, header), terms);
      // Whoever writes them in another order writes the same.
      assertEquals(encodeTerms(terms.toReversed()), bytes);
    }),
    { numRuns: 400, seed: 3 },
  );
  assert(termCount > 500);
});

test("terms with any bit changed, or cut, or more of them, are refused", () => {
  fc.assert(
    fc.property(images, fc.nat(), ({ header, terms }, where) => {
      if (terms.length === 0) return;
      const bytes = encodeTerms(terms);
      const bit = where % (bytes.length * 8);
      bytes[bit >> 3] ^= 1 << (bit & 7);
      const error = assertThrows(() => decodeTerms(bytes, header), VolcastError);
      assertEquals(error.kind, "damaged");
      bytes[bit >> 3] ^= 1 << (bit & 7);
      const cut = bytes.subarray(TERM_LAYOUT.size);
      assertThrows(() => decodeTerms(cut, header), VolcastError, "not as many");
    }),
    { numRuns: 300, seed: 4 },
  );
});

test("terms that contradict each other or the header are refused, every checksum being right", () => {
  const term = (role: StreamTerm["role"], cp: number): StreamTerm => ({
    role,
    cp,
    name: `t${cp}`,
    root: { vbn: 100, crc: 1 },
    time: 0n,
  });
  const { base: _, ...full } = HEADER;
  const refuse = (
    header: StreamHeader,
    terms: StreamTerm[],
    reason: string,
    change = (_: Uint8Array) => {},
  ) => {
    const parts = terms.map((one) => encodeTerms([one]));
    const bytes = new Uint8Array(parts.flatMap((part) => [...part]));
    change(bytes);
    const own = { ...header, terms: { count: terms.length, crc: checksum(bytes) } };
    const error = assertThrows(() => decodeTerms(bytes, own), VolcastError, reason);
    assertEquals(error.kind, "damaged");
  };
  refuse(full, [term("top", 9)], "no older top");
  refuse(full, [term("top", 12)], "no older top");
  refuse(full, [term("top", 5), term("top", 4)], "not in its place");
  refuse(full, [term("top", 5), term("top", 5)], "not in its place");
  refuse(HEADER, [term("alternative", 3), term("top", 4)], "not in its place");
  refuse(full, [term("alternative", 3)], "further bases and has none");
  refuse(full, [term("required", 3)], "further bases and has none");
  refuse(HEADER, [term("alternative", 3), term("required", 4)], "at once");
  refuse(full, [term("named", 3)], "fragment");
  refuse({ ...full, fragment: true }, [term("top", 3)], "fragment");
  refuse({ ...full, fragment: true }, [term("top", 3), term("named", 3)], "fragment");
  for (const role of [0, 5, 255]) {
    refuse(HEADER, [term("top", 3)], `role ${role}`, (bytes) => bytes[0] = role);
  }
  refuse(HEADER, [term("top", 3)], "reserved", (bytes) => bytes[1] = 1);
  refuse(HEADER, [term("top", 3)], "name of 256 bytes", (bytes) => bytes.set([0, 1], 2));
  refuse(HEADER, [term("top", 0)], "CP 0");
  // Too many are refused before anything is allocated for them.
  const terms = { count: MAX_TERMS + 1, crc: 0 };
  const counts = { blocks: 20, runs: 3, deallocated: 2, frames: 4, terms: terms.count };
  const many = { ...HEADER, terms, byteCount: streamLength(counts) };
  assertThrows(() => decodeStreamHeader(encodeStreamHeader(many)), VolcastError, "do not fit");
});

test("a stream header with any bit changed is refused", () => {
  const bytes = encodeStreamHeader(HEADER);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    const error = assertThrows(() => decodeStreamHeader(bytes), VolcastError, undefined, `${bit}`);
    assertEquals(error.kind, "damaged");
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
});

test("a stream of another version, order or with flags is unsupported, not damaged", () => {
  for (const field of ["version", "flags", "order"] as const) {
    const bytes = encodeStreamHeader(HEADER);
    const view = new DataView(bytes.buffer);
    view.setUint32(STREAM_HEADER_LAYOUT.offsetOf(field), 4, true);
    view.setUint32(1020, checksum(bytes.subarray(0, 1020)), true);
    const error = assertThrows(() => decodeStreamHeader(bytes), VolcastError);
    assertEquals(error.kind, "unsupported", field);
  }
});

test("a stream header's counts must fit each other", () => {
  const lies: Partial<StreamHeader>[] = [
    { capacity: 2 ** 32 + 1 },
    { dataStart: 1000 },
    { blockCount: 1001 },
    { runCount: 21 },
    { frameCount: 21 },
    { deallocatedCount: 1001 },
  ];
  for (const lie of lies) {
    const header = { ...HEADER, ...lie };
    const byteCount = streamLength({
      blocks: header.blockCount,
      runs: header.runCount,
      deallocated: header.deallocatedCount,
      frames: header.frameCount,
    });
    const error = assertThrows(
      () => decodeStreamHeader(encodeStreamHeader({ ...header, byteCount })),
      VolcastError,
      "do not fit",
    );
    assertEquals(error.kind, "damaged");
  }
  assertThrows(
    () => decodeStreamHeader(encodeStreamHeader({ ...HEADER, byteCount: HEADER.byteCount + 1 })),
    VolcastError,
    "do not fit",
  );
});

test("a frame with any bit changed, moved, or of another length is refused", () => {
  const random = new Random(1);
  const frame = new Uint8Array(16 + 2 * 4096);
  frame.set(random.bytes(2 * 4096), 16);
  const crc = sealFrame(frame, 500, 2);
  assertEquals(checkFrame(frame, 500, 2), crc);
  assertThrows(() => checkFrame(frame, 501, 2), VolcastError, "VBN 500");
  assertThrows(() => checkFrame(frame, 500, 1), VolcastError, "2 blocks");
  for (let i = 0; i < 16 * 8 + 400; i++) {
    const bit = i < 16 * 8 ? i : random.below(frame.length * 8);
    frame[bit >> 3] ^= 1 << (bit & 7);
    const error = assertThrows(() => checkFrame(frame, 500, 2), VolcastError);
    assertEquals(error.kind, "damaged");
    frame[bit >> 3] ^= 1 << (bit & 7);
  }
  // The same blocks elsewhere have another checksum.
  assert(sealFrame(frame.slice(), 501, 2) !== crc);
});

test("index end and end record are refused when they are not the right ones", () => {
  checkIndexEnd(encodeIndexEnd(5), 5);
  assertThrows(() => checkIndexEnd(encodeIndexEnd(5), 6), VolcastError);
  const digest = new Random(2).bytes(32);
  const end = encodeEnd(4, digest);
  checkEnd(end, 4, digest);
  assertThrows(() => checkEnd(end, 5, digest), VolcastError, "names 4 frames");
  assertThrows(() => checkEnd(end, 4, new Uint8Array(32)), VolcastError);
  for (let bit = 0; bit < end.length * 8; bit++) {
    end[bit >> 3] ^= 1 << (bit & 7);
    assertThrows(() => checkEnd(end, 4, digest), VolcastError);
    end[bit >> 3] ^= 1 << (bit & 7);
  }
  assertEquals([STREAM_HEADER_LAYOUT.size, END_LAYOUT.size], [1024, 64]);
});

test("no single flipped bit of a whole image stream is ever accepted", async () => {
  const history = await History.begin(new MemoryStore(400), new Random(3), { writeBytes: 3000 });
  await history.change(6);
  await history.snapshot();
  const base = await replicaOf(history.volume, "s1");
  await history.change(4);
  await history.snapshot();
  const bytes = await bytesOf(imageOf(history.volume, "s2", "s1"));
  const { frameOffsets, length } = parseImage(bytes);
  // Blocks are covered by their frame's checksum alike; the rest is tried bit by bit.
  const bits: number[] = [];
  for (let bit = 0; bit < frameOffsets[0] * 8; bit++) bits.push(bit);
  for (const offset of frameOffsets) for (let i = 0; i < 16 * 8; i++) bits.push(offset * 8 + i);
  for (let bit = (length - 64) * 8; bit < length * 8; bit++) bits.push(bit);
  for (let at = frameOffsets[0]; at < length - 64; at += 29) bits.push(at * 8 + at % 8);
  const target = Volume.open(copyOf(base.store));
  const { id } = target.current;
  for (const bit of new Set(bits)) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    let error: unknown;
    try {
      await applyImage(target, sourceOf(bytes));
    } catch (caught) {
      error = caught;
    }
    bytes[bit >> 3] ^= 1 << (bit & 7);
    assert(error instanceof VolcastError, `bit ${bit}: ${error}`);
    assertEquals(target.current.id, id);
  }
  await applyImage(target, sourceOf(bytes));
  assertEquals(target.current.id, history.kept[1].id);
  await target.close();
  await base.volume.close();
  await history.close();
});
