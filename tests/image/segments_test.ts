import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  checkSegmentTrailer,
  checksum,
  decodeSegmentHeader,
  gapOf,
  SEGMENT_HEADER_LAYOUT,
} from "../../src/format/mod.ts";
import { joinSegments, type SegmentSizes } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { cpuMs } from "../helpers/cpu_time.ts";
import { History, scattered } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { flipped, joined, segmentsOf } from "../helpers/pieces.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf, collect, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const join = (bytes: Uint8Array) => collect(ReadableStream.from(joinSegments(streamOf(bytes))));

test("random segments one behind the other are the stream, byte for byte, and each says what it holds", async () => {
  await forSeeds(seeds(1, 12), async (random) => {
    await withHistory(random.seed, async ({ volume }) => {
      const image = random.oneIn(2) ? imageOf(volume, "s1") : imageOf(volume, "s2", "s1");
      const bytes = await bytesOf(image);
      const { frameOffsets, blocks } = parseImage(bytes);
      const recordBytes = random.pick([512, 1024, 4096, 10_240, 65_536]);
      const segmentBytes = Math.max(3 * recordBytes, 10_000) +
        random.below(random.pick([20_000, 4e6]));
      const media = await segmentsOf(image, { segmentBytes, recordBytes });
      assertEquals(await join(joined(media)), bytes);

      let offset = 0;
      const vbns: number[] = [];
      for (const [i, medium] of media.entries()) {
        assert(medium.length <= segmentBytes && medium.length % recordBytes === 0);
        const segment = decodeSegmentHeader(medium);
        assertEquals([segment.number, segment.count], [i + 1, media.length]);
        assertEquals(segment.offset, offset);
        assertEquals(
          medium.subarray(4096, 4096 + segment.payloadBytes),
          bytes.subarray(offset, offset + segment.payloadBytes),
        );
        const behind = 4096 + segment.payloadBytes;
        assert(medium.subarray(behind, behind + gapOf(segment)).every((byte) => byte === 0));
        checkSegmentTrailer(medium.slice(-64), segment);
        // By the frames: which blocks begin in it.
        const end = offset + segment.payloadBytes;
        const inside = beginsOf(frameOffsets, [...blocks.keys()], bytes)
          .filter(({ at }) => at >= offset && at < end).map(({ vbn }) => vbn);
        assertEquals(segment.blockCount, inside.length);
        assertEquals(
          segment.vbns,
          inside.length === 0 ? undefined : { first: inside[0], last: inside.at(-1)! },
        );
        vbns.push(...inside);
        // A cut lies at a frame's beginning wherever there is one to cut at.
        const room = Math.floor(segmentBytes / recordBytes) * recordBytes - 4160;
        const isCut = end < bytes.length && !frameOffsets.includes(end);
        if (isCut) assert(!frameOffsets.some((at) => at > offset && at <= offset + room));
        offset = end;
      }
      assertEquals(vbns, [...blocks.keys()]);
    });
  });
});

async function withHistory(
  seed: number,
  work: (history: History) => Promise<void>,
): Promise<void> {
  const history = await scattered(seed);
  await work(history);
  await history.close();
}

/** Byte of the stream at which each block begins. */
function beginsOf(
  frameOffsets: readonly number[],
  vbns: readonly number[],
  bytes: Uint8Array,
): { vbn: number; at: number }[] {
  const view = new DataView(bytes.buffer);
  let i = 0;
  return frameOffsets.slice(0, -1).flatMap((offset) => {
    const count = view.getUint32(offset + 8, true);
    return Array.from(
      { length: count },
      (_, j) => ({ vbn: vbns[i++], at: offset + 16 + j * 4096 }),
    );
  });
}

test("segments are cut before the blocks that are named", async () => {
  await withHistory(3, async ({ volume }) => {
    const image = imageOf(volume, "s1");
    const { blocks } = parseImage(await bytesOf(image));
    const vbns = [...blocks.keys()];
    const middle = vbns[Math.floor(vbns.length / 2)];
    const split = [1, middle, 69_999];
    const media = await segmentsOf(image, { splitVbns: split });
    assertEquals(media.length, 4);
    assertEquals(await join(joined(media)), await bytesOf(image));
    const held = media.map((medium) => decodeSegmentHeader(medium).vbns);
    assertEquals(held[0], undefined, "nothing lies before block 1");
    assert(held[1]!.last < middle && held[2]!.last >= middle);
    assert(held[2]!.first > middle - 256, "a frame stays whole");
    for (const lie of [[middle, middle], [500, 100], [1, 2]]) {
      const error = await assertRejects(() => segmentsOf(image, { splitVbns: lie }), VolcastError);
      assertEquals(error.kind, "usage");
    }
  });
});

test("segments are the same whenever they are made, and one can be made alone", async () => {
  await withHistory(4, async ({ volume }) => {
    const sizes: SegmentSizes = { segmentBytes: 100_000, recordBytes: 512 };
    const first = await segmentsOf(imageOf(volume, "s2"), sizes);
    assertEquals(await segmentsOf(imageOf(volume, "s2"), sizes), first);
    assert(first.length > 5);
    const whole = await segmentsOf(imageOf(volume, "s2"), {});
    assertEquals(whole.length, 1);
    assertEquals(decodeSegmentHeader(whole[0]).recordBytes, 65_536);
  });
});

test("sizes that cannot be are refused with what can", async () => {
  await withHistory(5, async ({ volume }) => {
    const image = imageOf(volume, "s1");
    const refuse = async (sizes: SegmentSizes, says: string) => {
      const error = await assertRejects(() => segmentsOf(image, sizes), VolcastError, says);
      assertEquals(error.kind, "usage");
    };
    await refuse({ recordBytes: 500 }, "512 to 16777216");
    await refuse({ recordBytes: 2 ** 25 }, "512 to 16777216");
    await refuse({ segmentBytes: 8255, recordBytes: 512 }, "the least is 8704");
    await refuse({ segmentBytes: 65_535 }, "the least is 65536");
    await refuse({ segmentBytes: 0 }, "the least");
    await segmentsOf(image, { segmentBytes: 8704, recordBytes: 512 });
    const large = await History.begin(new MemoryStore(400_000), new Random(1));
    await large.volume.exclusive(({ fs }) => {
      const ino = fs.create(2, "large", { type: "file" });
      const chunk = new Random(2).bytes(2 ** 20);
      for (let i = 0; i < 260; i++) fs.write(ino, i * 2 ** 20, chunk);
    });
    await large.snapshot();
    const error = await assertRejects(
      () => segmentsOf(imageOf(large.volume, "s1"), { segmentBytes: 8704, recordBytes: 512 }),
      VolcastError,
    );
    assert(/about \d+, the limit is 100000/.test(error.message), error.message);
    await large.close();
  });
});

test("segments from a pipe: order, strangers, cuts and flipped bits are refused with the segment's number", async () => {
  await withHistory(6, async ({ volume }) => {
    const media = await segmentsOf(imageOf(volume, "s2"), {
      segmentBytes: 60_000,
      recordBytes: 1024,
    });
    const others = await segmentsOf(imageOf(volume, "s1"), {
      segmentBytes: 60_000,
      recordBytes: 1024,
    });
    assert(media.length > 4 && others.length > 4);
    const refuse = async (parts: readonly Uint8Array[], says: RegExp) => {
      const error = await assertRejects(() => join(joined(parts)), VolcastError);
      assertEquals(error.kind, "damaged");
      assert(says.test(error.message), error.message);
    };
    const [a, b, c] = media;
    await refuse([b, c], /segment 2 of \d+ comes where 1 was to come/);
    await refuse([a, c], /segment 3 of \d+ comes where 2 was to come/);
    await refuse([a, a], /segment 1 of \d+ comes where 2 was to come/);
    await refuse([a, others[1]], /behind segment 1 of \d+ of 's2' comes one of 's1'/);
    await refuse([a], /they end behind segment 1 of/);
    await refuse(media.slice(0, -1), /they end behind segment \d+ of/);
    await refuse([a, b.subarray(0, 3000)], /they end behind segment 1 of/);
    await refuse([a.subarray(0, 30_000)], /they end in segment 1 of \d+, at byte 0/);
    await refuse([a, b.subarray(0, -1)], /they end in segment 2 of \d+, at the trailer/);
    await refuse([a.subarray(0, 20)], /they end in the header of the first/);
    await refuse([...media, new Uint8Array([0, 0, 7])], /bytes follow the last/);
    assertEquals(
      await join(joined([...media, new Uint8Array(5000)])),
      await bytesOf(imageOf(volume, "s2")),
    );
    const { payloadBytes } = decodeSegmentHeader(b);
    await refuse([a, flipped(b, (4096 + 777) * 8)], /segment 2 of \d+: the digest/);
    assert(gapOf(decodeSegmentHeader(b)) > 0);
    await refuse([a, flipped(b, (4096 + payloadBytes) * 8)], /segment 2 of \d+: its gap/);
    await refuse([a, flipped(b, (b.length - 30) * 8)], /the trailer of segment 2/);
    await refuse([a, flipped(b, 50 * 8)], /the segment's header/);
  });
});

test("no bit of a segment's header, gap or trailer can be flipped unseen, and none makes it hang", async () => {
  await withHistory(7, async ({ volume }) => {
    const [medium] = await segmentsOf(imageOf(volume, "s2", "s1"), { recordBytes: 512 });
    const { payloadBytes } = decodeSegmentHeader(medium);
    const bits: number[] = [];
    for (let byte = 0; byte < 1200; byte++) bits.push(byte * 8 + byte % 8);
    for (let byte = 4096 + payloadBytes; byte < medium.length; byte++) {
      bits.push(byte * 8 + byte % 8);
    }
    const random = new Random(7);
    for (let i = 0; i < 100; i++) bits.push(random.below(medium.length * 8));
    for (const bit of bits) {
      await assertRejects(() => join(flipped(medium, bit)), VolcastError, "", `bit ${bit}`);
    }
  });
});

test("a header sealed by a liar costs no memory and no time", async () => {
  await withHistory(8, async ({ volume }) => {
    const [medium] = await segmentsOf(imageOf(volume, "s1"), { recordBytes: 512 });
    const view = new DataView(medium.buffer);
    // A stream's header that promises 16 TiB, sealed; and a segment that has all of it.
    const stream = SEGMENT_HEADER_LAYOUT.offsetOf("stream");
    const u64 = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
    u64(stream + 40, 2 ** 32);
    const counts = [2 ** 32 - 100, 2 ** 31, 0, 2 ** 31];
    counts.forEach((count, i) => u64(stream + 618 + i * 8, count));
    const byteCount = 1024 + 2 ** 31 * 8 + 8 + 2 ** 31 * 16 + (2 ** 32 - 100) * 4096 + 64;
    u64(stream + 650, byteCount);
    view.setUint32(stream + 1020, checksum(medium.subarray(stream, stream + 1020)), true);
    u64(SEGMENT_HEADER_LAYOUT.offsetOf("payloadBytes"), byteCount);
    const gap = (512 - (byteCount + 4160) % 512) % 512;
    view.setUint32(SEGMENT_HEADER_LAYOUT.offsetOf("gapBytes"), gap, true);
    view.setUint32(4092, checksum(medium.subarray(0, 4092)), true);
    assertEquals(decodeSegmentHeader(medium).payloadBytes, byteCount);
    const begin = cpuMs();
    const error = await assertRejects(
      () => join(medium),
      VolcastError,
      "they end in segment 1 of 1",
    );
    assertEquals(error.kind, "damaged");
    assert(cpuMs() - begin < 2000);
  });
});
