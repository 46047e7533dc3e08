// Packed files and stripes of every format version: what was written once must stay readable for ever.

import { assert, assertEquals } from "@std/assert";
import { gunzipSync } from "node:zlib";
import { type BlockStore, MemoryStore, PackedStore, StripedStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { assertClean } from "../helpers/history.ts";
import { test } from "../helpers/strict.ts";

async function golden(name: string): Promise<MemoryStore> {
  const packed = await Deno.readFile(new URL(`../fixtures/v1/${name}.gz`, import.meta.url));
  const bytes = new Uint8Array(gunzipSync(packed));
  const store = new MemoryStore(bytes.length / 4096);
  store.write(0, bytes);
  return store;
}

async function assertIsGoldenVolume(store: BlockStore): Promise<void> {
  const plain = await golden("volume");
  const bytes = (from: BlockStore) => {
    const all = new Uint8Array(plain.capacity * 4096);
    from.read(0, all);
    return all;
  };
  assertEquals(store.capacity, plain.capacity);
  const [expected, found] = [bytes(plain), bytes(store)];
  assert(expected.every((byte, i) => byte === found[i]));
  const volume = Volume.open(store);
  assertClean(volume);
  // And it can be written on.
  await volume.exclusive(async (writer) => {
    writer.fs.write(writer.fs.create(2, "new", { type: "file" }), 0, new Uint8Array(9000).fill(1));
    await writer.takeSnapshot("third");
  });
  assertClean(volume);
  await volume.close();
}

test("the golden packed file of format 1 opens and has the golden volume in it", async () => {
  const file = await golden("packed");
  const wider = new MemoryStore(file.capacity + 100);
  for (const [vbn, block] of file.blocks) wider.blocks.set(vbn, block);
  const store = PackedStore.open(wider, file.capacity);
  assert(store.liveBlocks < file.capacity - 200, "it has blocks that came and went");
  await assertIsGoldenVolume(store);
});

test("the golden stripe of format 1 opens and has the golden volume on it", async () => {
  const names = ["stripe.a", "stripe.b"];
  const members = [await golden(names[0]), await golden(names[1])];
  await assertIsGoldenVolume(StripedStore.open(members, names));
});
