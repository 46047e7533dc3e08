import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume, type Writer } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

/** Makes files until the volume says that it is full. Returns their number. */
async function fill(volume: Volume, byteCount: number): Promise<number> {
  const random = new Random(3);
  let count = 0;
  const error = await assertRejects(async () => {
    for (;;) {
      await volume.exclusive(async (writer) => {
        for (let i = 0; i < 20; i++) {
          const ino = writer.fs.create(2, `file${count}`, { type: "file" });
          count++;
          writer.fs.write(ino, 0, random.bytes(byteCount));
        }
        await writer.checkpointIfDue();
      });
    }
  }, VolcastError);
  assertEquals(error.kind, "full");
  assertEquals(volume.poisoned, undefined);
  await volume.checkpoint();
  return count;
}

/** Does something to every file in one go, with consistency points where they are due. */
async function forAll(
  volume: Volume,
  work: (writer: Writer, name: string) => void,
): Promise<void> {
  await volume.exclusive(async (writer) => {
    const names = [...writer.fs.list(2)].map(({ name }) => name);
    for (const name of names) {
      work(writer, name);
      await writer.checkpointIfDue();
    }
    await writer.checkpoint();
  });
}

test("a volume that runs full again and again loses nothing and is never poisoned", async () => {
  let full = 0;
  await forSeeds(seeds(100, 10), async (random) => {
    const history = await History.begin(new MemoryStore(500), random, { writeBytes: 200_000 });
    for (let step = 0; step < 60; step++) {
      await history.step();
      if (random.oneIn(6)) {
        await history.checkLive();
        history.check();
      }
    }
    await history.checkpoint();
    history.check();
    await history.close();
    full += history.fullCount;
  });
  assert(full > 100, `${full} operations were refused`);
});

for (const byteCount of [0, 100, 4096, 100_000]) {
  test(`a volume full of files of ${byteCount} bytes can be changed and emptied`, async () => {
    const volume = await Volume.create(new MemoryStore(1500), { now: tickingClock() });
    const empty = volume.freeBlocks;
    const count = await fill(volume, byteCount);
    assert(count > 10);
    assertClean(volume);
    const files = [...volume.view().fs.list(2)].length;
    volume.leases.endAll();
    await forAll(volume, ({ fs }, name) => {
      fs.setAttributes(fs.lookup(2, name)!, { uid: 5 });
    });
    assertClean(volume);
    await forAll(volume, ({ fs }, name) => fs.remove(2, name));
    assertClean(volume);
    assert(files >= count - 20);
    const view = volume.view();
    assertEquals([...view.fs.list(2)], []);
    view.release();
    // The inode file keeps its blocks, and the directory's file its pages: a volume full of nothing
    // but inodes has no more room for content than before.
    const kept = Math.ceil(count / 16) + Math.ceil(count / 100);
    assert(volume.freeBlocks > empty - kept - 20, `${volume.freeBlocks} of ${empty} free`);
    await volume.exclusive(async (writer) => {
      const ino = writer.fs.create(2, "again", { type: "file" });
      if (byteCount > 100) writer.fs.write(ino, 0, new Uint8Array(40_960).fill(1));
      await writer.checkpoint();
    });
    assertClean(volume);
    await volume.close();
  });
}

test("what is too much for one consistency point is refused, not half done", async () => {
  const volume = await Volume.create(new MemoryStore(1500), { now: tickingClock() });
  await fill(volume, 0);
  const lines = () => {
    const view = volume.view();
    const count = describe(view.fs).length;
    view.release();
    return count;
  };
  const before = lines();
  let removed = 0;
  for (
    const change of [
      ({ fs }: Writer, name: string) => fs.remove(2, name),
      ({ fs }: Writer, name: string) => fs.setAttributes(fs.lookup(2, name)!, { gid: 3 }),
      ({ fs }: Writer, name: string) => fs.truncate(fs.lookup(2, name)!, 10),
    ]
  ) {
    let done = 0;
    const error = await assertRejects(() =>
      volume.exclusive((writer) => {
        for (const name of [...writer.fs.list(2)].map((entry) => entry.name)) {
          change(writer, name);
          done++;
        }
      }), VolcastError);
    assertEquals(error.kind, "full");
    // Inodes that share a block are one block, so this is more than there are blocks free.
    assert(done > 100, `${done} changes`);
    removed ||= done;
    assertEquals(volume.poisoned, undefined);
    await volume.checkpoint();
    assertClean(volume);
  }
  assertEquals(lines(), before - removed);
  await volume.close();
});

test("snapshots can be deleted and pointers moved in a volume that is full to the brim", async () => {
  await forSeeds(seeds(1, 6), async (random) => {
    const history = await History.begin(new MemoryStore(600), random, { writeBytes: 100_000 });
    await history.change(20);
    await history.snapshot({ pointers: ["master"] });
    // Until there is no room for anything: not a file, not a snapshot, not a change.
    for (let round = 0; round < 80; round++) {
      await history.change(5);
      if (round < 60) await history.snapshot();
      await history.checkpoint();
    }
    assert(history.fullCount > 20, `${history.fullCount} refused`);
    history.check();
    const [first] = history.kept;
    const held = await assertRejects(
      () => history.volume.exclusive((writer) => writer.deleteSnapshot(first.id)),
      VolcastError,
    );
    assertEquals(held.kind, "held");
    const last = history.kept.at(-1)!;
    await history.volume.exclusive((writer) => writer.setPointer("master", last.id));
    history.committed = history.model.clone();
    history.check();
    const free = history.volume.freeBlocks;
    while (history.kept.length > 1) {
      await history.deleteSnapshot(history.kept[0]);
      history.check();
    }
    assert(history.volume.freeBlocks > free + 50, "space came back");
    assertEquals(history.volume.pointers(), [{ name: "master", snapshot: last.id }]);
    await history.change(10);
    await history.checkpoint();
    history.check();
    await history.close();
  });
});

test("a write that does not fit changes nothing", async () => {
  const volume = await Volume.create(new MemoryStore(400), { now: tickingClock() });
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "a", { type: "file" });
    writer.fs.write(ino, 0, new Uint8Array(10_000).fill(7));
    await writer.checkpoint();
    const [before, free] = [describe(writer.fs, { all: true }), writer.space.freeCount];
    for (
      const attempt of [
        () => writer.fs.write(ino, 0, new Uint8Array(3_000_000).fill(8)),
        () => writer.fs.write(ino, 5000, new Uint8Array(3_000_000).fill(8)),
        () =>
          writer.fs.setExtendedAttributes(ino, {
            xattrs: new Map([["user.a", new Uint8Array(1_040_000)], [
              "user.b",
              new Uint8Array(5000),
            ]]),
          }),
      ]
    ) {
      try {
        attempt();
        // Attributes of a megabyte may fit; then they are taken back.
        writer.fs.setExtendedAttributes(ino, { xattrs: new Map() });
        await writer.checkpoint();
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "full", String(error));
        assertEquals(describe(writer.fs, { all: true }), before);
        assertEquals(writer.space.freeCount, free);
      }
    }
  });
  assertClean(volume);
  await volume.close();
});

test("readers are ended when their blocks are the only ones left", async () => {
  const volume = await Volume.create(new MemoryStore(400), { now: tickingClock() });
  const random = new Random(4);
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "a", { type: "file" });
    writer.fs.write(ino, 0, random.bytes(100 * 4096));
    await writer.checkpoint();
  });
  const view = volume.view();
  const before = describe(view.fs);
  for (let i = 0; i < 2; i++) {
    await volume.exclusive(({ fs }) => fs.write(fs.resolve("/a"), 0, random.bytes(100 * 4096)));
    await volume.checkpoint();
    if (i === 0) assertEquals(describe(view.fs), before, "there was room beside it");
  }
  // The third copy had no other place.
  await volume.exclusive(({ fs }) => fs.write(fs.resolve("/a"), 0, random.bytes(100 * 4096)));
  const error = await assertRejects(() => Promise.resolve().then(() => view.fs), VolcastError);
  assertEquals(error.kind, "busy");
  await volume.checkpoint();
  assertClean(volume);
  await volume.close();
});
