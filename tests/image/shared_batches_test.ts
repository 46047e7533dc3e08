// Several streams of one image share what the first one read.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { FaultStore } from "../helpers/stores.ts";
import { bytesOf, collect } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const LARGE_BYTES = 12 * 2 ** 20;

/** A volume with a large file, whose store counts what is read. */
async function origin(): Promise<{ store: MemoryStore; counting: FaultStore; volume: Volume }> {
  const store = new MemoryStore(6000);
  const history = await History.begin(store, new Random(1));
  await history.volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "large", { type: "file" });
    writer.fs.write(ino, 0, new Random(5).bytes(LARGE_BYTES));
    await writer.takeSnapshot("s1");
  });
  history.volume.abandon();
  const counting = new FaultStore(store);
  return { store, counting, volume: Volume.open(counting) };
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

/** Reads so many bytes at least. */
async function take(reader: Reader, byteCount: number): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for (let count = 0; count < byteCount;) {
    const { value } = await reader.read();
    if (value === undefined) break;
    chunks.push(value);
    count += value.length;
  }
  return chunks;
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

test("streams that go side by side read once, and give the same bytes", async () => {
  const { counting, volume } = await origin();
  const expected = await bytesOf(imageOf(volume, "s1"));
  // Once more for each, when nobody goes beside: a stream alone keeps nothing.
  const before = counting.counts.read;
  const alone = imageOf(volume, "s1");
  assertEquals(await bytesOf(alone), expected);
  const once = counting.counts.read - before;
  await bytesOf(alone);
  assert(counting.counts.read - before > 1.5 * once, "a stream alone reads for itself");

  const image = imageOf(volume, "s1");
  const readers = Array.from({ length: 5 }, () => image.stream().getReader());
  const got: Uint8Array[][] = readers.map(() => []);
  const begin = counting.counts.read;
  for (let i = 0; i * 2 ** 20 < 2 * expected.length; i++) {
    for (const [n, reader] of readers.entries()) got[n].push(...await take(reader, 2 ** 20));
  }
  assert(counting.counts.read - begin < 1.5 * once, `${counting.counts.read - begin} reads`);
  for (const chunks of got) assertEquals(joined(chunks), expected);
  assertEquals(volume.leases.size, 0);
  volume.abandon();
});

test("streams that begin, end and go on anywhere give their own bytes", async () => {
  const { volume } = await origin();
  const image = imageOf(volume, "s1");
  const expected = await bytesOf(imageOf(volume, "s1"));
  const random = new Random(3);
  const slow = image.stream().getReader();
  const chunks = await take(slow, 1);
  for (let i = 0; i < 12; i++) {
    const from = random.below(expected.length + 1);
    const to = Math.min(expected.length, from + random.pick([1, 5000, 3_000_000]));
    const [part, rest] = await Promise.all([
      collect(image.stream({ from, to })),
      collect(image.stream({ from })),
    ]);
    assertEquals(part, expected.subarray(from, to));
    assertEquals(rest, expected.subarray(from));
    chunks.push(...await take(slow, 400_000));
  }
  chunks.push(...await take(slow, Infinity));
  assertEquals(joined(chunks), expected);
  volume.abandon();
});

test("a block that is not what its pointer says reaches none of several streams", async () => {
  const { store, volume } = await origin();
  const expected = await bytesOf(imageOf(volume, "s1"));
  const fs = volume.fileSystem(volume.resolve("s1"));
  const { vbn } = fs.open(fs.resolve("/large")).tree.pointerAt(0, 1500);
  store.blocks.get(vbn)![77] ^= 1;
  const image = imageOf(volume, "s1");
  const streams = [1, 2, 3].map(async () => {
    const chunks: Uint8Array[] = [];
    const error = await assertRejects(async () => {
      for await (const chunk of image.stream()) chunks.push(chunk);
    }, VolcastError);
    assertEquals(error.kind, "damaged");
    const came = joined(chunks);
    assert(came.length > 2 ** 20, `${came.length}`);
    assertEquals(came, expected.subarray(0, came.length));
  });
  await Promise.all(streams);
  assertEquals(volume.leases.size, 0);
  volume.abandon();
});
