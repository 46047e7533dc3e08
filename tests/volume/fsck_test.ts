import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume, type Writer } from "../../src/volume/mod.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { copyOf, flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

test("fsck finds a flipped bit in any block that a root or a snapshot uses", async () => {
  await forSeeds(seeds(1, 3), async (random) => {
    const history = await History.begin(new MemoryStore(900), random, { writeBytes: 30_000 });
    for (let i = 0; i < 3; i++) {
      await history.change(20);
      await history.snapshot();
    }
    const { volume, store } = history;
    const used = new Set<number>();
    for (const snapshot of [...volume.snapshots(), volume.current]) {
      for (const vbn of bitsOf(volume, snapshot)) used.add(vbn);
    }
    assert(used.size > 50, `${used.size} blocks`);
    for (const vbn of used) {
      const broken = copyOf(store);
      flipBit(broken, vbn, random.below(4096 * 8));
      let found: Volume | undefined;
      try {
        found = Volume.open(broken);
        const report = fsck(found);
        assert(!report.clean && report.findings.length > 0, `VBN ${vbn}`);
        assertEquals(report.findingCount, report.findings.length);
      } catch (error) {
        // What opening itself needs is refused at once.
        assert(error instanceof VolcastError && error.kind === "damaged", String(error));
      } finally {
        found?.abandon();
      }
    }
    // What no root uses may hold anything.
    for (let i = 0; i < 50; i++) {
      const vbn = random.between(volume.zone.data.start, 899);
      if (!used.has(vbn)) store.write(vbn, random.bytes(4096));
    }
    assertClean(volume);
    const report = fsck(volume);
    assertEquals(report.blocks, used.size);
    assertEquals(report.roots, 4);
    const places = history.model.places().map(({ node }) => node);
    assertEquals(report.directories, 1 + places.filter(({ type }) => type === "directory").length);
    assertEquals(report.files, new Set(places.filter(({ type }) => type !== "directory")).size);
    await history.close();
  });
});

test("Volume.open falls back on the older superblock only when the newer one is torn", async () => {
  const store = new MemoryStore(300);
  const volume = await Volume.create(store, { now: tickingClock() });
  await volume.exclusive(async (writer) => {
    writer.fs.create(2, "a", { type: "file" });
    await writer.checkpoint();
  });
  const { sequence, cp } = volume.superblock;
  await volume.close();
  const torn = copyOf(store);
  flipBit(torn, sequence % 2, 3000 * 8);
  const older = Volume.open(torn);
  assertEquals(older.superblock.cp, cp - 1);
  older.abandon();
  const newer = copyOf(store);
  flipBit(newer, (sequence + 1) % 2, 3000 * 8);
  const whole = Volume.open(newer);
  assertEquals(whole.superblock.cp, cp);
  whole.abandon();
});

/** A volume with some files and a snapshot, into which a fault is then committed. */
async function withFault(
  make: (writer: Writer, inos: Record<string, number>) => void,
): Promise<string[]> {
  const volume = await Volume.create(new MemoryStore(600), { now: tickingClock() });
  const random = new Random(5);
  const inos = await volume.exclusive(({ fs }) => {
    const create = (name: string, parent = 2) => {
      const ino = fs.create(parent, name, { type: "file" });
      fs.write(ino, 0, random.bytes(9000));
      return ino;
    };
    const directory = fs.create(2, "directory", { type: "directory" });
    const [a, b, c] = [create("a"), create("b"), create("c", directory)];
    fs.link(2, "link", a);
    return { a, b, c, directory };
  });
  await volume.exclusive((writer) => writer.takeSnapshot("before"));
  assertClean(volume);
  await volume.exclusive(async (writer) => {
    // What is to be changed is in memory now, and so is the root directory.
    for (const ino of Object.values(inos)) writer.fs.setAttributes(ino, { uid: 1 });
    writer.fs.create(2, "touched", { type: "file" });
    make(writer, inos);
    await writer.checkpoint();
  });
  const report = fsck(volume);
  assertEquals(report.clean, false);
  await volume.close();
  return report.findings.map(({ problem }) => problem);
}

const FAULTS: Record<string, [
  make: (writer: Writer, inos: Record<string, number>) => void,
  problem: string,
]> = {
  "a wrong link count of a file": [
    ({ fs }, { a }) => fs.open(a).inode.nlink = 1,
    "link count 1 and 2 names",
  ],
  "a wrong link count of a directory": [
    ({ fs }, { directory }) => fs.open(directory).inode.nlink = 3,
    "has link count 3, should have 2",
  ],
  "a leaked block": [
    ({ space }) => void space.allocate(),
    "reached are",
  ],
  "a block used twice": [
    ({ fs }, { a, b }) => fs.open(b).tree.setPointer(1, fs.open(a).tree.pointer(1)),
    "is used twice",
  ],
  "a block in use that the map calls free": [
    ({ fs, space }, { a }) => {
      space.detachWorkingPage();
      const { vbn } = fs.open(a).tree.pointer(0);
      space.map.writableBlock(0)[vbn >> 3] &= ~(1 << (vbn & 7));
    },
    "its root counts",
  ],
  "a pointer out of the volume's data": [
    ({ fs }, { b }) => fs.open(b).tree.setPointer(0, { vbn: 5, crc: 1 }),
    "outside of the volume's data",
  ],
  "a pointer behind the volume": [
    ({ fs }, { b }) => fs.open(b).tree.setPointer(0, { vbn: 600, crc: 1 }),
    "outside of the volume's data",
  ],
  "another checksum for a block that a snapshot has": [
    ({ fs, space }, { b }) => {
      const { tree } = fs.open(b);
      const { vbn, crc } = tree.pointer(0);
      tree.setPointer(0, { vbn, crc: crc ^ 1 });
      space.map.writableBlock(0)[vbn >> 3] |= 1 << (vbn & 7);
      space.mapCount++;
    },
    "its checksum is",
  ],
  "a name of a free inode": [
    ({ fs }) => fs.directory(2).insert("ghost", 4000, "file"),
    "Cannot open inode",
  ],
  "a name without its count": [
    ({ fs }, { b }) => fs.directory(2).insert("more", b, "file"),
    "link count 1 and 2 names",
  ],
  "a name of another type": [
    ({ fs }, { b }) => fs.directory(2).replace("b", b, "symlink"),
    "its directory says symlink",
  ],
  "a file without a name": [
    ({ fs }) => fs.directory(2).remove("b"),
    "is in use and has no name",
  ],
  "a directory with two names": [
    ({ fs }, { directory }) => fs.directory(2).insert("again", directory, "directory"),
    "has more than one name",
  ],
  "a wrong count of inodes": [
    ({ fs }) => void fs.inodeCount++,
    "The root counts",
  ],
  "a lost chain of free inodes": [
    ({ fs }) => {
      fs.remove(2, "b");
      fs.freeInode = 0;
    },
    "The chain of free inodes has not all of 1",
  ],
  "a file in the chain of free inodes": [
    ({ fs }, { b }) => void (fs.freeInode = b),
    "in use or out of bounds",
  ],
  "a chain of free inodes that leaves the file": [
    ({ fs }) => void (fs.freeInode = 10_000),
    "in use or out of bounds",
  ],
  "a wrong count of blocks": [
    ({ space }) => void space.mapCount++,
    "its root counts",
  ],
  "a snapshot's block that the summary has not": [
    ({ fs, space }, { a }) => {
      const { vbn } = fs.open(a).tree.pointer(0);
      space.summary.writableBlock(0)[vbn >> 3] &= ~(1 << (vbn & 7));
    },
    "The summary has",
  ],
  "a block in the summary that no snapshot has": [
    ({ space }) => {
      space.summary.writableBlock(0)[70] |= 1;
    },
    "The summary has",
  ],
  "a directory whose pages are wrong": [
    ({ fs }) => fs.open(INO.root).tree.writableBlock(0)[8]++,
    "A directory counts",
  ],
};

for (const [what, [make, problem]] of Object.entries(FAULTS)) {
  test(`fsck finds ${what}`, async () => {
    const found = (await withFault(make)).join("\n");
    assertStringIncludes(found.toLowerCase(), problem.toLowerCase());
  });
}

test("fsck goes on after a block that cannot be read, and counts what it does not show", async () => {
  const store = new MemoryStore(6000);
  const volume = await Volume.create(store, { now: tickingClock() });
  const random = new Random(8);
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "a", { type: "file" });
    writer.fs.write(ino, 0, random.bytes(1300 * 4096));
    await writer.checkpoint();
  });
  const pointers = await volume.exclusive(({ fs }) => {
    const { tree } = fs.open(fs.resolve("/a"));
    return Array.from({ length: 1300 }, (_, i) => tree.pointer(i).vbn);
  });
  flipBit(store, pointers[3], 9);
  flipBit(store, pointers[700], 9);
  let report = fsck(volume);
  assertEquals(report.findingCount, 2);
  assertStringIncludes(report.findings[0].problem, `VBN ${pointers[3]}:`);
  assertStringIncludes(report.findings[1].problem, `VBN ${pointers[700]}:`);
  for (const vbn of pointers) flipBit(store, vbn, 77);
  report = fsck(volume);
  assertEquals(report.findingCount, 1300);
  assertEquals(report.findings.length, 1000);
  await volume.close();
});

test("fsck tells how far it is", async () => {
  const volume = await Volume.create(new MemoryStore(6000), { now: tickingClock() });
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "a", { type: "file" });
    writer.fs.write(ino, 0, new Random(1).bytes(5000 * 4096));
    await writer.checkpoint();
  });
  const calls: [number, number][] = [];
  fsck(volume, { progress: (done, total) => calls.push([done, total]) });
  assertEquals(calls, [[4096, volume.current.blockCount]]);
  await volume.close();
});
