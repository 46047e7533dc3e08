// Images made and applied while everybody goes on reading and writing.

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { assertSame, imageOf, replicaOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

/** A stream that does something between any two chunks. */
function interleaved(
  stream: ReadableStream<Uint8Array>,
  between: () => Promise<void>,
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  return new ReadableStream({
    async pull(controller) {
      await between();
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** An origin with two snapshots, the second one of several chunks. */
async function begun(random: Random): Promise<History> {
  const history = await History.begin(new MemoryStore(4000), random, {
    writeBytes: 40_000,
    volume: { cacheBytes: 0 },
  });
  await history.change(20);
  await history.snapshot();
  await history.change(20);
  await history.churn(1, 3_000_000);
  await history.snapshot();
  return history;
}

test("an image is the same bytes while the origin writes and takes snapshots", async () => {
  await forSeeds(seeds(1, 3), async (random) => {
    const history = await begun(random);
    const expected = await bytesOf(imageOf(history.volume, "s2", "s1"));
    const stream = interleaved(imageOf(history.volume, "s2", "s1").stream(), async () => {
      await history.change(5);
      await history.churn(1, 100_000);
      await history.snapshot();
    });
    const parts: number[] = [];
    let at = 0;
    for await (const part of stream) {
      assertEquals(part, expected.subarray(at, at + part.length));
      at += part.length;
      parts.push(part.length);
    }
    assertEquals(at, expected.length);
    assert(parts.length >= 4, `${parts.length} chunks`);
    history.check();
    await history.close();
  });
});

test("an image whose snapshots are deleted meanwhile is right, or ends with an error", async () => {
  let [whole, cut] = [0, 0];
  await forSeeds(seeds(10, 6), async (random) => {
    const history = await begun(random);
    const expected = await bytesOf(imageOf(history.volume, "s2", "s1"));
    let chunks = 0;
    // Either a little is written meanwhile, or all the room there is.
    const isCrowded = random.seed % 2 === 0;
    const stream = interleaved(imageOf(history.volume, "s2", "s1").stream(), async () => {
      if (++chunks === 2) {
        while (history.kept.length > 0) await history.deleteSnapshot(history.kept[0]);
      }
      if (chunks >= 2) await history.churn(isCrowded ? 4 : 1, isCrowded ? 4_000_000 : 100_000);
    });
    let at = 0;
    try {
      for await (const part of stream) {
        assertEquals(part, expected.subarray(at, at + part.length));
        at += part.length;
      }
      assertEquals(at, expected.length);
      whole++;
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "busy", String(error));
      cut++;
    }
    assertEquals(history.volume.leases.size, 0);
    history.check();
    await history.close();
  });
  assert(whole > 0 && cut > 0, `${whole} whole, ${cut} cut`);
});

test("a replica serves its base to readers and children while the top comes in", async () => {
  await forSeeds(seeds(20, 3), async (random) => {
    const history = await begun(random);
    const replica = await replicaOf(history.volume, "s1");
    const { current } = replica.volume;
    const full = await bytesOf(imageOf(replica.volume, "s1"));
    const view = replica.volume.view();
    const lines = describe(view.fs, { all: true });
    const increment = await bytesOf(imageOf(history.volume, "s2", "s1"));
    let rounds = 0;
    await applyImage(replica.volume, {
      open: (offset) =>
        Promise.resolve(
          interleaved(streamOf(increment.subarray(offset), 400_000), async () => {
            rounds++;
            assertEquals(replica.volume.current, current);
            assertEquals(describe(view.fs, { all: true }), lines);
            assertEquals(await bytesOf(imageOf(replica.volume, "s1")), full);
            assertClean(replica.volume);
          }),
        ),
      retry: () => Promise.resolve(false),
    });
    assert(rounds > 5);
    // The reader who began before the flip still reads what it began with.
    assertEquals(describe(view.fs, { all: true }), lines);
    view.release();
    assertSame(history, replica, history.kept[1].id);
    assertSame(history, replica, history.kept[0].id);
    assertEquals(await bytesOf(imageOf(replica.volume, "s1")), full);
    assertEquals(await bytesOf(imageOf(replica.volume, "s2", "s1")), increment);
    await replica.volume.close();
    await history.close();
  });
});

test("a chain of replicas follows an origin that never stops", async () => {
  await forSeeds(seeds(30, 2), async (random) => {
    const history = await begun(random);
    const chain = [await replicaOf(history.volume, "s2")];
    for (let i = 0; i < 2; i++) chain.push(await replicaOf(chain[i].volume, "s2"));
    for (let round = 0; round < 5; round++) {
      await history.change(10);
      const kept = await history.snapshot();
      if (kept === undefined) break;
      // All hops at once: each hands on what it has while it takes what is new.
      for (const [i, replica] of chain.entries()) {
        const parent = i === 0 ? history.volume : chain[i - 1].volume;
        const source = imageOf(parent, kept.id, replica.volume.current.id);
        await applyImage(replica.volume, {
          open: (offset) =>
            Promise.resolve(interleaved(source.stream({ from: offset }), async () => {
              await history.change(2);
            })),
          retry: () => Promise.resolve(false),
        });
        assertSame(history, replica, kept.id);
      }
      const oldest = history.kept[0];
      if (history.kept.length > 3) await history.deleteSnapshot(oldest);
    }
    for (const replica of chain) {
      assertClean(replica.volume);
      await replica.volume.close();
    }
    await history.checkpoint();
    history.check();
    await history.close();
  });
});

test("nobody ever sees a new root with the snapshots of the old one", async () => {
  const history = await begun(new Random(40));
  const replica = await replicaOf(history.volume, "s1");
  const [first, second] = history.kept.map(({ id }) => id);
  const increment = await bytesOf(imageOf(history.volume, "s2", "s1"));
  const check = (volume: Volume, id: string) => {
    assertEquals(volume.root.cp, volume.superblock.cp);
    assert(volume.find(id) !== undefined, `${id} is gone at ${volume.current.id}`);
    assert(volume.pointers().every(({ snapshot }) => volume.find(snapshot) !== undefined));
  };
  // As often as anything at all can come in between.
  const watch = async (work: Promise<unknown>, look: () => void) => {
    let isDone = false;
    const done = work.finally(() => isDone = true);
    let looks = 0;
    while (!isDone && looks++ < 1_000_000) {
      look();
      await null;
    }
    await done;
    assert(looks > 5, `${looks} looks`);
  };
  await watch(
    applyImage(replica.volume, sourceOf(increment)),
    () => check(replica.volume, first),
  );
  assertEquals(replica.volume.current.id, second);
  await watch(history.snapshot({ pointers: ["master"] }), () => check(history.volume, second));
  await watch(
    history.deleteSnapshot(history.kept[0]),
    () => check(history.volume, second),
  );
  await replica.volume.close();
  await history.close();
});
