import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { decodeRoot } from "../../src/format/mod.ts";
import { ImageStore, Pieces, piecesOf } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockCache, BlockIo, FileSystem } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { History, scattered } from "../helpers/history.ts";
import { forgeImage, parseImage } from "../helpers/parse_image.ts";
import { type CountingMedium, flipped, joined, mediumOf, segmentsOf } from "../helpers/pieces.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const ignore = () => {};

async function piecesFrom(...media: CountingMedium[]): Promise<Pieces> {
  return new Pieces((await Promise.all(media.map((one) => piecesOf(one, ignore)))).flat(), ignore);
}

function fileSystemOf(store: ImageStore): FileSystem {
  const io = new BlockIo(store, new BlockCache(2 ** 20));
  return new FileSystem(io, decodeRoot(io.read(store.root)));
}

test("the file system of a full image, or of one and its increments, is that of the snapshot", async () => {
  await forSeeds(seeds(40, 6), async (random) => {
    const history = await scattered(random.seed);
    const { volume, kept } = history;
    await history.change(12);
    await history.snapshot();
    const medium = async (top: string, base?: string) => {
      const sizes = { segmentBytes: 20_000 + random.below(200_000), recordBytes: 512 };
      const segments = await segmentsOf(imageOf(volume, top, base), sizes);
      return await piecesFrom(mediumOf(`${top}.seg`, joined(segments)));
    };
    const full = await medium("s1");
    const second = await medium("s2", "s1");
    const third = await medium("s3", "s2");
    const chains: [Pieces[], number][] = [
      [[full], 0],
      [[second, full], 1],
      [[full, third, second], 2],
    ];
    for (const [images, at] of chains) {
      const store = await ImageStore.open(images);
      assertEquals(store.capacity, volume.zone.capacity);
      assertEquals(describe(fileSystemOf(store), { all: true }), kept[at].all);
    }
    await history.close();
  });
});

test("a block that was used again comes from the newest image that has it", async () => {
  await forSeeds(seeds(70, 4), async (random) => {
    const history = await History.begin(new MemoryStore(900), random, { writeBytes: 20_000 });
    const media: Uint8Array[] = [];
    await history.change(25);
    await history.churn(1, 300_000);
    await history.snapshot();
    media.push(await bytesOf(imageOf(history.volume, "s1")));
    for (let top = 2; top <= 6; top++) {
      await history.change(15);
      await history.churn(3, 300_000);
      await history.change(10);
      await history.snapshot();
      media.push(await bytesOf(imageOf(history.volume, `s${top}`, `s${top - 1}`)));
      // From now on the blocks of the one before can be used again.
      await history.deleteSnapshot(history.kept[0]);
    }
    const parsed = media.map((bytes) => parseImage(bytes).blocks);
    const held = parsed.map((blocks) => [...blocks.keys()]);
    const again = held[0].filter((vbn) => held.slice(1).some((other) => other.includes(vbn)));
    assert(again.length > 20, `${again.length} blocks were used again`);
    const images = await Promise.all(media.map((bytes, i) => piecesFrom(mediumOf(`${i}`, bytes))));
    const store = await ImageStore.open(images);
    assertEquals(describe(fileSystemOf(store), { all: true }), history.kept[0].all);
    // Also where neighbours lie in different images.
    const newest = (vbn: number) => held.findLastIndex((one) => one.includes(vbn));
    for (const vbn of held.flat()) {
      if (newest(vbn + 1) < 0) continue;
      const pair = new Uint8Array(2 * 4096);
      store.read(vbn, pair);
      for (const i of [0, 1]) {
        const block = parsed[newest(vbn + i)].get(vbn + i)!;
        assertEquals(pair.slice(i * 4096, (i + 1) * 4096), block);
      }
    }
    await history.close();
  });
});

test("blocks are those of the stream, by themselves and in runs, and others are an error", async () => {
  const history = await scattered(50);
  const image = imageOf(history.volume, "s1");
  const bytes = await bytesOf(image);
  const { blocks } = parseImage(bytes);
  const store = await ImageStore.open([await piecesFrom(mediumOf("plain", bytes))]);
  for (const [vbn, block] of blocks) {
    assertEquals(store.block(vbn), block);
    let count = 1;
    while (blocks.has(vbn + count)) count++;
    const target = new Uint8Array(count * 4096);
    store.read(vbn, target);
    for (let i = 0; i < count; i++) {
      assertEquals(target.slice(i * 4096, (i + 1) * 4096), blocks.get(vbn + i)!);
    }
  }
  const { data, capacity } = history.volume.zone;
  const own = new Uint8Array(data.start * 4096).fill(1);
  store.read(0, own);
  assert(own.every((byte) => byte === 0), "nobody's local zone");
  for (let vbn = data.start; vbn < capacity; vbn += 17) {
    if (blocks.has(vbn)) continue;
    const error = assertThrows(() => store.read(vbn, new Uint8Array(4096)), VolcastError);
    assertEquals([error.kind, error.message], [
      "not-found",
      `Cannot read VBN ${vbn}: the image has no such block`,
    ]);
  }
  assertThrows(() => store.write(), VolcastError, "only read");
  await history.close();
});

test("what only the base has is an error that names the base", async () => {
  const history = await scattered(51);
  const { volume } = history;
  const increment = mediumOf("s2.seg", await bytesOf(imageOf(volume, "s2", "s1")));
  const store = await ImageStore.open([await piecesFrom(increment)]);
  const { id } = volume.resolve("s1");
  const error = assertThrows(() => describe(fileSystemOf(store)), VolcastError);
  assertEquals(error.kind, "not-found");
  assert(
    error.message.includes(`not in the image 's2' since 's1', but in its base 's1' (${id})`),
    error.message,
  );
  assert(error.hint.includes("the image of 's1'"), error.hint);
  await history.close();
});

test("images that do not lead to each other are refused by name", async () => {
  const history = await scattered(52);
  const { volume } = history;
  await history.change(5);
  await history.snapshot();
  const other = await scattered(53);
  const medium = async (name: string, top: string, base?: string, from = volume) =>
    await piecesFrom(mediumOf(name, await bytesOf(imageOf(from, top, base))));
  const full = await medium("full", "s1");
  const second = await medium("second", "s2", "s1");
  const third = await medium("third", "s3", "s2");
  const refuse = async (images: Pieces[], says: RegExp) => {
    const error = await assertRejects(() => ImageStore.open(images), VolcastError);
    assertEquals(error.kind, "diverged");
    assert(says.test(error.message), error.message);
  };
  await refuse([third, full], /Cannot use full: none of the other images leads to or from 's1'/);
  await refuse([full, await medium("again", "s2")], /Cannot use again: none of/);
  await refuse([full, await medium("o", "s1", undefined, other.volume)], /o: it is of volume/);
  await ImageStore.open([third, second]);
  await other.close();
  await history.close();
});

test("a flipped bit is found by the pointer above it, and by the frame it is in", async () => {
  const history = await scattered(54);
  const bytes = await bytesOf(imageOf(history.volume, "s1"));
  const { frameOffsets, blocks } = parseImage(bytes);
  const random = new Random(54);
  const [first] = blocks.keys();
  for (let i = 0; i < 30; i++) {
    const at = frameOffsets[0] + random.below(bytes.length - 64 - frameOffsets[0]);
    const store = await ImageStore.open([
      await piecesFrom(mediumOf("bad", flipped(bytes, at * 8))),
    ]);
    const refused = [...blocks.keys()].filter((vbn) => {
      try {
        store.block(vbn);
        return false;
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "damaged");
        return true;
      }
    });
    assert(refused.length > 0 && refused.length <= 256, `${refused.length} of ${blocks.size}`);
  }
  const store = await ImageStore.open([
    await piecesFrom(mediumOf("bad", flipped(bytes, (frameOffsets[0] + 16 + 100) * 8))),
  ]);
  const io = new BlockIo(store, new BlockCache(0));
  assertThrows(() => io.read({ vbn: first, crc: 1 }), VolcastError, "its checksum is");
  const error = assertThrows(() => describe(fileSystemOf(store)), VolcastError);
  assertEquals(error.kind, "damaged");
  await history.close();
});

test("an index that is damaged is taken from another piece; one that lies is refused", async () => {
  const history = await scattered(55);
  const image = imageOf(history.volume, "s1");
  const bytes = await bytesOf(image);
  const bad = mediumOf("bad", flipped(bytes, 1030 * 8));
  await assertRejects(
    async () => await ImageStore.open([await piecesFrom(bad)]),
    VolcastError,
    "Cannot read the image",
  );
  // A header that promises a frame more than its index makes.
  const { header, blocks, deallocated } = parseImage(bytes);
  const lie = forgeImage(header, blocks, deallocated, {
    change: (view) => {
      for (const [at, more] of [[642, 1n], [650, 16n]] as const) {
        view.setBigUint64(at, view.getBigUint64(at, true) + more, true);
      }
    },
  });
  await assertRejects(
    async () => await ImageStore.open([await piecesFrom(mediumOf("lie", lie.slice(0, -1)))]),
    VolcastError,
    "its index makes",
  );
  const store = await ImageStore.open([await piecesFrom(bad, mediumOf("good", bytes))]);
  assertEquals(describe(fileSystemOf(store), { all: true }), history.kept[0].all);
  await history.close();
});

test("one file of a large image is read without the rest", async () => {
  const history = await History.begin(new MemoryStore(40_000), new Random(56));
  const { volume } = history;
  const small = new Random(1).bytes(50_000);
  await volume.exclusive(({ fs }) => {
    const docs = fs.create(2, "docs", { type: "directory" });
    for (let i = 0; i < 300; i++) {
      const ino = fs.create(docs, `file${i}`, { type: "file" });
      fs.write(ino, 0, i === 150 ? small : new Random(i).bytes(100_000));
    }
  });
  await history.snapshot();
  const image = imageOf(volume, "s1");
  const media = (await segmentsOf(image, { segmentBytes: 5_000_000 }))
    .map((one, i) => mediumOf(`${i}`, one));
  const store = await ImageStore.open([await piecesFrom(...media)]);
  const fs = fileSystemOf(store);
  const content = new Uint8Array(50_000);
  fs.read(fs.resolve("/docs/file150"), 0, content);
  assertEquals(content, small);
  const read = media.reduce((sum, { count }) => sum + count, 0);
  // The headers of the segments, the index, the way to the file, and the file.
  const front = 1024 + 8 * image.header.runCount + 8;
  const limit = 50_000 + 2 * front + media.length * 4096 + 25 * 4096;
  assert(image.byteCount > 30_000_000 && read < limit, `${read} of ${image.byteCount} bytes`);
  await history.close();
});
