import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  checkEnd,
  checkFrame,
  checkIndexEnd,
  checksum,
  decodeStreamHeader,
  encodeEnd,
  encodeIndexEnd,
  encodeStreamHeader,
  END_LAYOUT,
  idOf,
  sealFrame,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
  streamLength,
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
});

test("a stream header is read as it was written", () => {
  assertEquals(decodeStreamHeader(encodeStreamHeader(HEADER)), HEADER);
  const { base: _, ...full } = HEADER;
  assertEquals(decodeStreamHeader(encodeStreamHeader(full)), full);
  assertEquals(idOf(HEADER.top), "9-fedcba98");
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
    view.setUint32(STREAM_HEADER_LAYOUT.offsetOf(field), 7, true);
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
