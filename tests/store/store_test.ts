import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import { type BlockStore, FileStore, GatheringStore, MemoryStore } from "../../src/store/mod.ts";
import { Random } from "../helpers/random.ts";
import { CrashStore, FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { testBlockStore } from "../suites/block_store_suite.ts";

const BLOCK_SIZE = 4096;

function onFile(capacity: number): { store: FileStore; dispose(): void } {
  const directory = Deno.makeTempDirSync();
  const store = FileStore.open(`${directory}/volume`, { capacity, create: true });
  return {
    store,
    dispose() {
      store.close();
      Deno.removeSync(directory, { recursive: true });
    },
  };
}

const nothing = () => {};
testBlockStore({
  name: "MemoryStore",
  make: (capacity) => ({ store: new MemoryStore(capacity), dispose: nothing }),
});
testBlockStore({ name: "FileStore", make: onFile });
testBlockStore({
  name: "GatheringStore over memory",
  make: (capacity) => ({ store: new GatheringStore(new MemoryStore(capacity)), dispose: nothing }),
});
testBlockStore({
  name: "GatheringStore over a file",
  make(capacity) {
    const { store, dispose } = onFile(capacity);
    return { store: new GatheringStore(store), dispose };
  },
});
// The doubles that other tests stand on are held to the same.
testBlockStore({
  name: "FaultStore without a fault",
  make: (capacity) => ({ store: new FaultStore(new MemoryStore(capacity)), dispose: nothing }),
});
testBlockStore({
  name: "CrashStore",
  make: (capacity) => ({ store: new CrashStore(new MemoryStore(capacity)), dispose: nothing }),
});

async function inDirectory(work: (directory: string) => void | Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function refuse(work: () => unknown, kind: ErrorKind): VolcastError {
  const error = assertThrows(work, VolcastError);
  assertEquals(error.kind, kind, error.message);
  return error;
}

function block(value: number): Uint8Array {
  return new Uint8Array(BLOCK_SIZE).fill(value);
}

test("FileStore keeps what was written when it is opened again", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/volume`;
    const store = FileStore.open(path, { capacity: 100, create: true });
    store.write(99, block(3));
    await store.sync();
    store.close();
    const again = FileStore.open(path);
    assertEquals([again.capacity, again.path], [100, path]);
    const target = block(0);
    again.read(99, target);
    assertEquals(target, block(3));
    again.close();
    // What was never written takes no room.
    const { blocks, size } = await Deno.stat(path);
    assertEquals(size, 100 * BLOCK_SIZE);
    assert(blocks !== null && blocks * 512 < 50 * BLOCK_SIZE, `${blocks} sectors`);
  }));

test("FileStore takes the lock, and gives it back", () =>
  inDirectory((directory) => {
    const path = `${directory}/volume`;
    const store = FileStore.open(path, { capacity: 10, create: true });
    refuse(() => FileStore.open(path), "busy");
    refuse(() => FileStore.open(path, { capacity: 5 }), "busy");
    store.close();
    // The refused one, which wanted it smaller, changed nothing.
    const again = FileStore.open(path);
    assertEquals(again.capacity, 10);
    again.close();
  }));

test("FileStore says what stands in the way", () =>
  inDirectory((directory) => {
    refuse(() => FileStore.open(`${directory}/none`), "not-found");
    refuse(() => FileStore.open(`${directory}/none/volume`, { create: true }), "not-found");
    const path = `${directory}/volume`;
    FileStore.open(path, { capacity: 10, create: true }).close();
    refuse(() => FileStore.open(path, { capacity: 20, create: true }), "exists");
    refuse(() => FileStore.open(`${path}/below`), "io");
    assertEquals(Deno.statSync(path).size, 10 * BLOCK_SIZE);
    assertThrows(() => FileStore.open(directory), VolcastError);
  }));

test("FileStore reads zeros behind the end of a file that was cut off", () =>
  inDirectory((directory) => {
    const path = `${directory}/volume`;
    Deno.writeFileSync(path, new Uint8Array(2 * BLOCK_SIZE + 100).fill(7));
    const store = FileStore.open(path);
    assertEquals(store.capacity, 2);
    store.close();
    const wider = FileStore.open(path, { capacity: 10 });
    Deno.truncateSync(path, 2 * BLOCK_SIZE + 100);
    const target = new Uint8Array(4 * BLOCK_SIZE).fill(9);
    wider.read(1, target);
    assertEquals(target.lastIndexOf(7), BLOCK_SIZE + 99);
    assertEquals(target.indexOf(9), -1);
    wider.close();
  }));

test("FileStore writes nothing more after a write that failed", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/volume`;
    const store = FileStore.open(path, { capacity: 10, create: true });
    store.write(0, block(1));
    // A closed file is the surest way to a failing write.
    store.close();
    const first = refuse(() => store.write(1, block(2)), "io");
    assert(first.message.includes("VBN 1"), first.message);
    assertEquals(refuse(() => store.write(2, block(2)), "io"), first);
    assertEquals(await assertRejects(() => store.sync(), VolcastError), first);
    refuse(() => store.read(0, block(0)), "io");
  }));

test("FileStore calls a full disk full", async () => {
  // Not every system has it; where it is, it is the real error of a real disk.
  try {
    Deno.statSync("/dev/full");
  } catch {
    return;
  }
  await inDirectory((directory) => {
    const path = `${directory}/volume`;
    Deno.symlinkSync("/dev/full", path);
    const error = assertThrows(() => FileStore.open(path), VolcastError);
    assertEquals(error.kind, "usage");
  });
});

test("FileStore writes where it should after it read behind the end of a file", async () => {
  await inDirectory((directory) => {
    const store = FileStore.open(`${directory}/short`, { create: true, most: 10 });
    for (const vbn of [0, 1, 2]) store.write(vbn, block(vbn + 1));
    store.write(0, block(4));
    const target = new Uint8Array(5 * BLOCK_SIZE);
    store.read(0, target);
    assertEquals(target.subarray(3 * BLOCK_SIZE), new Uint8Array(2 * BLOCK_SIZE));
    // The cursor is at the end of the file by now, and was at block 1 before.
    store.write(1, block(5));
    store.read(0, target);
    assertEquals([0, 1, 2, 3].map((vbn) => target[vbn * BLOCK_SIZE]), [4, 5, 3, 0]);
    store.close();
  });
});

test("GatheringStore hands neighbours down at once, and all of them on sync", async () => {
  const under = new FaultStore(new MemoryStore(2000));
  const store = new GatheringStore(under);
  for (let vbn = 10; vbn < 266; vbn++) store.write(vbn, block(vbn));
  assertEquals(under.counts.write, 0);
  store.write(266, block(266));
  assertEquals(under.counts.write, 1);
  store.write(5, block(5));
  assertEquals(under.counts.write, 2);
  await store.sync();
  assertEquals([under.counts.write, under.counts.sync], [3, 1]);
  await store.sync();
  assertEquals([under.counts.write, under.counts.sync], [3, 2]);
  store.write(7, block(1));
  store.write(7, block(2));
  store.read(8, block(0));
  assertEquals(under.counts.write, 4);
  const target = block(0);
  store.read(7, target);
  assertEquals([target[0], under.counts.write], [2, 5]);
  store.write(300, block(3));
  store.flush();
  store.flush();
  assertEquals(under.counts.write, 6);
});

test("GatheringStore keeps what it was given, not the caller's buffer", () => {
  const store = new GatheringStore(new MemoryStore(10));
  const buffer = block(1);
  store.write(0, buffer);
  buffer.fill(2);
  const target = block(0);
  store.read(0, target);
  assertEquals(target, block(1));
});

test("GatheringStore remembers its first failure and hands nothing down after it", async () => {
  for (const call of ["write", "sync"] as const) {
    const under = new FaultStore(new MemoryStore(100), { at: 2, call, kind: "full" });
    const store: GatheringStore & BlockStore = new GatheringStore(under);
    assertEquals(store.failure, undefined);
    store.write(1, block(1));
    await store.sync();
    store.write(2, block(2));
    const error = await assertRejects(() => store.sync(), VolcastError);
    assertEquals([error.kind, store.failure], ["full", error]);
    assertEquals(assertThrows(() => store.write(3, block(3)), VolcastError), error);
    assertEquals(await assertRejects(() => store.sync(), VolcastError), error);
    assertEquals([under.faults, under.writesAfterFault], [1, 0]);
    const target = block(0);
    store.read(1, target);
    assertEquals(target, block(1));
  }
});

test("GatheringStore does what failed again, durably, before it takes anything new", async () => {
  for (const call of ["write", "sync"] as const) {
    const disk = new CrashStore(new MemoryStore(100));
    const under = new FaultStore(disk, { at: 2, call, kind: "full" });
    const store = new GatheringStore(under);
    store.write(1, block(1));
    await store.sync();
    store.write(2, block(2));
    await assertRejects(() => store.sync(), VolcastError);
    under.fault = { at: under.counts[call] + 1, call, kind: "full" };
    await assertRejects(() => store.retry(), VolcastError);
    assertThrows(() => store.write(3, block(3)), VolcastError);
    await store.retry();
    for (let seed = 1; seed <= 20; seed++) {
      const { blocks } = disk.crashed(disk.events.length, new Random(seed));
      assertEquals([blocks.get(1), blocks.get(2)], [block(1), block(2)]);
    }
    store.write(3, block(3));
    await store.sync();
    assertEquals(store.failure, undefined);
  }
});

test("FaultStore fails the call it was told to, without an effect", async () => {
  const memory = new MemoryStore(10);
  const store = new FaultStore(memory, { at: 2, call: "write", kind: "full" });
  store.write(0, block(1));
  refuse(() => store.write(1, block(1)), "full");
  store.write(2, block(1));
  assertEquals([...memory.blocks.keys()], [0, 2]);
  const dead = new FaultStore(memory, { at: 1, call: "sync", kind: "io", forEver: true });
  for (let i = 0; i < 2; i++) await assertRejects(() => dead.sync(), VolcastError);
});

test("CrashStore keeps all that was synced, and any part of the rest", async () => {
  const store = new CrashStore(new MemoryStore(10));
  store.write(1, block(1));
  const syncing = store.sync();
  // Written while the sync is under way: no part of it.
  store.write(2, block(2));
  await syncing;
  store.write(3, block(3));
  const random = new Random(1);
  const seen = new Set<string>();
  for (let i = 0; i < 500; i++) {
    const disk = store.crashed(store.events.length, random);
    assertEquals(disk.blocks.get(1), block(1));
    const state = [2, 3].map((vbn) => {
      const bytes = disk.blocks.get(vbn);
      if (bytes === undefined) return "lost";
      for (let at = 0; at < BLOCK_SIZE; at++) {
        assert([0, vbn].includes(bytes[at]) && bytes[at] === bytes[at - at % 512]);
      }
      return bytes.every((byte) => byte === vbn) ? "kept" : "torn";
    });
    seen.add(state.join());
  }
  assertEquals(seen.size, 9, [...seen].join(" "));
  assertEquals([...store.whole().blocks.keys()], [1, 2, 3]);
  assertEquals(store.crashed(0, random).blocks.size, 0);
});
