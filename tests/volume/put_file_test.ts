import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { checkPut, fsck, putFile, type PutOptions, readAll, Volume } from "../../src/volume/mod.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { CrashStore, FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

async function* chunksOf(bytes: Uint8Array, size = 7001): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Names in a directory, and the content of each file. */
function contentOf(volume: Volume, path: string): Map<string, Uint8Array> {
  const view = volume.view();
  try {
    const names = [...view.fs.list(view.fs.resolve(path))];
    return new Map(names.map(({ name, ino, type }) => [
      name,
      type === "file" ? readAll(view.fs, ino) : new Uint8Array(),
    ]));
  } finally {
    view.release();
  }
}

async function withVolume(
  capacity: number,
  work: (volume: Volume, store: MemoryStore) => Promise<void>,
): Promise<void> {
  const store = new MemoryStore(capacity);
  const volume = await Volume.create(store, { now: tickingClock() });
  await volume.exclusive(async (writer) => {
    writer.fs.create(2, "backups", { type: "directory" });
    writer.fs.create(2, "link", { type: "symlink", target: "backups" });
    await writer.checkpoint();
  });
  await work(volume, store);
  await volume.close();
}

test("putFile writes content of any size, durable under its name and no other", async () => {
  await withVolume(3000, async (volume, store) => {
    const random = new Random(1);
    for (const size of [0, 1, 128, 129, 4096, 4097, 2 ** 20, 2 ** 20 + 1, 3_000_000]) {
      const bytes = random.bytes(size);
      await putFile(volume, "/backups/x.img", chunksOf(bytes), {
        overwrite: true,
        byteCount: size,
      });
      const found = Volume.open(store);
      assertEquals(contentOf(found, "/backups"), new Map([["x.img", bytes]]));
      assertClean(found);
      found.abandon();
    }
    const bytes = random.bytes(5000);
    await putFile(volume, "link/through", chunksOf(bytes));
    assertEquals(contentOf(volume, "/backups").get("through"), bytes);
    await putFile(volume, "/new/two/deep", chunksOf(bytes), { parents: true });
    assertEquals(contentOf(volume, "/new/two").get("deep"), bytes);
    await putFile(volume, "/link/two/x", chunksOf(bytes), { parents: true });
    assertEquals(contentOf(volume, "/backups/two").get("x"), bytes);
    assertClean(volume);
  });
});

test("putFile refuses what cannot be, and leaves the volume as it was", async () => {
  await withVolume(700, async (volume) => {
    await putFile(volume, "/backups/x", chunksOf(new Uint8Array(100).fill(1)));
    const before = volume.superblock.cp;
    const refuse = async (kind: string, says: RegExp, path: string, options: PutOptions = {}) => {
      const error = await assertRejects(
        () => putFile(volume, path, chunksOf(new Uint8Array(10)), options),
        VolcastError,
      );
      assertEquals([error.kind, says.test(error.message)], [kind, true], error.message);
    };
    await refuse("not-found", /Cannot write \/no\/x: its directory does not exist/, "/no/x");
    await refuse("exists", /Cannot write \/backups\/x: it exists already/, "/backups/x");
    await refuse("usage", /it is a directory/, "/backups", { overwrite: true });
    await refuse("usage", /\/backups\/x is a file/, "/backups/x/y");
    await refuse("usage", /Cannot make \/backups\/x\/: there is a file/, "/backups/x/y/z", {
      parents: true,
    });
    await refuse("usage", /contains '\.\.'/, "/../x");
    await refuse("usage", /it is empty/, "/");
    await refuse("full", /needs 10000 blocks, and \d+ are free/, "/big", { byteCount: 40_960_000 });
    assertEquals(volume.superblock.cp, before);
    assertEquals([...contentOf(volume, "/").keys()].sort(), ["backups", "link"]);
    assertEquals(contentOf(volume, "/backups").get("x"), new Uint8Array(100).fill(1));
    await volume.exclusive(({ fs }) => checkPut(fs, "/backups/y"));
  });
});

test("a volume that runs full, and a source that breaks, leave the old file and no other", async () => {
  await withVolume(1200, async (volume, store) => {
    const old = new Random(2).bytes(100_000);
    await putFile(volume, "/backups/x", chunksOf(old));
    const free = volume.freeBlocks;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) yield new Random(3).bytes(50_000);
    }
    const full = await assertRejects(
      () => putFile(volume, "/backups/x", endless(), { overwrite: true }),
      VolcastError,
    );
    assertEquals(full.kind, "full");
    async function* breaking(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(2_000_000).fill(9);
      throw new Error("the pipe broke");
    }
    await assertRejects(
      () => putFile(volume, "/backups/x", breaking(), { overwrite: true }),
      Error,
      "the pipe broke",
    );
    const controller = new AbortController();
    controller.abort(new Error("the user left"));
    await assertRejects(
      () => putFile(volume, "/backups/y", chunksOf(old), { signal: controller.signal }),
      Error,
      "the user left",
    );
    assertEquals(volume.poisoned, undefined);
    const found = Volume.open(store);
    assertEquals(contentOf(found, "/backups"), new Map([["x", old]]));
    assertClean(found);
    found.abandon();
    assert(volume.freeBlocks >= free - 20, `${volume.freeBlocks} of ${free} blocks are free again`);
  });
});

test("a disk that fails while a file is put leaves the old file", async () => {
  const under = new MemoryStore(2000);
  const prepared = await Volume.create(under);
  await putFile(prepared, "/x", chunksOf(new Uint8Array(9000).fill(1)));
  await prepared.close();
  const store = new FaultStore(under);
  const volume = Volume.open(store);
  store.fault = { at: store.counts.write + 3, call: "write", kind: "io" };
  await assertRejects(
    () => putFile(volume, "/x", chunksOf(new Random(1).bytes(4_000_000)), { overwrite: true }),
    VolcastError,
  );
  assert(volume.poisoned !== undefined);
  volume.abandon();
  const found = Volume.open(under);
  assertEquals(contentOf(found, "/"), new Map([["x", new Uint8Array(9000).fill(1)]]));
  assertClean(found);
  found.abandon();
});

test("a crash at any moment leaves the old file or the new one under the name, and a clean volume", async () => {
  const prepared = new MemoryStore(2500);
  const first = await Volume.create(prepared, { now: tickingClock() });
  const old = new Random(4).bytes(70_000);
  await putFile(first, "/x.img", chunksOf(old));
  await first.close();

  const store = new CrashStore(prepared);
  // A consistency point after every chunk: more moments to crash at.
  const volume = Volume.open(store, { now: tickingClock(), dirtyBytes: 0 });
  const bytes = new Random(5).bytes(3_300_000);
  await putFile(volume, "/x.img", chunksOf(bytes), { overwrite: true });
  const done = store.events.length;
  volume.abandon();

  const random = new Random(6);
  const seen = { old: 0, new: 0, hidden: 0 };
  for (let count = 0; count <= done; count++) {
    for (let round = 0; round < 3; round++) {
      const found = Volume.open(store.crashed(count, random));
      const files = contentOf(found, "/");
      const content = files.get("x.img")!;
      const isOld = content.length === old.length;
      assertEquals(content, isOld ? old : bytes, `after ${count} of ${done} events`);
      const hidden = [...files.keys()].filter((name) => name !== "x.img");
      assert(hidden.length === 0 || isOld && hidden.join() === ".x.img.part", hidden.join());
      assertEquals(fsck(found).findings, []);
      seen[isOld ? "old" : "new"]++;
      seen.hidden += hidden.length;
      if (count === done) assert(!isOld, "what was acknowledged is there");
      if (hidden.length > 0 && random.oneIn(10)) {
        // The next attempt takes away what the crash left.
        await putFile(found, "/x.img", chunksOf(bytes), { overwrite: true });
        assertEquals(contentOf(found, "/"), new Map([["x.img", bytes]]));
        assertClean(found);
      }
      found.abandon();
    }
  }
  assert(seen.old > 10 && seen.new > 0 && seen.hidden > 10, JSON.stringify(seen));
});
