import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  applyImage,
  type Piece,
  type PieceBytes,
  Pieces,
  piecesOf,
  type SegmentSizes,
} from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { type History, scattered } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { flipped, joined, mediumOf, piecesIn, segmentsOf } from "../helpers/pieces.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { assertSame, imageOf, replicaOf } from "../helpers/replicas.ts";
import { bytesOf, collect } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const ignore = () => {};

/** Random pieces of a stream that cover all of it, some of it several times, in random order. */
async function randomPieces(
  random: Random,
  bytes: Uint8Array,
  cut: (sizes: SegmentSizes) => Promise<Uint8Array[]>,
): Promise<Piece[]> {
  const pieces: Piece[] = [];
  const add = async (name: string, medium: Uint8Array) => {
    pieces.push(...await piecesOf(mediumOf(name, medium, { waits: random.oneIn(3) }), ignore));
  };
  // One cut into segments that is there as a whole, in one file or in many.
  const all = await cut(sizesOf(random));
  if (random.oneIn(3)) await add("all", joined(all));
  else for (const [i, segment] of all.entries()) await add(`a${i}`, segment);
  // Some segments of another cut; some of them cut off.
  for (const [i, segment] of (await cut(sizesOf(random))).entries()) {
    if (random.oneIn(2)) continue;
    const end = random.oneIn(3) ? random.between(4097, segment.length) : segment.length;
    await add(`b${i}`, segment.subarray(0, end));
  }
  // A file that is cut off.
  if (random.oneIn(2)) await add("plain", bytes.subarray(0, random.between(1024, bytes.length)));
  return shuffled(random, pieces);
}

function sizesOf(random: Random): SegmentSizes {
  const recordBytes = random.pick([512, 4096]);
  return { segmentBytes: 13_000 + random.below(random.pick([20_000, 300_000])), recordBytes };
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const left = [...items];
  return Array.from(items, () => left.splice(random.below(left.length), 1)[0]);
}

test("any mix of pieces that has every byte is the image, from any byte on", async () => {
  await forSeeds(seeds(20, 15), async (random) => {
    const history = await scattered(random.seed);
    const image = random.oneIn(2)
      ? imageOf(history.volume, "s1")
      : imageOf(history.volume, "s2", "s1");
    const bytes = await bytesOf(image);
    const pieces = new Pieces(
      await randomPieces(random, bytes, (sizes) => segmentsOf(image, sizes)),
      (text) => {
        throw new Error(text);
      },
    );
    assertEquals(pieces.missing(), []);
    pieces.checkComplete();
    for (const from of [0, bytes.length - 1, bytes.length, random.below(bytes.length)]) {
      assertEquals(await collect(await pieces.open(from)), bytes.slice(from));
    }
    await history.close();
  });
});

/** The image s1 in five or more segments, and what it is made of. */
async function withSegments(
  seed: number,
  work: (parts: {
    history: History;
    bytes: Uint8Array<ArrayBuffer>;
    segments: Uint8Array<ArrayBuffer>[];
  }) => Promise<void>,
): Promise<void> {
  const history = await scattered(seed);
  const image = imageOf(history.volume, "s1");
  const segments = await segmentsOf(image, { segmentBytes: 60_000, recordBytes: 512 });
  assert(segments.length >= 5);
  await work({ history, bytes: await bytesOf(image), segments });
  await history.close();
}

/** Applies pieces to a new volume, and compares it with where they came from. */
async function restore(history: History, pieces: Pieces): Promise<void> {
  const store = new MemoryStore(history.volume.zone.capacity);
  const volume = Volume.incoming(store, history.volume.volumeId);
  try {
    await applyImage(volume, pieces);
    assertSame(history, { volume, store }, history.kept[0].id);
  } finally {
    await volume.close();
  }
}

test("what is missing is named by bytes and by segments", async () => {
  await withSegments(1, async ({ segments, bytes }) => {
    const pieces = (await Promise.all(segments.map((one, i) => piecesIn(`s${i + 1}`, one)))).flat();
    const refuse = (kept: Piece[], says: string) => {
      const error = assertThrows(
        () => new Pieces(kept, ignore).checkComplete(),
        VolcastError,
        says,
      );
      assertEquals(error.kind, "damaged");
    };
    const count = pieces.length;
    const second = `bytes ${pieces[1].start}-${pieces[1].end - 1} of ${bytes.length} are in none`;
    refuse(
      pieces.filter((_, i) => i !== 1),
      `${second} of the pieces (segment 2 of ${count} is not there)`,
    );
    refuse(
      pieces.filter((_, i) => i !== 1 && i !== 3),
      `-${
        pieces[3].end - 1
      } of ${bytes.length} are in none of the pieces (segment 2, 4 of ${count} are`,
    );
    refuse([pieces[1]], `0-${pieces[1].start - 1}, ${pieces[1].end}-${bytes.length - 1}`);
    const [plain] = await piecesOf(mediumOf("plain", bytes.subarray(0, 5000)), ignore);
    refuse([plain], `bytes 5000-${bytes.length - 1} of ${bytes.length} are in none of the pieces`);
    refuse([plain, ...pieces.slice(1)], `bytes 5000-${pieces[1].start - 1} of`);
    // It is told, too, when somebody reads there all the same.
    const part = new Pieces(pieces.slice(1), ignore);
    const error = await assertRejects(async () => await collect(await part.open(0)), VolcastError);
    assert(error.message.includes("segment 1 of"), error.message);
    assertThrows(() => part.readAt(10, new Uint8Array(5)), VolcastError, "segment 1 of");
  });
});

test("pieces of another image or another volume are refused by name", async () => {
  await withSegments(2, async ({ history, segments }) => {
    const own = await piecesIn("own", segments[0]);
    const [increment] = await segmentsOf(imageOf(history.volume, "s2", "s1"), {});
    const foreign = await piecesIn("foreign", increment);
    let error = assertThrows(() => new Pieces([...own, ...foreign], ignore), VolcastError);
    assertEquals(error.kind, "diverged");
    assertEquals(
      error.message,
      "Cannot use foreign: it is of the image 's2' since 's1', own is of 's1'",
    );
    const other = await scattered(99);
    const stranger = await piecesIn(
      "stranger",
      (await segmentsOf(imageOf(other.volume, "s1"), {}))[0],
    );
    error = assertThrows(() => new Pieces([...own, ...stranger], ignore), VolcastError);
    assert(error.message.includes(`'s1' of volume ${other.volume.volumeId}`), error.message);
    await other.close();
  });
});

test("what is no piece, or damaged where it begins, is refused by name; what is cut off is told", async () => {
  await withSegments(3, async ({ segments, bytes }) => {
    const refuse = async (content: Uint8Array, says: string) => {
      const error = await assertRejects(
        () => piecesOf(mediumOf("it", content), ignore),
        VolcastError,
        says,
      );
      assert(error.message.startsWith("it: "), error.message);
    };
    await refuse(new Uint8Array(5000), "does not begin as an image stream does");
    await refuse(new Uint8Array(0), "it ends before its header does");
    await refuse(bytes.subarray(0, 1023), "it ends before its header does");
    await refuse(flipped(bytes, 300), "checksum does not match");
    await refuse(segments[0].subarray(0, 4000), "4000 of 4096");
    await refuse(flipped(segments[0], 300), "checksum does not match");
    const notes: string[] = [];
    const note = (text: string) => notes.push(text);
    await piecesOf(mediumOf("cut", segments[1].subarray(0, 9000)), note);
    await piecesOf(mediumOf("short", bytes.subarray(0, 9000)), note);
    const several = joined([segments[0], flipped(segments[1], 300), segments[2]]);
    assertEquals((await piecesOf(mediumOf("several", several), note)).length, 1);
    assertEquals(notes.length, 3);
    assertEquals(notes[0], `cut is cut off within segment 2 of ${segments.length}`);
    assertEquals(notes[1], `short is cut off: it has 9000 of the image's ${bytes.length} bytes`);
    assert(notes[2].startsWith(`several, byte ${segments[0].length}: `), notes[2]);
    // What fills up the last record is nothing.
    const filled = joined([segments[0], new Uint8Array(9000)]);
    assertEquals((await piecesIn("filled", filled)).length, 1);
  });
});

test("damaged bytes are taken from another piece that has them, wherever they are, and told", async () => {
  await withSegments(4, async ({ history, segments, bytes }) => {
    const { frameOffsets } = parseImage(bytes);
    const random = new Random(4);
    const places = [
      ...[1040, frameOffsets[0] - 3, frameOffsets[0] + 5, frameOffsets[1] + 100, bytes.length - 5],
      ...Array.from({ length: 12 }, () => 1024 + random.below(bytes.length - 1024)),
    ];
    for (const at of places) {
      const damagedFile = flipped(bytes, at * 8 + 3);
      const orders: [string, Uint8Array][][] = [
        [["bad", damagedFile], ...segments.map((one, i): [string, Uint8Array] => [`s${i}`, one])],
        [["bad", damagedFile], ["good", bytes]],
        [["good", bytes], ["bad", damagedFile]],
      ];
      for (const media of orders) {
        const notes: string[] = [];
        const pieces = (await Promise.all(media.map(([name, one]) => piecesIn(name, one)))).flat();
        await restore(history, new Pieces(pieces, (text) => notes.push(text)));
        const isFirst = media[0][0] === "bad";
        if (isFirst) assert(notes.some((text) => text.startsWith("bad: ")), `${at}: ${notes}`);
        assert(notes.length <= 3, `${at}: ${notes}`);
      }
    }
  });
});

test("two pieces damaged in different places make one image; in one place they are refused", async () => {
  await withSegments(5, async ({ history, segments, bytes }) => {
    const { frameOffsets } = parseImage(bytes);
    const middle = frameOffsets[Math.floor(frameOffsets.length / 2)] + 200;
    const early = frameOffsets[0] + 200;
    const medium = async (name: string, content: Uint8Array) => (await piecesIn(name, content))[0];
    const a = await medium("a", flipped(bytes, early * 8));
    const b = await medium("b", flipped(bytes, middle * 8));
    await restore(history, new Pieces([a, b], ignore));
    const c = await medium("c", flipped(bytes, (early + 1000) * 8));
    for (const pieces of [[a, c], [a]]) {
      const error = await assertRejects(
        () => restore(history, new Pieces(pieces, ignore)),
        VolcastError,
        "checksum of the frame",
      );
      assertEquals(error.kind, "damaged");
    }
    // A frame that lies in two pieces, one of them damaged, both there twice.
    const inSecond = (await Promise.all(segments.map((one, i) => piecesIn(`s${i}`, one)))).flat();
    await restore(history, new Pieces([...inSecond, a], ignore));
  });
});

test("a piece that fails while it is read is told of, and another one goes on", async () => {
  await withSegments(6, async ({ history, segments, bytes }) => {
    const far = (content: Uint8Array) =>
      piecesOf(mediumOf("far", content, { waits: true }), ignore);
    const good = (await Promise.all(segments.map(far))).flat();
    for (const end of [0, 1, 5000, 100_000]) {
      for (const how of ["fails", "ends"] as const) {
        const [bad] = await piecesIn("bad", bytes);
        const notes: string[] = [];
        const pieces = new Pieces(
          [{ ...bad, bytes: failing(bytes, end, how) }, ...good],
          (text) => notes.push(text),
        );
        await restore(history, pieces);
        assertEquals(notes, [
          `bad: cannot be read at byte ${end} of the image: ${
            how === "fails" ? "the disk is gone" : "it ended early"
          }`,
        ]);
      }
    }
    const [alone] = await piecesIn("bad", bytes);
    const error = await assertRejects(
      () =>
        restore(history, new Pieces([{ ...alone, bytes: failing(bytes, 9000, "fails") }], ignore)),
      VolcastError,
    );
    assertEquals(
      error.message,
      `Cannot read the image: byte 9000 of ${bytes.length} can be read from none of the pieces`,
    );
  });
});

/** A medium of which nothing can be read from a byte on. */
function failing(content: Uint8Array, end: number, how: "fails" | "ends"): PieceBytes {
  const under = mediumOf("bad", content);
  return {
    name: "bad",
    byteCount: content.length,
    stream: (from, to) =>
      ReadableStream.from((async function* () {
        yield* under.stream(from, Math.max(from, Math.min(to, end)));
        if (to > end && how === "fails") throw new Error("the disk is gone");
      })()),
  };
}

test("readAt takes another piece where one cannot be read, and says where none can wait", async () => {
  await withSegments(7, async ({ bytes }) => {
    const [good] = await piecesIn("good", bytes);
    const [waits] = await piecesOf(mediumOf("far", bytes, { waits: true }), ignore);
    const broken: Piece = {
      ...good,
      name: "broken",
      bytes: {
        ...good.bytes,
        read: () => {
          throw new Error("no");
        },
      },
    };
    const notes: string[] = [];
    const target = new Uint8Array(30_000);
    new Pieces([broken, waits, good], (text) => notes.push(text)).readAt(70, target);
    assertEquals(target, bytes.slice(70, 30_070));
    assertEquals(notes, ["broken: cannot be read at byte 70 of the image: no"]);
    const error = assertThrows(() => new Pieces([waits], ignore).readAt(0, target), VolcastError);
    assertEquals(error.kind, "usage");
    assert(error.message.includes("from far"), error.message);
  });
});

test("an increment in pieces leads a replica on, and goes on where it was cut", async () => {
  await withSegments(8, async ({ history }) => {
    const image = imageOf(history.volume, "s2", "s1");
    const bytes = await bytesOf(image);
    const segments = await segmentsOf(image, { segmentBytes: 40_000, recordBytes: 512 });
    const replica = await replicaOf(history.volume, "s1");
    const pieces = (await Promise.all(segments.map((one, i) => piecesIn(`s${i}`, one)))).flat();
    const last = pieces.length - 1;
    const broken = { ...pieces[last], bytes: failing(new Uint8Array(), 0, "fails") };
    await assertRejects(
      () => applyImage(replica.volume, new Pieces([...pieces.slice(0, last), broken], ignore)),
      VolcastError,
      "can be read from none",
    );
    const { bytes: read } = await applyImage(replica.volume, new Pieces(pieces.reverse(), ignore));
    assert(read < bytes.length / 2, `${read} of ${bytes.length} bytes were read again`);
    assertSame(history, replica, history.kept[1].id);
    await replica.volume.close();
  });
});
