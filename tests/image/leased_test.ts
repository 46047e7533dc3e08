import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { applyImage, Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";

Deno.test("applyImage ends a child's download of a snapshot that no list has any more, before it writes over it", async () => {
  const origin = await Volume.create(new MemoryStore(6000));
  const publish = (name: string, file: string, byteCount: number, gone?: string) =>
    origin.exclusive(async (writer) => {
      if (gone !== undefined) writer.fs.remove(INO.root, gone);
      const content = new Uint8Array(byteCount);
      for (let at = 0; at < byteCount; at += 65536) {
        crypto.getRandomValues(content.subarray(at, at + 65536));
      }
      writer.fs.write(writer.fs.create(INO.root, file, { type: "file" }), 0, content);
      return (await writer.takeSnapshot(name, { pointers: ["master"] })).id;
    });
  const step = async (replica: Volume, top: string, base?: string) => {
    const image = new Image(
      origin,
      origin.resolve(top),
      base === undefined ? undefined : origin.resolve(base),
    );
    await applyImage(replica, sourceOf(await bytesOf(image)), { drainMs: 20 });
  };
  const MB = 2 ** 20;
  const a = await publish("A", "a", 6 * MB);
  const replica = Volume.incoming(new MemoryStore(6000), origin.volumeId);
  await step(replica, a);
  const good = await bytesOf(new Image(origin, origin.resolve(a)));
  const slow = new Image(replica, replica.resolve(a)).stream().getReader();
  const got: Uint8Array[] = [(await slow.read()).value!, (await slow.read()).value!];

  const b = await publish("B", "b", MB, "a");
  await step(replica, b, a);
  await origin.exclusive((writer) => writer.deleteSnapshot(a));
  const c = await publish("C", "c", MB);
  await step(replica, c, b);
  assertEquals(replica.find("A"), undefined);
  assertEquals(replica.leases.size, 1, "the child still reads A, whose blocks are all there");
  const d = await publish("D", "d", 15 * MB);
  await step(replica, d, c);
  const error = await assertRejects(async () => {
    for (;;) {
      const { value, done } = await slow.read();
      if (done) return;
      got.push(value);
    }
  }, VolcastError);
  assertEquals(error.kind, "busy");
  let at = 0;
  for (const chunk of got) {
    assert(chunk.every((byte, i) => byte === good[at + i]), "what was given out is right");
    at += chunk.length;
  }
  assertEquals(replica.leases.size, 0);
  await origin.close();
  await replica.close();
});
