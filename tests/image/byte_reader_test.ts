import { assertEquals } from "@std/assert";
import { ByteReader } from "../../src/image/byte_reader.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

const BYTES = new Random(1).bytes(2 ** 20);

/** A stream that lets its reader choose into which memory it reads, some bytes at a time. */
function chosen(): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    type: "bytes",
    pull(controller): void {
      const { view } = controller.byobRequest!;
      const target = new Uint8Array(view!.buffer, view!.byteOffset, view!.byteLength);
      const part = BYTES.subarray(at, at + Math.min(70_000, target.length));
      target.set(part);
      at += part.length;
      if (part.length === 0) controller.close();
      controller.byobRequest!.respond(part.length);
    },
  });
}

test("what ByteReader handed out is not read over, in whatever pieces it is asked for", async () => {
  const reader = new ByteReader(chosen());
  const parts = [await reader.take(5)];
  for (let part = await reader.some(); part !== undefined; part = await reader.some()) {
    parts.push(part);
    if (parts.length === 3) parts.push(await reader.take(100_000));
  }
  assertEquals(await new Response(new Blob(parts as Uint8Array<ArrayBuffer>[])).bytes(), BYTES);
});
