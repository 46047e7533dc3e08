/**
 * Limits that no test can reach by working: states are forged next to them. Each is refused clearly, and
 * changes nothing.
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  BLOCK_SIZE,
  DirectoryPage,
  encodePointers,
  encodeSnapshots,
  INO,
  type SnapshotRecord,
} from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  LiveFileSystem,
  MAX_POINTERS,
  MAX_SNAPSHOTS,
  Volume,
  type Writer,
} from "../../src/volume/mod.ts";
import { tickingClock } from "../helpers/history.ts";
import { test } from "../helpers/strict.ts";

const MOST = 2 ** 32 - 1;

/** Expects that something is refused as beyond a limit, which the message names. */
function refuses(limit: RegExp, work: () => unknown): void {
  const error = assertThrows(work, VolcastError);
  assertEquals(error.kind, "full");
  assert(limit.test(error.message), error.message);
}

async function withWriter(
  work: (writer: Writer, volume: Volume) => void | Promise<void>,
  blocks = 1000,
) {
  const volume = await Volume.create(new MemoryStore(blocks), { now: tickingClock() });
  await volume.exclusive((writer) => work(writer, volume));
  volume.abandon();
}

test("the last inode number is used, and no number twice", () =>
  withWriter(({ space }, volume) => {
    const root = { ...volume.root, inodeLimit: MOST };
    const fs = new LiveFileSystem(volume.io, root, space, tickingClock());
    const ino = fs.create(INO.root, "last", { type: "file" });
    assertEquals(ino, MOST);
    refuses(/all 4,294,967,280 inodes/, () => fs.create(INO.root, "one more", { type: "file" }));
    fs.settleAll();
    assertEquals(fs.stat(ino).nlink, 1);
    assertEquals([...fs.list(INO.root)].map(({ name }) => name), ["last"]);
    fs.remove(INO.root, "last");
    assertEquals(fs.create(INO.root, "again", { type: "file" }), MOST);
    // A volume of which no more inodes than that could ever be.
  }, 2 ** 28));

test("a file has as many names as are counted", () =>
  withWriter(({ fs }) => {
    const ino = fs.create(INO.root, "file", { type: "file" });
    fs.open(ino).inode.nlink = MOST - 1;
    fs.link(INO.root, "last", ino);
    refuses(/4294967295 names/, () => fs.link(INO.root, "one more", ino));
    assertEquals(fs.stat(ino).nlink, MOST);
    assertEquals(fs.lookup(INO.root, "one more"), undefined);
  }));

test("a directory has as many names as are counted", () =>
  withWriter(({ fs }) => {
    const ino = fs.create(INO.root, "d", { type: "directory" });
    fs.create(INO.root, "file", { type: "file" });
    new DirectoryPage(fs.open(ino).tree.writableBlock(0)).entries = MOST - 1;
    fs.create(ino, "last", { type: "file" });
    const count = fs.inodeCount;
    refuses(/4294967295 names/, () => fs.create(ino, "one more", { type: "file" }));
    refuses(/4294967295 names/, () => fs.link(ino, "one more", fs.lookup(INO.root, "file")!));
    refuses(
      /4294967295 names/,
      () => fs.rename({ parent: INO.root, name: "file" }, { parent: ino, name: "one more" }),
    );
    assertEquals(fs.inodeCount, count);
    assertEquals([...fs.list(INO.root)].map(({ name }) => name), ["d", "file"]);
    // What is there can be replaced.
    fs.rename({ parent: INO.root, name: "file" }, { parent: ino, name: "last" });
  }));

test("a file ends at 16 TiB", () =>
  withWriter(({ fs }) => {
    const ino = fs.create(INO.root, "file", { type: "file" });
    const most = 2 ** 32 * BLOCK_SIZE;
    fs.write(ino, most - 1, new Uint8Array(1));
    assertEquals(fs.stat(ino).size, most);
    const error = assertThrows(() => fs.write(ino, most, new Uint8Array(1)), VolcastError);
    assert(error.message.includes("the limit is 17592186044416 (16 TiB)"), error.message);
    assertEquals(fs.stat(ino).size, most);
  }));

test("a time that 64 bits of ns do not hold is refused", () =>
  withWriter(({ fs }) => {
    const ino = fs.create(INO.root, "file", { type: "file", mtime: 2n ** 63n - 1n });
    const count = fs.inodeCount;
    for (const time of [2n ** 63n, -(2n ** 63n) - 1n]) {
      const refused = (work: () => unknown) => {
        const { message } = assertThrows(work, VolcastError);
        assert(message.includes("the limits are the years 1677 and 2262"), message);
      };
      refused(() => fs.create(INO.root, "late", { type: "file", mtime: time }));
      refused(() => fs.setAttributes(ino, { atime: time }));
    }
    assertEquals(fs.inodeCount, count);
    assertEquals(fs.stat(ino).mtime, 2n ** 63n - 1n);
  }));

/** Records of snapshots that are all of one root. */
function records(volume: Volume, count: number): SnapshotRecord[] {
  const [first] = volume.snapshots();
  const { root, time, blockCount } = first;
  return Array.from({ length: count }, (_, i) => ({
    name: `s${i}`,
    // Numbers of consistency points from before: the one that lists them is the 2,000,000th.
    cp: i === 0 ? first.cp : 1_000_000 + i,
    root,
    time,
    blockCount,
  }));
}

test("snapshots, shadows included, and pointers are as many as the limits say", async () => {
  const volume = await Volume.create(new MemoryStore(4000), { now: tickingClock() });
  const { id } = await volume.exclusive((writer) => writer.takeSnapshot("s0"));
  await volume.exclusive(async (writer) => {
    const table = records(volume, MAX_SNAPSHOTS - 1);
    table[1] = { ...table[1], slot: 0 };
    writer.fs.cp = 2_000_000;
    writer.fs.writeMetafile(INO.snapshots, encodeSnapshots(table));
    const pointers = Array.from({ length: MAX_POINTERS }, (_, i) => ({
      name: `p${i}`,
      snapshot: id,
    }));
    writer.fs.writeMetafile(INO.pointers, encodePointers(pointers));
    await writer.checkpoint();
  });
  const refused = async (limit: RegExp, work: (writer: Writer) => Promise<unknown>) => {
    const error = await assertRejects(() => volume.exclusive(work), VolcastError);
    assertEquals(error.kind, "full");
    assert(limit.test(error.message), error.message);
    assert(error.hint !== "");
  };
  await refused(/has 4096, the limit is 4096/, (writer) => writer.setPointer("one-more", id));
  await volume.exclusive((writer) => writer.setPointer("p7", id));
  assertEquals(volume.pointers().length, MAX_POINTERS);
  await volume.exclusive((writer) => writer.takeSnapshot("last"));
  await refused(/has 4096, the limit is 4096/, (writer) => writer.takeSnapshot("one-more"));
  await volume.exclusive((writer) => writer.deleteSnapshot(volume.resolve("last").id));
  await volume.exclusive((writer) => writer.takeSnapshot("again"));
  await volume.close();
});

test("a full volume with long tables lets snapshots go, the oldest first", async () => {
  const volume = await Volume.create(new MemoryStore(2000), { now: tickingClock() });
  await volume.exclusive((writer) => writer.takeSnapshot("s0"));
  await volume.exclusive(async (writer) => {
    // 100 blocks of table, where 32 are kept back for consistency points.
    writer.fs.cp = 2_000_000;
    writer.fs.writeMetafile(INO.snapshots, encodeSnapshots(records(volume, 800)));
    await writer.checkpoint();
    await writer.takeSnapshot("last");
  });
  const chunk = crypto.getRandomValues(new Uint8Array(10 * BLOCK_SIZE));
  const error = await assertRejects(() =>
    volume.exclusive(async (writer) => {
      const ino = writer.fs.create(INO.root, "filler", { type: "file" });
      for (let at = 0;; at += chunk.length) {
        chunk[0]++;
        writer.fs.write(ino, at, chunk);
        await writer.checkpointIfDue();
      }
    }), VolcastError);
  assertEquals(error.kind, "full");
  await volume.checkpoint();
  for (let i = 0; i < 20; i++) {
    const oldest = volume.snapshots()[0];
    await volume.exclusive((writer) => writer.deleteSnapshot(oldest.id));
  }
  assertEquals(volume.snapshots().length, 781);
  assertEquals(volume.poisoned, undefined);
  await volume.close();
});

test("what has no room left to be deleted is refused before anything is changed", async () => {
  const volume = await Volume.create(new MemoryStore(2000), { now: tickingClock() });
  await volume.exclusive((writer) => writer.takeSnapshot("s0"));
  await volume.exclusive(async (writer) => {
    writer.fs.cp = 2_000_000;
    writer.fs.writeMetafile(INO.snapshots, encodeSnapshots(records(volume, 800)));
    await writer.checkpoint();
    await writer.takeSnapshot("last");
    // As a version that kept less room back would leave it.
    const ino = writer.fs.create(INO.root, "filler", { type: "file" });
    writer.space.tableBlocks = () => 0;
    for (let at = 0; writer.space.has(12); at += 4 * BLOCK_SIZE) {
      writer.fs.write(ino, at, crypto.getRandomValues(new Uint8Array(4 * BLOCK_SIZE)));
      await writer.checkpointIfDue();
    }
    await writer.checkpoint();
  });
  const oldest = volume.snapshots()[0];
  const error = await assertRejects(
    () => volume.exclusive((writer) => writer.deleteSnapshot(oldest.id)),
    VolcastError,
  );
  assertEquals(error.kind, "full");
  assert(/blocks are needed to write it down, \d+ are free/.test(error.message), error.message);
  assertEquals(volume.poisoned, undefined);
  assertEquals(volume.snapshots().length, 801);
  await volume.close();
});
