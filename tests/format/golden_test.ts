// Golden files of every format version: what was written once must stay readable for ever, and must
// give the same bytes when it is sent on.

import { assert, assertEquals } from "@std/assert";
import { gunzipSync } from "node:zlib";
import { applyImage, joinSegments, Pieces } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type FileSystem, readAll, Volume } from "../../src/volume/mod.ts";
import { pattern, SEGMENT_SIZES } from "../fixtures/make.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { joined, piecesIn, segmentsOf } from "../helpers/pieces.ts";
import { assertSame, imageOf } from "../helpers/replicas.ts";
import { bytesOf, collect, sourceOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const ID = "00112233445566778899aabbccddeeff";

async function golden(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const packed = await Deno.readFile(new URL(`../fixtures/v1/${name}.gz`, import.meta.url));
  return new Uint8Array(gunzipSync(packed));
}

async function goldenStore(): Promise<MemoryStore> {
  const bytes = await golden("volume");
  const store = new MemoryStore(bytes.length / 4096);
  store.write(0, bytes);
  return store;
}

function checkFirst(fs: FileSystem): void {
  const content = (path: string) => readAll(fs, fs.resolve(path));
  assertEquals(new TextDecoder().decode(content("docs/inline.txt")), "inline content\n");
  assertEquals(new TextDecoder().decode(content("symlink")), "inline content\n");
  assertEquals(content("docs/large.bin"), pattern(100_000, 1));
  assertEquals(fs.resolve("hard-link"), fs.resolve("docs/large.bin"));
  assertEquals(fs.stat(fs.resolve("hard-link")).nlink, 2);
  assertEquals(content("attributed"), pattern(5000, 2));
  const attributes = fs.attributes(fs.resolve("attributed"));
  assertEquals(new TextDecoder().decode(attributes.xattrs.get("user.comment")), "hello");
  assertEquals(attributes.securityDescriptor, pattern(40, 3));
  const { dos, mtime, uid, gid, mode } = fs.stat(fs.resolve("attributed"));
  assertEquals([dos, mtime, uid, gid, mode], [
    0x21,
    1_600_000_000_123_456_789n,
    1000,
    100,
    0o100644,
  ]);
  assertEquals(fs.stat(fs.resolve("docs")).mode, 0o040750);
  const sparse = fs.resolve("sparse");
  assertEquals(fs.stat(sparse).size, 40 * 2 ** 20 + 10);
  const end = new Uint8Array(20);
  fs.read(sparse, 40 * 2 ** 20 - 10, end);
  assertEquals(end.subarray(10), pattern(10, 4));
  assertEquals(end.subarray(0, 10), new Uint8Array(10));
  const many = [...fs.list(fs.resolve("many"))].map(({ name }) => name);
  assertEquals(new Set(many), new Set(Array.from({ length: 400 }, (_, i) => `entry-${i}-ümlaut`)));
}

function checkSecond(fs: FileSystem): void {
  const large = pattern(100_000, 1);
  large.set(pattern(9000, 5), 50_000);
  assertEquals(readAll(fs, fs.resolve("hard-link")), large);
  assertEquals(fs.lookup(2, "symlink"), undefined);
  assertEquals(readAll(fs, fs.resolve("added")), pattern(20_000, 6));
}

test("the golden volume of format 1 opens, is clean and has its content", async () => {
  const store = await goldenStore();
  const volume = Volume.open(store);
  assertClean(volume);
  assertEquals([volume.volumeId, volume.role, volume.zone.capacity], [ID, "origin", 512]);
  const [first, second] = volume.snapshots();
  assertEquals([first.name, second.name], ["first", "second"]);
  assertEquals(volume.pointers(), [{ name: "master", snapshot: second.id }]);
  checkFirst(volume.fileSystem(first));
  checkSecond(volume.fileSystem(second));
  const view = volume.view();
  checkSecond(view.fs);
  assertEquals(readAll(view.fs, view.fs.resolve("not in a snapshot")), pattern(300, 7));
  view.release();
  // And it can be written on.
  await volume.exclusive(async (writer) => {
    writer.fs.write(writer.fs.create(2, "new", { type: "file" }), 0, pattern(5000, 8));
    await writer.takeSnapshot("third");
    await writer.deleteSnapshot(first.id);
  });
  assertClean(volume);
  await volume.close();
});

test("the golden images of format 1 apply to a replica, and are made again byte by byte", async () => {
  const store = await goldenStore();
  const volume = Volume.open(store);
  const [full, increment] = [await golden("full.vci"), await golden("increment.vci")];
  assertEquals(parseImage(full).baseCp, 0);
  assert(parseImage(increment).blocks.size > 5);
  assertEquals(await bytesOf(imageOf(volume, "first")), full);
  assertEquals(await bytesOf(imageOf(volume, "second", "first")), increment);

  const replica = {
    store: new MemoryStore(512),
    volume: Volume.incoming(new MemoryStore(512), ID),
  };
  replica.volume = Volume.incoming(replica.store, ID);
  await applyImage(replica.volume, sourceOf(full));
  checkFirst(replica.volume.view().fs);
  await applyImage(replica.volume, sourceOf(increment));
  checkSecond(replica.volume.view("second").fs);
  assertSame({ store, volume }, replica, volume.resolve("second").id);
  assertEquals(describe(replica.volume.view("first").fs).length, 409);
  assertClean(replica.volume);
  assertEquals(await bytesOf(imageOf(replica.volume, "second", "first")), increment);
  await replica.volume.close();
  await volume.close();
});

test("the golden segments of format 1 are read, and are made again byte by byte", async () => {
  const volume = Volume.open(await goldenStore());
  const segments = await golden("full.vct");
  const full = await golden("full.vci");
  assertEquals(joined(await segmentsOf(imageOf(volume, "first"), SEGMENT_SIZES)), segments);
  assertEquals(await collect(ReadableStream.from(joinSegments(streamOf(segments)))), full);
  const pieces = new Pieces(await piecesIn("golden", segments), () => {});
  assert(pieces.pieces.length > 2);
  assertEquals(await collect(await pieces.open(0)), full);
  await volume.close();
});
