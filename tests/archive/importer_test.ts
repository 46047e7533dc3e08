import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import {
  type ImportOptions,
  type ImportReport,
  importTree,
  type TreeEntry,
  UnreadableEntry,
} from "../../src/archive/mod.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { fsck, type Volume } from "../../src/volume/mod.ts";
import {
  edited,
  EDITS,
  entriesOf,
  newVolume,
  pictureOf,
  pictureOfVolume,
  type Tree,
} from "./trees.ts";
import { test } from "../helpers/strict.ts";

const RUNS = { numRuns: 150 };

async function bring(
  volume: Volume,
  entries: Iterable<TreeEntry> | AsyncIterable<TreeEntry>,
  options: ImportOptions = {},
): Promise<ImportReport & { dirty: boolean }> {
  return await volume.exclusive(async (writer) => {
    const report = await importTree(writer, entries, options);
    const dirty = writer.isDirty;
    await writer.checkpoint();
    return { ...report, dirty };
  });
}

function active(volume: Volume) {
  return volume.fileSystem(volume.current);
}

function assertClean(volume: Volume): void {
  assertEquals(fsck(volume).findings, []);
}

function file(path: string, text: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const content = new TextEncoder().encode(text);
  return {
    path,
    type: "file",
    permissions: 0o644,
    uid: 1,
    gid: 1,
    mtime: 5n,
    size: content.length,
    read: () => [content],
    ...more,
  };
}

function directory(path: string, more: Partial<TreeEntry> = {}): TreeEntry {
  return {
    path,
    type: "directory",
    permissions: 0o755,
    uid: 1,
    gid: 1,
    mtime: 9n,
    size: 0,
    ...more,
  };
}

function text(volume: Volume, path: string): string {
  const fs = active(volume);
  const ino = fs.resolve(path);
  const bytes = new Uint8Array(fs.stat(ino).size);
  fs.read(ino, 0, bytes);
  return new TextDecoder().decode(bytes);
}

test("importTree() with prune makes the volume equal to any tree, release after release", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(EDITS, { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (releases, checksum) => {
        const volume = await newVolume();
        let tree: Tree = new Map();
        for (const edits of releases) {
          tree = edited(tree, edits);
          const report = await bring(volume, entriesOf(tree), { prune: true, checksum });
          assertEquals(await pictureOfVolume(active(volume)), await pictureOf(entriesOf(tree)));
          assertEquals(report.created + report.changed + report.unchanged, tree.size);
          assertClean(volume);
        }
        await volume.close();
      },
    ),
    RUNS,
  );
});

test("importTree() with prune leaves just what a tree names, in any order and told twice", async () => {
  await fc.assert(
    fc.asyncProperty(EDITS, EDITS, fc.nat(), async (first, second, seed) => {
      const volume = await newVolume();
      const before = edited(new Map(), first);
      const after = edited(before, second);
      await bring(volume, entriesOf(before), { prune: true });
      await bring(volume, jumbled([...entriesOf(after)], seed), { prune: true });
      assertEquals(await pictureOfVolume(active(volume)), await pictureOf(entriesOf(after)));
      assertClean(volume);
      await volume.close();
    }),
    RUNS,
  );
});

/** Directories before what is in them and files before their further names; some entries again. */
function jumbled(entries: TreeEntry[], seed: number): TreeEntry[] {
  const random = () => (seed = Math.imul(seed, 1664525) + 1013904223 >>> 0) / 2 ** 32;
  const first = new Set(entries.map(({ linkTo }) => linkTo));
  const again = entries.filter(({ path, linkTo }) =>
    linkTo === undefined && !first.has(path) && random() < 0.3
  );
  const rank = ({ type, path, linkTo }: TreeEntry) =>
    linkTo !== undefined ? 99 : type === "directory" ? path.split("/").length : 98;
  return [...entries, ...again]
    .map((entry) => ({ entry, at: rank(entry) + random() * 0.9 }))
    .sort((a, b) => a.at - b.at).map(({ entry }) => entry);
}

test("importTree() with prune removes what a directory had besides, left and entered again", async () => {
  const volume = await newVolume();
  await bring(volume, [
    directory("d"),
    file("d/a", "a"),
    directory("d/e"),
    directory("d/x"),
    file("d/x/y", "y"),
    file("d/z", "z"),
  ]);
  const tree = [
    directory("d"),
    file("d/a", "a"),
    directory("d/e"),
    file("d/e/f", "f"),
    // As many as there were when it was left.
    file("d/v", "v"),
    file("d/w", "w"),
    file("d/x", "x"),
  ];
  await bring(volume, tree, { prune: true });
  assertEquals(
    Object.keys(await pictureOfVolume(active(volume))),
    ["", "d", "d/a", "d/e", "d/e/f", "d/v", "d/w", "d/x"],
  );
  await bring(volume, [directory("d"), file("d/a", "a"), file("d/c", "c")], { prune: true });
  const unreadable = (path: string) =>
    file(path, "never", {
      mtime: 7n,
      read: () => {
        throw new UnreadableEntry("permission denied");
      },
    });
  // A new file that cannot be read is no name there, an old one is.
  await bring(volume, [directory("d"), unreadable("d/a"), unreadable("d/b")], { prune: true });
  assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "d", "d/a"]);
  // A name that comes twice is one.
  await bring(volume, [directory("d"), file("d/a", "a"), file("d/b", "b")], { prune: true });
  await bring(volume, [directory("d"), file("d/a", "a"), file("d/a", "a")], { prune: true });
  assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "d", "d/a"]);
  assertClean(volume);
  await volume.close();
});

test("importTree() of an equal tree leaves the volume clean", async () => {
  await fc.assert(
    fc.asyncProperty(EDITS, fc.boolean(), async (edits, checksum) => {
      const volume = await newVolume();
      const tree = edited(new Map(), edits);
      await bring(volume, entriesOf(tree), { prune: true });
      const { cp } = volume.root;
      const report = await bring(volume, entriesOf(tree), { prune: true, checksum });
      assertEquals(report.dirty, false);
      assertEquals(report.unchanged, tree.size);
      assertEquals(volume.root.cp, cp);
      if (!checksum) assertEquals(report.bytesRead, 0);
      await volume.close();
    }),
    RUNS,
  );
});

test("importTree() takes files that the sender knows to be unchanged without their content", async () => {
  await fc.assert(
    fc.asyncProperty(EDITS, EDITS, async (first, second) => {
      const volume = await newVolume();
      const before = edited(new Map(), first);
      await bring(volume, entriesOf(before), { prune: true });
      const after = edited(before, second);
      const known = (entry: TreeEntry): TreeEntry => {
        const node = before.get(entry.path);
        const same = entry.type === "file" && entry.linkTo === undefined && node?.type === "file" &&
          node.content.length === entry.size && node.mtime === entry.mtime;
        const { read: _, ...header } = entry;
        return same ? { ...header, unchanged: true } : entry;
      };
      await bring(volume, entriesOf(after, known), { prune: true });
      assertEquals(await pictureOfVolume(active(volume)), await pictureOf(entriesOf(after)));
      assertClean(volume);
      await volume.close();
    }),
    RUNS,
  );
});

test("importTree() refuses an unchanged file that the volume has otherwise", async () => {
  const volume = await newVolume();
  await bring(volume, [file("a", "one")]);
  for (const entry of [file("a", "on"), file("b", "one"), file("a", "one", { mtime: 6n })]) {
    const error = await assertRejects(
      () => bring(volume, [{ ...entry, unchanged: true }]),
      VolcastError,
    );
    assertEquals(error.kind, "diverged");
    assertStringIncludes(error.message, JSON.stringify(entry.path));
  }
  await volume.close();
});

test("importTree() without prune keeps what the tree does not name", async () => {
  const volume = await newVolume();
  await bring(volume, [file("a", "a"), directory("d"), file("d/b", "b")]);
  await bring(volume, [directory("d"), file("d/c", "c")]);
  assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "a", "d", "d/b", "d/c"]);
  await bring(volume, [directory("d"), file("d/c", "c")], { prune: true });
  assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "d", "d/c"]);
  assertClean(volume);
  await volume.close();
});

test("importTree() into a directory touches nothing beside it", async () => {
  const volume = await newVolume();
  await bring(volume, [file("a", "a"), directory("d"), file("d/b", "b")]);
  const before = await pictureOfVolume(active(volume));
  const report = await bring(volume, [directory(""), file("x", "x")], {
    into: "/new/place",
    prune: true,
  });
  assertEquals(report.removed, 0);
  assertEquals(text(volume, "new/place/x"), "x");
  const after = await pictureOfVolume(active(volume));
  assertEquals([after["a"], after["d/b"]], [before["a"], before["d/b"]]);
  const error = await assertRejects(() => bring(volume, [], { into: "a/b" }), VolcastError);
  assertEquals(error.kind, "exists");
  await assertRejects(() => bring(volume, [], { into: "../x" }), VolcastError, "..");
  assertClean(volume);
  await volume.close();
});

test("importTree() leaves other names of a file alone when it changes one", async () => {
  const volume = await newVolume();
  const old = "o".repeat(9000);
  await bring(volume, [
    file("a", old),
    file("b", "", { linkTo: "a" }),
    directory("d"),
    file("d/c", "", { linkTo: "a" }),
  ]);
  // The begin is equal, so that the new file is cut from the old one.
  const changed = old.slice(0, 5000) + "n".repeat(4000);
  await bring(volume, [file("b", changed, { mtime: 6n, read: () => chunksOf(changed, 4096) })]);
  assertEquals([text(volume, "a"), text(volume, "b"), text(volume, "d/c")], [old, changed, old]);
  assertEquals(active(volume).stat(active(volume).resolve("a")).nlink, 2);
  assertClean(volume);
  await volume.close();
});

function* chunksOf(content: string, size: number): Generator<Uint8Array> {
  const bytes = new TextEncoder().encode(content);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("importTree() keeps the places of equal blocks", async () => {
  const volume = await newVolume();
  const blocks = Array.from({ length: 100 }, (_, i) => String(i % 10).repeat(4096));
  await bring(volume, [file("big", blocks.join(""))]);
  const pointers = () => {
    const { tree } = active(volume).open(active(volume).resolve("big"));
    return blocks.map((_, i) => tree.pointer(i).vbn);
  };
  const before = pointers();
  blocks[50] = "x".repeat(4096);
  await bring(volume, [file("big", blocks.join(""), { mtime: 6n })]);
  const moved = pointers().flatMap((vbn, i) => vbn === before[i] ? [] : [i]);
  assertEquals(moved, [50]);
  await volume.close();
});

test("importTree() keeps zeros as holes and cuts files to their size", async () => {
  const volume = await newVolume();
  const zeros = new Uint8Array(2 ** 20);
  const used = () => volume.root.blockCount;
  await bring(volume, [file("a", "x".repeat(300_000))]);
  const before = used();
  await bring(volume, [{
    ...file("a", ""),
    mtime: 6n,
    size: 3 * 2 ** 20,
    read: () => [zeros, zeros, zeros],
  }]);
  assert(used() < before - 60);
  assertEquals(active(volume).stat(active(volume).resolve("a")).size, 3 * 2 ** 20);
  await bring(volume, [file("a", "short", { mtime: 7n })]);
  assertEquals(text(volume, "a"), "short");
  assertClean(volume);
  await volume.close();
});

test("importTree() refuses names that lead out, and names the entry", async () => {
  const volume = await newVolume();
  const link = { type: "symlink", target: "/", size: 1 } as const;
  const bad: [string, TreeEntry[]][] = [
    ["..", [file("../a", "x")]],
    ["..", [directory("d"), file("d/..", "x")]],
    ["..", [directory("d"), file("d/../../x", "x")]],
    ["absolute", [file("/etc/passwd", "x")]],
    ["NUL", [file("a\0b", "x")]],
    ["bytes", [file("n".repeat(256), "x")]],
    ["UTF-8", [file("a\ufffd", "x")]],
    ["Unicode", [file("a\ud800", "x")]],
    ["empty", [directory("d"), file("d/", "x")]],
    ["not a directory", [file("l", "", link), file("l/x", "x")]],
    ["not there", [file("none/x", "x")]],
    ["before it", [file("a", "", { linkTo: "b" })]],
    ["..", [file("a", "", { linkTo: "../b" })]],
    ["before it", [directory("d"), file("a", "", { linkTo: "d" })]],
  ];
  for (const [reason, entries] of bad) {
    const error = await assertRejects(() => bring(volume, entries), VolcastError, reason);
    assertEquals(error.kind, "usage");
    assertStringIncludes(
      error.message,
      JSON.stringify(entries.at(-1)!.path.slice(0, 150)).slice(0, -1),
    );
  }
  await volume.checkpoint();
  assertClean(volume);
  await volume.close();
});

test("importTree() on a full volume names the path and leaves snapshots as they were", async () => {
  const volume = await newVolume(2048);
  await bring(volume, [file("a", "first")]);
  await volume.exclusive((writer) => writer.takeSnapshot("one", { pointers: ["master"] }));
  const before = volume.resolve("one");
  const chunk = crypto.getRandomValues(new Uint8Array(65_536));
  const endless = Array.from({ length: 200 }, () => chunk.map((byte, i) => byte ^ (i >> 8)));
  const big = { ...file("big", ""), size: 200 * 65_536, read: () => endless };
  const error = await assertRejects(() => bring(volume, [file("a", "second"), big]), VolcastError);
  assertEquals(error.kind, "full");
  assertStringIncludes(error.message, '"big"');
  await volume.checkpoint();
  assertEquals(active(volume).lookup(2, "big"), undefined);
  assertEquals(volume.resolve("master").id, before.id);
  const fs = volume.fileSystem(before);
  assertEquals(
    new TextDecoder().decode(fs.open(fs.resolve("a")).inode.slots.subarray(0, 5)),
    "first",
  );
  assertClean(volume);
  await volume.close();
});

test("importTree() leaves no part of a new file whose content broke off", async () => {
  const volume = await newVolume();
  const bytes = new Uint8Array(300_000).fill(7);
  const breaks: Record<string, TreeEntry["read"]> = {
    "fewer bytes": () => [bytes],
    "an error": function* () {
      yield bytes;
      throw new VolcastError("io", "Cannot read it: the connection ended");
    },
  };
  for (const [what, read] of Object.entries(breaks)) {
    const broken = { ...file("new", ""), size: 400_000, read: read! };
    await assertRejects(() => bring(volume, [file("a", "whole"), broken]), VolcastError, "", what);
    await volume.checkpoint();
    assertEquals([...active(volume).list(2)].map(({ name }) => name), ["a"], what);
    assertClean(volume);
  }
  await volume.close();
});

test("importTree() leaves out what cannot be read, and keeps what is there of it", async () => {
  const volume = await newVolume();
  await bring(volume, [file("a", "old")]);
  const unreadable = (path: string) =>
    file(path, "new!", {
      read: () => {
        throw new UnreadableEntry("permission denied");
      },
    });
  const report = await bring(volume, [unreadable("a"), unreadable("b"), file("c", "c")], {
    prune: true,
  });
  assertEquals(report.skipped, [
    { path: "a", reason: "permission denied" },
    { path: "b", reason: "permission denied" },
  ]);
  assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "a", "c"]);
  assertEquals(text(volume, "a"), "old");
  await volume.close();
});

test("importTree() refuses content of another length than announced", async () => {
  const volume = await newVolume();
  for (const size of [2, 4]) {
    await assertRejects(
      () => bring(volume, [file("a", "abc", { size, mtime: BigInt(size) })]),
      VolcastError,
      "announced",
    );
  }
  await volume.close();
});

test("importTree() takes a name that comes twice as the last one says", async () => {
  const volume = await newVolume();
  const entries = [
    directory("d"),
    file("d/a", "one"),
    file("x", "", { linkTo: "d/a" }),
    file("d", "now a file"),
    directory("e"),
    file("e/y", "y"),
    file("x", "two", { mtime: 6n }),
  ];
  for (let round = 0; round < 2; round++) {
    await bring(volume, entries, { prune: true });
    assertEquals(Object.keys(await pictureOfVolume(active(volume))), ["", "d", "e", "e/y", "x"]);
    assertEquals([text(volume, "d"), text(volume, "x")], ["now a file", "two"]);
    assertClean(volume);
  }
  await volume.close();
});

test("importTree() works through many files with little in memory", async () => {
  const volume = await newVolume(65_536);
  function* many(count: number): Generator<TreeEntry> {
    for (let d = 0; d < count / 100; d++) {
      yield directory(`d${d}`);
      for (let i = 0; i < 100; i++) yield file(`d${d}/f${i}`, `content ${d} ${i} `.repeat(20));
    }
  }
  const report = await bring(volume, many(20_000), { prune: true });
  assertEquals(report.files, 20_000);
  const less = await bring(volume, many(10_000), { prune: true });
  assertEquals([less.unchanged, less.removed], [10_100, 10_100]);
  assertClean(volume);
  await volume.close();
});
