import { assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  checkSegmentTrailer,
  checksum,
  type DecodedSegment,
  decodeSegmentHeader,
  decodeStreamHeader,
  encodeSegmentHeader,
  encodeSegmentTrailer,
  encodeStreamHeader,
  gapOf,
  isRecordSize,
  isSegment,
  type Segment,
  SEGMENT_HEADER_LAYOUT,
  segmentLength,
  type StreamHeader,
  streamLength,
} from "../../src/format/mod.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

const HEADER: StreamHeader = {
  volumeId: "0123456789abcdef0123456789abcdef",
  capacity: 1000,
  dataStart: 67,
  top: { name: "june-5", cp: 9, root: { vbn: 99, crc: 0xfedcba98 }, time: 5n },
  blockCount: 20,
  runCount: 3,
  deallocatedCount: 0,
  frameCount: 4,
  byteCount: streamLength({ blocks: 20, runs: 3, deallocated: 0, frames: 4 }),
};

/** The second of three. */
const SEGMENT: Segment = {
  number: 2,
  count: 3,
  offset: 30_000,
  payloadBytes: 40_000,
  recordBytes: 1024,
  vbns: { first: 103, last: 119 },
  blockCount: 10,
  streamBytes: encodeStreamHeader(HEADER),
};

test("a segment's header is read as it was written, with or without blocks", () => {
  const expected = { ...SEGMENT, stream: decodeStreamHeader(SEGMENT.streamBytes) };
  assertEquals(decodeSegmentHeader(encodeSegmentHeader(SEGMENT)), expected as DecodedSegment);
  const { vbns: _, ...empty } = { ...SEGMENT, blockCount: 0 };
  assertEquals(decodeSegmentHeader(encodeSegmentHeader(empty)).vbns, undefined);
  assertEquals(isSegment(SEGMENT.streamBytes), false);
});

test("a segment is whole records, and its gap shorter than one", () => {
  for (const recordBytes of [512, 4096, 65_536, 10_240]) {
    for (const payloadBytes of [1, 100, 4096 - 64, 32_768 - 4160, 65_536, 1_000_003]) {
      const segment = { ...SEGMENT, recordBytes, payloadBytes };
      const gap = gapOf(segment);
      assertEquals(segmentLength(segment) % recordBytes, 0);
      assertEquals(segmentLength(segment), 4096 + payloadBytes + gap + 64);
      assertEquals(gap >= 0 && gap < recordBytes, true);
    }
  }
  assertEquals(gapOf({ ...SEGMENT, recordBytes: 512, payloadBytes: 512 * 9 - 64 }), 0);
});

test("record sizes are whole sectors within bounds", () => {
  assertEquals([512, 1024, 65_536, 2 ** 24].map(isRecordSize), [true, true, true, true]);
  assertEquals([0, 256, 513, 2 ** 24 + 512, -512].map(isRecordSize), Array(5).fill(false));
});

test("a segment's header or trailer with any bit changed is refused", () => {
  const bytes = encodeSegmentHeader(SEGMENT);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    const error = assertThrows(() => decodeSegmentHeader(bytes), VolcastError, "", `${bit}`);
    assertEquals(error.kind, "damaged");
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
  const digest = new Random(1).bytes(32);
  const trailer = encodeSegmentTrailer(SEGMENT, digest);
  checkSegmentTrailer(trailer, SEGMENT, digest);
  for (let bit = 0; bit < trailer.length * 8; bit++) {
    trailer[bit >> 3] ^= 1 << (bit & 7);
    assertThrows(() => checkSegmentTrailer(trailer, SEGMENT), VolcastError, "", `${bit}`);
    trailer[bit >> 3] ^= 1 << (bit & 7);
  }
});

test("a trailer belongs to one segment and one content", () => {
  const trailer = encodeSegmentTrailer(SEGMENT, new Uint8Array(32));
  const refuse = (segment: Segment, says: string, digest?: Uint8Array) =>
    assertThrows(() => checkSegmentTrailer(trailer, segment, digest), VolcastError, says);
  refuse({ ...SEGMENT, number: 3 }, "trailer is that of segment 2");
  refuse({ ...SEGMENT, payloadBytes: 40_001 }, "with 40000 bytes");
  refuse(SEGMENT, "digest of its bytes", new Uint8Array(32).fill(1));
  checkSegmentTrailer(trailer, SEGMENT);
});

test("a segment of another version or with flags is unsupported, not damaged", () => {
  for (const field of ["version", "flags"] as const) {
    const bytes = encodeSegmentHeader(SEGMENT);
    const view = new DataView(bytes.buffer);
    view.setUint32(SEGMENT_HEADER_LAYOUT.offsetOf(field), 7, true);
    view.setUint32(4092, checksum(bytes.subarray(0, 4092)), true);
    const error = assertThrows(() => decodeSegmentHeader(bytes), VolcastError);
    assertEquals(error.kind, "unsupported", field);
  }
});

test("a segment's numbers must fit each other, whatever its checksum says", () => {
  const total = HEADER.byteCount;
  const lies: Partial<Segment>[] = [
    { number: 0 },
    { number: 4 },
    { count: 1 },
    { number: 1 },
    { number: 3 },
    { offset: 0 },
    { offset: total },
    { offset: total - 40_000 },
    { offset: 2 ** 53 - 50_000 },
    { payloadBytes: 0 },
    { payloadBytes: total - 30_000 },
    { payloadBytes: total },
    { payloadBytes: 2 ** 52 },
    { recordBytes: 256 },
    { recordBytes: 1025 },
    { recordBytes: 2 ** 25 },
    { blockCount: 11 },
    { blockCount: 21 },
    { blockCount: 18 },
    { vbns: { first: 66, last: 119 } },
    { vbns: { first: 103, last: 1000 } },
    { vbns: { first: 119, last: 103 } },
  ];
  for (const lie of lies) {
    const segment = { ...SEGMENT, ...lie };
    const bytes = encodeSegmentHeader(segment);
    const error = assertThrows(
      () => decodeSegmentHeader(bytes),
      VolcastError,
      "do not fit",
      JSON.stringify(lie),
    );
    assertEquals(error.kind, "damaged");
  }
  const bytes = encodeSegmentHeader(SEGMENT);
  const view = new DataView(bytes.buffer);
  view.setUint32(SEGMENT_HEADER_LAYOUT.offsetOf("gapBytes"), 5, true);
  view.setUint32(4092, checksum(bytes.subarray(0, 4092)), true);
  assertThrows(() => decodeSegmentHeader(bytes), VolcastError, "a gap of 5");
});

test("a header that is cut off says how much of it is there", () => {
  const bytes = encodeSegmentHeader(SEGMENT);
  assertThrows(() => decodeSegmentHeader(bytes.subarray(0, 100)), VolcastError, "100 of 4096");
  assertThrows(() => decodeSegmentHeader(bytes.subarray(0, 5)), VolcastError, "does not begin");
});
