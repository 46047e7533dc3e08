import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { BitPlane, difference, type Plane, sum, VolcastError } from "../../src/core/mod.ts";
import {
  ByteReader,
  countChange,
  countPages,
  CutError,
  framesOfPage,
  framesOfRun,
  planDelete,
  planExpression,
} from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { History } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { bitsOf, imageOf, reachedFrom, replicaWith } from "../helpers/replicas.ts";
import { bytesOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

test("frames cover each run, cross no multiple of 256 and are counted right", async () => {
  await forSeeds(seeds(1, 30), (random) => {
    const plane = new BitPlane(3);
    for (let i = random.between(1, 20); i > 0; i--) {
      const start = random.pick([random.below(98_000), 256 * random.below(380), 32_768]);
      plane.setRun(start, random.pick([1, 2, 255, 256, 257, 300]));
    }
    const { pages, totals } = countPages(plane);
    let [blocks, frames, runs, longRuns] = [0, 0, 0, 0];
    let end = -1;
    for (const index of plane.pages()) {
      const list = framesOfPage(plane, index);
      for (const { start, count } of list) {
        assert(count >= 1 && start % 256 + count <= 256);
        for (let i = 0; i < count; i++) assert(plane.has(start + i));
        blocks += count;
        frames++;
        if (start !== end || start % 32_768 === 0) runs++;
        if (start !== end) longRuns++;
        end = start + count;
      }
      const page = pages.find((counted) => counted.index === index);
      assertEquals(page?.frames ?? 0, list.length);
    }
    assertEquals(totals, { blocks, frames, runs, longRuns, end });
    assertEquals(pages.reduce((sum, page) => sum + page.blocks, 0), blocks);
  });
});

test("countChange counts both differences of two planes as countPages counts each", async () => {
  const PAGES = 4;
  await forSeeds(seeds(1, 40), (random) => {
    const top = new BitPlane(PAGES);
    for (let i = random.below(12); i > 0; i--) {
      const start = random.pick([random.below(131_000), 32_768 * random.below(4), 32_768 * 2 - 3]);
      top.setRun(start, random.pick([1, 2, 31, 64, 256, 300, 70_000 % (131_072 - start)]) || 1);
    }
    // Mostly equal, as snapshots are; or with pages that only one of them has.
    const base = !random.oneIn(5) ? BitPlane.copyOf(top) : new BitPlane(PAGES);
    for (let i = random.below(20); i > 0; i--) {
      const start = random.below(130_000);
      for (let vbn = start + random.pick([1, 40, 700]); vbn >= start; vbn--) {
        if (!random.oneIn(10)) base.clear(vbn);
        else base.set(vbn);
      }
    }
    for (const [a, b] of [[top, base], [base, top], [top, top], [sum(top, base), base]]) {
      assertEquals(countChange(a, b), {
        allocated: countPages(difference(a, b)),
        deallocated: countPages(difference(b, a)),
      });
    }
  });
  assertThrows(() => countChange(new BitPlane(1), new BitPlane(2)));
});

test("countChange reads only pages in which one of two planes knows that they differ", () => {
  const read: number[] = [];
  const base = BitPlane.ofRuns(5, [{ start: 0, count: 5 * 32_768 }]);
  const plane: Plane = {
    pageCount: 5,
    pages: () => base.pages(),
    page(index) {
      read.push(index);
      return new Uint32Array(1024).fill(index === 3 ? 0xffff0000 : 0xffffffff);
    },
    differing: (other) => other === base ? [3] : undefined,
  };
  for (const [top, bottom] of [[plane, base], [base, plane]]) {
    const { allocated, deallocated } = countChange(top, bottom);
    const gone = top === plane ? deallocated : allocated;
    assertEquals(gone.pages, [{ index: 3, blocks: 16_384, runs: 1024, frames: 1024 }]);
    assertEquals(gone.totals.longRuns, 1024);
    assertEquals((top === plane ? allocated : deallocated).totals.end, -1);
  }
  assertEquals(read, [3, 3]);
});

test("framesOfRun counts as cutting does", () => {
  for (let start = 0; start < 600; start += 7) {
    for (let count = 1; count < 600; count += 5) {
      let frames = 0;
      for (let at = start; at < start + count; at += 256 - at % 256) frames++;
      assertEquals(framesOfRun(start, count), frames);
    }
  }
});

test("planExpression says exactly what will be sent", async () => {
  await forSeeds(seeds(1, 4), async (random) => {
    const history = await History.begin(new MemoryStore(3000), random);
    const { volume } = history;
    for (let i = 0; i < 4; i++) {
      await history.change(20);
      await history.snapshot(i === 2 ? { pointers: ["master"] } : {});
    }
    for (const [top, base] of [["s4", "s1"], ["s1", "s4"], ["s3", "s3"], ["active", "master"]]) {
      const plan = planExpression(volume, `${top} - ${base}`);
      const image = imageOf(volume, top, base);
      assertEquals(plan.bytes, image.byteCount);
      assertEquals(plan.bytes, (await bytesOf(image)).length);
      assertEquals(plan.blocks, parseImage(await bytesOf(image)).blocks.size);
      assertEquals(plan.blockBytes, plan.blocks * 4096);
    }
    assertEquals(planExpression(volume, "s2").bytes, imageOf(volume, "s2").byteCount);
    const sets = ["s1", "s2", "s3", "s4"].map((name) => bitsOf(volume, volume.resolve(name)));
    const [a, b, c, d] = sets;
    const wanted: [string, Set<number>][] = [
      ["s1 + s2 - s3", a.union(b).difference(c)],
      ["s4 & s1", d.intersection(a)],
      ["s4 - (s1 + s2 + s3)", d.difference(a.union(b).union(c))],
      ["(s1 & s2) + (s3 & s4)", a.intersection(b).union(c.intersection(d))],
    ];
    for (const [text, set] of wanted) {
      const plan = planExpression(volume, text);
      assertEquals(plan.blocks, set.size, text);
      let runs = 0;
      for (const vbn of set) if (!set.has(vbn - 1)) runs++;
      assertEquals(plan.runs, runs, text);
    }
    const missing = assertThrows(() => planExpression(volume, "s1 - s9"), VolcastError);
    assertEquals(missing.kind, "not-found");
    assertEquals(assertThrows(() => planExpression(volume, "s1 -"), VolcastError).kind, "usage");
    await history.close();
  });
});

test("an image of a snapshot with itself is empty and valid", async () => {
  const history = await History.begin(new MemoryStore(500), new Random(1));
  await history.change(5);
  await history.snapshot();
  const parsed = parseImage(await bytesOf(imageOf(history.volume, "s1", "s1")));
  assertEquals([parsed.blocks.size, parsed.deallocated.length, parsed.length], [0, 0, 1096]);
  await history.close();
});

test("Image.stream gives its leases back at the end, on cancel and on an error", async () => {
  const history = await History.begin(new MemoryStore(4000), new Random(2));
  await history.change(12);
  await history.snapshot();
  await history.churn(1, 3_000_000);
  await history.snapshot();
  const { volume } = history;
  const image = imageOf(volume, "s2", "s1");
  let ended = 0;
  const onEnd = () => ended++;
  await bytesOf(image);
  assertEquals(volume.leases.size, 0);

  const cancelled = image.stream({ onEnd });
  assertEquals(volume.leases.size, 2);
  const reader = cancelled.getReader();
  await reader.read();
  await reader.cancel();
  assertEquals([volume.leases.size, ended], [0, 1]);

  const untouched = image.stream({ onEnd });
  await untouched.cancel();
  assertEquals([volume.leases.size, ended], [0, 2]);

  // Who had to go gets an error, not the end of the stream.
  const cut = image.stream({ onEnd }).getReader();
  await cut.read();
  volume.leases.endAll();
  const error = await assertRejects(async () => {
    for (;;) if ((await cut.read()).done) return;
  }, VolcastError);
  assertEquals([error.kind, ended], ["busy", 3]);

  const empty = image.stream({ from: 5, to: 5, onEnd }).getReader();
  assertEquals((await empty.read()).done, true);
  assertEquals([volume.leases.size, ended], [0, 4]);
  assertThrows(() => image.stream({ from: 6, to: 5 }));
  assertThrows(() => image.stream({ to: image.byteCount + 1 }));
  await history.close();
});

test("Image.stream works only when it is pulled", async () => {
  const history = await History.begin(new MemoryStore(2500), new Random(3));
  await history.churn(1, 3_000_000);
  await history.snapshot();
  const image = imageOf(history.volume, "s1");
  assert(image.byteCount > 1_500_000, `${image.byteCount} bytes`);
  const { store } = history.volume.io;
  let reads = 0;
  const read = store.read.bind(store);
  store.read = (vbn, target) => {
    reads++;
    read(vbn, target);
  };
  const reader = image.stream().getReader();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(reads, 0);
  await reader.read();
  await reader.read();
  const some = reads;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(reads, some);
  while (!(await reader.read()).done);
  assert(reads > some);
  store.read = read;
  await history.close();
});

test("ByteReader takes exact numbers of bytes from chunks of any size", async () => {
  const bytes = new Random(1).bytes(1000);
  for (const chunk of [1, 3, 64, 1000, 5000]) {
    const reader = new ByteReader(streamOf(bytes, chunk));
    let at = 0;
    for (const count of [0, 1, 10, 500, 0, 489]) {
      assertEquals(await reader.take(count), bytes.slice(at, at + count));
      at += count;
    }
    assertEquals(await reader.atEnd(), true);
    await assertRejects(() => reader.take(1), CutError);
    await reader.cancel();
  }
  const more = new ByteReader(streamOf(bytes));
  await more.take(999);
  assertEquals(await more.atEnd(), false);
  assertEquals(await more.take(1), bytes.slice(999));
  const broken = new ByteReader(
    new ReadableStream({ pull: (controller) => controller.error(new Error("reset")) }),
  );
  const error = await assertRejects(() => broken.take(1), CutError);
  assertEquals((error.cause as Error).message, "reset");
  await broken.cancel();
});

test("planDelete counts what brute force finds, and what then is free", async () => {
  let planned = 0;
  await forSeeds(seeds(700, 12), async (random) => {
    const history = await History.begin(new MemoryStore(3000), random);
    const { volume } = history;
    for (let i = 0; i < 7; i++) {
      await history.change(random.between(1, 20));
      await history.snapshot();
    }
    // Something written since the last snapshot, and blocks that only the active file system frees.
    await history.change(10);
    await history.checkpoint();
    const [first, ...rest] = history.kept;
    const gone = [first, ...rest.filter(() => random.oneIn(2))];
    const kept = rest.filter((one) => !gone.includes(one));
    const sumOf = (list: typeof gone) =>
      list.reduce(
        (all, { id }) => all.union(reachedFrom(volume, volume.resolve(id))),
        new Set<number>(),
      );
    const activeAlone = () => reachedFrom(volume, volume.current).difference(sumOf(kept));
    const wanted = sumOf(gone).difference(sumOf(kept)).difference(
      reachedFrom(volume, volume.current),
    );
    const plan = planDelete(volume, gone.map(({ name, id }) => random.oneIn(2) ? name : id));
    assertEquals(plan, {
      snapshots: gone.map(({ name }) => name),
      blocks: wanted.size,
      bytes: wanted.size * 4096,
    });
    assertEquals(planDelete(volume, [first.name, first.id]), planDelete(volume, [first.name]));
    const before = { free: volume.freeBlocks, active: activeAlone().size };
    for (const one of gone) await history.deleteSnapshot(one);
    const after = { free: volume.freeBlocks, active: activeAlone().size };
    // So many more are free, but for what the active file system itself has changed in size.
    assertEquals(after.free - before.free, plan.blocks + before.active - after.active);
    // That is metadata of the deletions alone.
    assert(Math.abs(after.active - before.active) <= 4, `${before.active} ${after.active}`);
    planned += plan.blocks;
    history.check();
    await history.close();
  });
  assert(planned > 500, `${planned} blocks`);
});

test("planDelete refuses what is no snapshot, and at a replica counts what is there", async () => {
  const history = await History.begin(new MemoryStore(3000), new Random(5));
  for (let i = 0; i < 3; i++) {
    await history.change(20);
    await history.snapshot({ pointers: i === 0 ? ["old"] : [] });
  }
  const { volume } = history;
  assertEquals(planDelete(volume, ["old"]), planDelete(volume, ["s1"]));
  for (const [name, kind] of [["s9", "not-found"], ["active", "usage"]]) {
    assertEquals(assertThrows(() => planDelete(volume, ["s1", name]), VolcastError).kind, kind);
  }
  const replica = await replicaWith(volume, ["s1", "s2", "s3"]);
  const [a, b, c] = ["s1", "s2", "s3"].map((name) => reachedFrom(volume, volume.resolve(name)));
  assertEquals(planDelete(replica.volume, ["s1"]).blocks, a.difference(b).difference(c).size);
  assertEquals(
    planDelete(replica.volume, ["s1", "s2"]).blocks,
    a.union(b).difference(c).size,
  );
  await replica.volume.close();
  await history.close();
});
