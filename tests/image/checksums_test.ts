import { assert, assertEquals, assertThrows } from "@std/assert";
import { difference, VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { Checksums } from "../../src/image/checksums.ts";
import { FrameCursor } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { flipBit } from "../helpers/stores.ts";

Deno.test("Checksums know every block of an image, in windows of any size, and find one turned bit in each", async () => {
  const store = new MemoryStore(6000);
  const volume = await Volume.create(store);
  const write = (name: string, byteCount: number) =>
    volume.exclusive(async (writer) => {
      const content = new Uint8Array(byteCount);
      for (let at = 0; at < byteCount; at += 65536) {
        crypto.getRandomValues(content.subarray(at, at + 65536));
      }
      writer.fs.write(writer.fs.create(INO.root, name, { type: "file" }), 0, content);
      return await writer.takeSnapshot(name);
    });
  const base = await write("base", 3 * 2 ** 20);
  const top = await write("top", 4 * 2 ** 20);
  const plane = difference(volume.plane(top), volume.plane(base));
  for (const windowBlocks of [256, 1024, undefined]) {
    const image = { name: crypto.randomUUID(), roots: [top.root], excluded: volume.plane(base) };
    const checksums = new Checksums(volume.io, image, windowBlocks);
    const windows = new Set<number>();
    for (const frames = new FrameCursor(plane); frames.current !== undefined; frames.advance()) {
      const { start, count } = frames.current;
      windows.add(Math.floor(start / (windowBlocks ?? 2 ** 22)));
      for (const _ of checksums.prepare(start));
      const blocks = new Uint8Array(count * 4096);
      store.read(start, blocks);
      checksums.check(start, blocks);
      flipBit(store, start + count - 1, 77);
      store.read(start, blocks);
      const error = assertThrows(() => checksums.check(start, blocks), VolcastError);
      assertEquals(error.kind, "damaged");
      assert(error.message.includes(`VBN ${start + count - 1}`), error.message);
      flipBit(store, start + count - 1, 77);
    }
    assert(windows.size > 3 || windowBlocks !== 256, `${windows.size} windows`);
  }
  await volume.close();
});
