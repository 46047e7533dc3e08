/**
 * Micro-benchmarks of what decides the speed of everything else: planes, directories, the allocator, the
 * image stream. Run: deno task bench:micro
 *
 * @module
 */

import { popcount } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { applyImage, Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { choose, passOver, planesOfTebibyte } from "./planes.ts";

const planes = planesOfTebibyte({ every: 100 });

Deno.bench("planes of 1 TiB: memory pass over both", { group: "planes", baseline: true }, () => {
  if (passOver(planes) === 1) throw new Error("consumed");
});

Deno.bench("planes of 1 TiB: choose an increment", { group: "planes" }, () => {
  if (choose(planes) !== planes.blocks) throw new Error("not what differs was chosen");
});

Deno.bench("planes of 1 TiB: popcount", { group: "planes" }, () => {
  if (popcount(planes.base) === 0) throw new Error("nothing was counted");
});

const names = Array.from({ length: 100_000 }, (_, i) => `file ${(i * 7919) % 100_000}`);
const volume = await Volume.create(new MemoryStore(2 ** 18), { dirtyBytes: 2 ** 30 });
const directory = await volume.exclusive((writer) => {
  const ino = writer.fs.create(INO.root, "big", { type: "directory" });
  for (const name of names) writer.fs.create(ino, name, { type: "file" });
  return ino;
});
await volume.checkpoint();

Deno.bench("directory of 100,000: 1,000 look-ups", { group: "directory" }, () => {
  const { fs, release } = volume.view("active");
  for (let i = 0; i < 1000; i++) {
    if (fs.lookup(directory, names[i * 97]) === undefined) throw new Error(names[i * 97]);
  }
  release();
});

Deno.bench("directory of 100,000: list", { group: "directory" }, () => {
  let count = 0;
  const { fs, release } = volume.view("active");
  for (const _ of fs.list(directory)) count++;
  release();
  if (count !== names.length) throw new Error(`${count} entries`);
});

Deno.bench("allocator: 64 MiB in runs, written, and freed", { group: "allocator" }, async () => {
  await volume.exclusive((writer) => {
    const ino = writer.fs.create(INO.root, "content", { type: "file" });
    const content = new Uint8Array(2 ** 20);
    for (let i = 0; i < 64; i++) {
      content.fill(i + 1);
      writer.fs.write(ino, i * content.length, content);
    }
    writer.fs.remove(INO.root, "content");
  });
});

const source = await Volume.create(new MemoryStore(2 ** 16));
await source.exclusive(async (writer) => {
  const ino = writer.fs.create(INO.root, "content", { type: "file" });
  for (let i = 0; i < 128; i++) {
    writer.fs.write(ino, i * 2 ** 20, new Uint8Array(2 ** 20).fill(i + 1));
  }
  await writer.takeSnapshot("whole", { pointers: ["master"] });
});

Deno.bench("image of 128 MiB: produce", { group: "image" }, async () => {
  const image = new Image(source, source.resolve("whole"));
  let bytes = 0;
  for await (const chunk of image.stream()) bytes += chunk.length;
  if (bytes !== image.byteCount) throw new Error(`${bytes} bytes`);
});

Deno.bench("image of 128 MiB: produce, apply, verify, flip", { group: "image" }, async () => {
  const image = new Image(source, source.resolve("whole"));
  const target = Volume.incoming(new MemoryStore(2 ** 16), source.volumeId);
  await applyImage(target, {
    open: (from) => Promise.resolve(image.stream({ from })),
    retry: () => Promise.resolve(false),
  });
  if (target.current.id !== image.top.id) throw new Error("not applied");
});
