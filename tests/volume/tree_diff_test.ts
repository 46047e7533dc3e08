import { assert, assertEquals } from "@std/assert";
import { INO } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  countChanged,
  diffTrees,
  type FileSystem,
  readAll,
  type TreeChange,
  Volume,
} from "../../src/volume/mod.ts";
import { describeAttributes } from "../helpers/describe.ts";
import { History, tickingClock } from "../helpers/history.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { checksum } from "../../src/format/mod.ts";

/** What a diff looks at, of every path, found by reading everything. */
function everything(fs: FileSystem): Map<string, { type: string; ino: string; all: string }> {
  const found = new Map<string, { type: string; ino: string; all: string }>();
  const walk = (ino: number, path: string) => {
    const { type, mode, uid, gid, dos, rdev, btime, mtime, size, generation } = fs.stat(ino);
    const fields: unknown[] = [
      mode,
      uid,
      gid,
      dos,
      rdev,
      btime,
      describeAttributes(fs.attributes(ino)),
    ];
    if (type !== "directory") fields.push(mtime, size, checksum(readAll(fs, ino)));
    found.set(path, { type, ino: `${ino}.${generation}`, all: fields.join(" ") });
    if (type !== "directory") return;
    for (const entry of fs.list(ino)) {
      walk(entry.ino, path === "/" ? `/${entry.name}` : `${path}/${entry.name}`);
    }
  };
  walk(INO.root, "/");
  return found;
}

/** The same answer from everything there is. */
function expected(before: FileSystem, after: FileSystem): Set<string> {
  const [a, b] = [everything(before), everything(after)];
  const lines = new Set<string>();
  for (const [path, mine] of a) {
    const theirs = b.get(path);
    if (theirs === undefined || theirs.type !== mine.type) {
      lines.add(`removed ${path} ${mine.type}`);
    } else if (theirs.all !== mine.all || (theirs.ino !== mine.ino && mine.type !== "directory")) {
      lines.add(`changed ${path} ${mine.type}`);
    }
  }
  for (const [path, theirs] of b) {
    if (a.get(path)?.type !== theirs.type) lines.add(`created ${path} ${theirs.type}`);
  }
  return lines;
}

function lineOf({ kind, path, type }: TreeChange): string {
  return `${kind} ${path} ${type}`;
}

test("diffTrees says what reading everything says, forwards and backwards, of any two snapshots", async () => {
  let changes = 0;
  await forSeeds(seeds(1, 6), async (random) => {
    const history = await History.begin(new MemoryStore(4000), random, { writeBytes: 20_000 });
    for (let i = 0; i < 14; i++) {
      await history.change(random.between(0, 12));
      await history.snapshot();
    }
    const { volume } = history;
    for (let i = 0; i < 25; i++) {
      const [a, b] = [random.pick(history.kept), random.pick(history.kept)]
        .map(({ name }) => volume.fileSystem(volume.resolve(name)));
      const found = [...diffTrees(a, b)].map(lineOf);
      assertEquals(new Set(found), expected(a, b));
      assertEquals(found.length, new Set(found).size, "each once");
      changes += found.length;
    }
    await history.close();
  });
  assert(changes > 1000, `${changes} changes`);
});

test("diffTrees lists a moved directory whole, a replaced file as changed, another type as both", async () => {
  const volume = await Volume.create(new MemoryStore(2000), { now: tickingClock() });
  const before = await volume.exclusive(async (writer) => {
    const { fs } = writer;
    const d = fs.create(INO.root, "d", { type: "directory" });
    fs.create(fs.create(d, "e", { type: "directory" }), "deep", { type: "file" });
    fs.link(INO.root, "linked", fs.create(INO.root, "file", { type: "file" }));
    fs.create(INO.root, "turned", { type: "file" });
    fs.create(INO.root, "replaced", { type: "file" });
    fs.create(INO.root, "same", { type: "file" });
    return await writer.takeSnapshot("before");
  });
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    fs.rename({ parent: INO.root, name: "d" }, { parent: INO.root, name: "moved" });
    fs.write(fs.resolve("linked"), 0, new Uint8Array([1]));
    fs.remove(INO.root, "turned");
    fs.create(INO.root, "turned", { type: "directory" });
    fs.create(INO.root, "new", { type: "file" });
    fs.rename({ parent: INO.root, name: "new" }, { parent: INO.root, name: "replaced" });
    await writer.checkpoint();
  });
  const [a, b] = [volume.fileSystem(before), volume.fileSystem(volume.current)];
  assertEquals([...diffTrees(a, b)].map(lineOf), [
    "removed /d directory",
    "removed /d/e directory",
    "removed /d/e/deep file",
    "changed /file file",
    "changed /linked file",
    "created /moved directory",
    "created /moved/e directory",
    "created /moved/e/deep file",
    "changed /replaced file",
    "removed /turned file",
    "created /turned directory",
  ]);
  assertEquals([...diffTrees(a, a)], []);
  // The file and its second name, the two that were replaced, and the one with another type.
  assertEquals(countChanged(a, b), 4);
  await volume.close();
});

test("diffTrees of two large trees that hardly differ reads little of them", async () => {
  const store = new FaultStore(new MemoryStore(40_000));
  let volume = await Volume.create(store, { now: tickingClock() });
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    for (let i = 0; i < 100; i++) {
      const parent = fs.create(INO.root, `d${i}`, { type: "directory" });
      for (let j = 0; j < 200; j++) fs.create(parent, `file ${j}`, { type: "file" });
    }
    await writer.takeSnapshot("before");
    const file = fs.resolve("/d3/file 77");
    fs.write(file, 0, new Uint8Array([1]));
    await writer.takeSnapshot("after");
  });
  await volume.close();
  volume = Volume.open(store);
  store.counts.read = 0;
  const [a, b] = ["before", "after"].map((name) => volume.fileSystem(volume.resolve(name)));
  assertEquals([...diffTrees(a, b)].map(lineOf), ["changed /d3/file 77 file"]);
  // 20,000 inodes lie in 1,250 blocks, and their names in some 250 more.
  assert(store.counts.read < 60, `${store.counts.read} reads`);
  await volume.close();
});
