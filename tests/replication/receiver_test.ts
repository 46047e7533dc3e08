/**
 * What a standby takes and refuses, and in which parts.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { Image } from "../../src/image/mod.ts";
import type { PushedName, PushOutcome } from "../../src/replication/mod.ts";
import { MirrorPair } from "../helpers/mirrors.ts";
import { Random } from "../helpers/random.ts";
import { bytesOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { until } from "../helpers/until.ts";

/** A source with a snapshot, and its image as bytes. */
async function imageOf(
  pair: MirrorPair,
  name: string,
  base?: string,
  byteCount = 600_000,
): Promise<{ bytes: Uint8Array; named: PushedName }> {
  await pair.change(["a", "b"], byteCount / 2);
  const { volume } = pair;
  const top = await volume.exclusive((w) => w.takeSnapshot(name));
  const image = new Image(volume, top, base === undefined ? undefined : volume.resolve(base));
  const named = {
    volumeId: volume.volumeId,
    top: top.id,
    ...(image.base === undefined ? {} : { base: image.base.id }),
  };
  return { bytes: await bytesOf(image), named };
}

/** Sends the bytes from `start` up to `end`. */
function put(
  pair: MirrorPair,
  { bytes, named }: { bytes: Uint8Array; named: PushedName },
  start = 0,
  end = bytes.length,
  chunkBytes = 7001,
): Promise<PushOutcome> {
  const stream = streamOf(bytes.subarray(start, end), chunkBytes);
  return pair.standby.receiver!.put(named, { start, stream });
}

test("Receiver takes an image whole, or in parts of any size, in whatever chunks they come", async () => {
  for (const partBytes of [Infinity, 1, 1023, 100_000]) {
    await using pair = await MirrorPair.make();
    const image = await imageOf(pair, "s1");
    let offset = 0;
    // A byte at a time to within the first frame, or this would take all day.
    for (;;) {
      const size = offset < 1500 ? partBytes : Math.max(partBytes, 100_000);
      const outcome = await put(pair, image, offset, Math.min(image.bytes.length, offset + size));
      if (outcome.kind !== "more") {
        assertEquals(outcome.kind, "applied");
        break;
      }
      assert(outcome.offset > offset, `after ${offset} came ${outcome.offset}`);
      offset = outcome.offset;
    }
    assertEquals((await put(pair, image)).kind, "current");
    await pair.assertSame();
  }
});

test("Receiver says where to go on, and takes what overlaps", async () => {
  await using pair = await MirrorPair.make();
  const image = await imageOf(pair, "s1");
  assertEquals(await put(pair, image, 5000), { kind: "more", offset: 0 });
  assertEquals(await put(pair, image, 0, 200_000), { kind: "more", offset: 200_000 });
  assertEquals(pair.standby.receiver!.position().coming, {
    top: image.named.top,
    state: "wants",
    offset: 200_000,
  });
  assertEquals(await put(pair, image, 300_000), { kind: "more", offset: 200_000 });
  // What it has already is passed over.
  assertEquals(await put(pair, image, 0, 400_000), { kind: "more", offset: 400_000 });
  assertEquals(await put(pair, image, 0, 100), { kind: "more", offset: 400_000 });
  assertEquals((await put(pair, image, 399_999)).kind, "applied");
  await pair.assertSame();
});

test("Receiver asks again for a part that was not what was sent, and gives up when it never is", async () => {
  await using pair = await MirrorPair.make();
  const image = await imageOf(pair, "s1");
  const random = new Random(3);
  const spoilt = { ...image, bytes: image.bytes.slice() };
  // In the index: all from the start.
  spoilt.bytes[1030] ^= 1;
  assertEquals(await put(pair, spoilt, 0, 90_000), { kind: "more", offset: 0 });
  spoilt.bytes[1030] ^= 1;
  const at = random.between(100_000, 200_000);
  spoilt.bytes[at] ^= 1;
  // In one chunk: what is kept of it is wrong as well.
  const outcome = await put(pair, spoilt, 0, spoilt.bytes.length, spoilt.bytes.length);
  let { offset } = outcome as { offset: number };
  // The frame that the wrong byte is in.
  assert(offset > 1000 && offset <= at && at - offset < 2 ** 20 + 16, `${offset} for ${at}`);
  assertEquals((await put(pair, image, offset)).kind, "applied");
  await pair.assertSame();

  const next = await imageOf(pair, "s2", "s1");
  next.bytes[next.bytes.length - 300] ^= 1;
  offset = 0;
  const error = await assertRejects(async () => {
    for (let times = 0; times < 9; times++) {
      offset = (await put(pair, next, offset) as { offset: number }).offset;
    }
  }, VolcastError);
  assertEquals(error.kind, "damaged");
  assertEquals(pair.standby.volume.current.name, "s1");
  assertEquals(pair.standby.receiver!.position().failed?.top, next.named.top);
  next.bytes[next.bytes.length - 300] ^= 1;
  assertEquals((await put(pair, next)).kind, "applied");
  assertEquals(pair.standby.receiver!.position().failed, undefined);
  await pair.assertSame();
});

test("Receiver refuses an image that is not what it is called, or has bytes behind its end", async () => {
  await using pair = await MirrorPair.make();
  const image = await imageOf(pair, "s1");
  const other = await imageOf(pair, "s2");
  const wrong = { bytes: image.bytes, named: other.named };
  const error = await assertRejects(() => put(pair, wrong), VolcastError, "it is named full to");
  assertEquals(error.kind, "usage");
  const longer = new Uint8Array(image.bytes.length + 1);
  longer.set(image.bytes);
  const outcomes: string[] = [];
  for (let i = 0; i < 3; i++) {
    outcomes.push(
      await put(pair, { ...image, bytes: longer }).then(({ kind }) => kind, (e) => e.message),
    );
  }
  assert(outcomes.every((outcome) => outcome !== "applied"), outcomes.join());
  assertEquals(pair.standby.volumeIfAny, undefined);
});

test("Receiver takes one image at a time; one that waits for its rest gives way", async () => {
  await using pair = await MirrorPair.make();
  const [first, second] = [await imageOf(pair, "s1"), await imageOf(pair, "s2")];
  let release = () => {};
  const slow = new ReadableStream<Uint8Array>({
    start(controller): void {
      controller.enqueue(first.bytes.slice(0, 100_000));
      release = () => controller.close();
    },
  });
  const receiver = pair.standby.receiver!;
  const begun = receiver.put(first.named, { start: 0, stream: slow });
  await until("it works", () => receiver.position().coming?.state === "works");
  for (const image of [first, second]) {
    const error = await assertRejects(() => put(pair, image), VolcastError, "another one comes in");
    assertEquals(error.kind, "busy");
  }
  release();
  assertEquals((await begun).kind, "more");
  assertEquals((await put(pair, second)).kind, "applied");
  assertEquals(pair.standby.volume.current.name, "s2");
  await pair.assertSame();
});

test("Receiver ends a transfer that nobody goes on with, and keeps what has come", async () => {
  await using pair = await MirrorPair.make();
  pair.standby.receiver!.stop();
  const first = await imageOf(pair, "s1");
  const refused = await assertRejects(() => put(pair, first), VolcastError, "the server ends");
  assertEquals(refused.kind, "busy");
  Object.assign(pair.standbyOptions, { waitMs: 50 });
  pair.startStandby();
  assertEquals((await put(pair, first)).kind, "applied");
  const second = await imageOf(pair, "s2", "s1", 4_000_000);
  const outcome = await put(pair, second, 0, 3_000_000);
  assertEquals(outcome, { kind: "more", offset: 3_000_000 });
  const kept = () => pair.standby.receiver!.position().coming?.state === "kept";
  await until("what has come is kept", kept);
  const { coming, failed } = pair.standby.receiver!.position();
  assertEquals(coming, { top: second.named.top, base: second.named.base!, state: "kept" });
  assert(failed?.message.includes("nothing has come for"), failed?.message);
  // The front goes again; what is kept does not.
  const next = await put(pair, second, 0, 5000);
  assert(next.kind === "more" && (next as { offset: number }).offset > 1_900_000);
  assertEquals((await put(pair, second, (next as { offset: number }).offset)).kind, "applied");
  await pair.assertSame();
});

test("Receiver refuses other volumes, bases and older lines of history, and changes nothing", async () => {
  await using pair = await MirrorPair.make();
  const first = await imageOf(pair, "s1");
  const second = await imageOf(pair, "s2", "s1");
  const nothing = await assertRejects(() => put(pair, second), VolcastError, "no volume yet");
  assertEquals(nothing.kind, "diverged");
  await put(pair, first);
  await put(pair, second);
  const third = await imageOf(pair, "s3", "s1");
  const full = await imageOf(pair, "s4");
  for (
    const [image, text] of [
      [third, "this stands on 's2'"],
      [{ ...full, named: { ...full.named, volumeId: "0".repeat(32) } }, "this is volume"],
      [{ ...full, named: { ...full.named, epoch: 0 } }, "line of history 0, this is in 1"],
    ] as const
  ) {
    const error = await assertRejects(() => put(pair, image), VolcastError, text);
    assertEquals(error.kind, "diverged");
  }
  assertEquals(pair.standby.volume.current.name, "s2");
  // A full image replaces what is there, and readers keep what they read.
  const view = pair.standby.volume.view();
  const old = pair.standby.volume;
  assertEquals((await put(pair, full)).kind, "applied");
  assert(pair.standby.volume !== old);
  view.release();
  await pair.assertSame();
});
