import { assert, assertEquals, assertThrows } from "@std/assert";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import { checksum, ENTRY_TYPES, FILE_TYPE } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type LiveFileSystem, Volume } from "../../src/volume/mod.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

/** Runs something on a new file system; what comes out must be clean. */
async function live(work: (fs: LiveFileSystem) => void): Promise<void> {
  const volume = await Volume.create(new MemoryStore(2000), { now: tickingClock() });
  await volume.exclusive(({ fs }) => work(fs));
  await volume.checkpoint();
  assertClean(volume);
  await volume.close();
}

function refuse(work: () => unknown, kind: ErrorKind): void {
  const error = assertThrows(work, VolcastError);
  assertEquals(error.kind, kind, error.message);
}

test("FileSystem.resolve follows names and links, and keeps inside", () =>
  live((fs) => {
    const a = fs.create(2, "a", { type: "directory" });
    const b = fs.create(a, "b", { type: "directory" });
    const file = fs.create(b, "file", { type: "file" });
    const link = (parent: number, name: string, target: string) =>
      fs.create(parent, name, { type: "symlink", target });
    const last = link(2, "to-file", "a/b/file");
    link(2, "to-b", "/a/b");
    link(b, "up", "..");
    link(b, "out", "../../../../a");
    link(2, "dangling", "nowhere");
    link(2, "loop", "loop");
    link(2, "x", "y");
    link(2, "y", "x");
    const found: [path: string, ino: number][] = [
      ["/", 2],
      ["", 2],
      ["a", a],
      ["/a/", a],
      ["//a//./b", b],
      ["a/b/file", file],
      ["to-file", file],
      ["to-b/file", file],
      ["a/b/up", a],
      ["a/b/up/b/up/b/file", file],
      // Above the root is the root.
      ["a/b/out", a],
    ];
    for (const [path, ino] of found) assertEquals(fs.resolve(path), ino, path);
    assertEquals(fs.resolve("to-file", { followLast: false }), last);
    assertEquals(fs.readLink(last), "a/b/file");
    for (
      const path of ["c", "a/c", "to-file/x", "a/b/file/x", "dangling", "loop", "x", "a/b/c/d"]
    ) {
      refuse(() => fs.resolve(path), "not-found");
    }
    for (const path of ["..", "a/../b", "/..", "a\0b"]) refuse(() => fs.resolve(path), "usage");
    let chain = "a";
    for (let i = 0; i < 40; i++) {
      link(2, `chain${i}`, chain);
      chain = `chain${i}`;
    }
    assertEquals(fs.resolve("chain39"), a);
    link(2, "chain40", "chain39");
    refuse(() => fs.resolve("chain40"), "not-found");
  }));

test("LiveFileSystem makes every type of file with its attributes", () =>
  live((fs) => {
    for (const [i, type] of ENTRY_TYPES.entries()) {
      const ino = fs.create(2, type, {
        type,
        target: type === "symlink" ? "x" : "",
        permissions: 0o1234,
        uid: 2 ** 32 - 1,
        gid: i,
        rdev: type.endsWith("Device") ? 2 ** 40 + i : 0,
        atime: 1n,
        mtime: -2n,
        btime: 2n ** 62n,
        dos: 0x27,
      });
      const info = fs.stat(ino);
      assertEquals(info.type, type);
      assertEquals(info.mode, FILE_TYPE[type] | 0o1234);
      assertEquals([info.uid, info.gid, info.dos], [2 ** 32 - 1, i, 0x27]);
      assertEquals([info.atime, info.btime], [1n, 2n ** 62n]);
      if (type === "file") assertEquals(info.mtime, -2n);
      assertEquals(info.rdev, type.endsWith("Device") ? 2 ** 40 + i : 0);
      assertEquals(fs.directory(2).find(type), { name: type, ino, type });
    }
    assertEquals(fs.stat(2).nlink, 3);
  }));

test("LiveFileSystem refuses what would break a rule, and changes nothing", () =>
  live((fs) => {
    const a = fs.create(2, "a", { type: "directory" });
    const file = fs.create(a, "file", { type: "file" });
    const names = () => [...fs.list(2), ...fs.list(a)].map(({ name }) => name);
    const before = names();
    for (const name of ["", ".", "..", "a/b", "a\0", "x".repeat(256)]) {
      refuse(() => fs.create(2, name, { type: "file" }), "usage");
      refuse(() => fs.link(2, name, file), "usage");
      refuse(() => fs.rename({ parent: a, name: "file" }, { parent: 2, name }), "usage");
    }
    refuse(() => fs.create(2, "a", { type: "file" }), "exists");
    refuse(() => fs.create(file, "b", { type: "file" }), "usage");
    refuse(() => fs.create(2, "l", { type: "symlink", target: "x".repeat(4096) }), "usage");
    refuse(() => fs.link(2, "b", a), "usage");
    refuse(() => fs.link(2, "a", file), "exists");
    refuse(() => fs.remove(2, "a"), "usage");
    refuse(() => fs.remove(2, "b"), "not-found");
    refuse(() => fs.rename({ parent: 2, name: "b" }, { parent: 2, name: "c" }), "not-found");
    refuse(() => fs.rename({ parent: 2, name: "a" }, { parent: a, name: "c" }), "usage");
    refuse(() => fs.rename({ parent: a, name: "file" }, { parent: 2, name: "a" }), "exists");
    const xattrs = new Map([["n".repeat(256), new Uint8Array(1)]]);
    refuse(() => fs.setExtendedAttributes(file, { xattrs }), "usage");
    const large = new Map([["n", new Uint8Array(1024 * 1024)]]);
    refuse(() => fs.setExtendedAttributes(file, { xattrs: large }), "usage");
    refuse(() => fs.list(file).next(), "usage");
    assertEquals(names(), before);
  }));

test("LiveFileSystem.removeTree removes all below, links in it only as names", () =>
  live((fs) => {
    const keep = fs.create(2, "keep", { type: "file" });
    const top = fs.create(2, "top", { type: "directory" });
    let here = top;
    for (let depth = 0; depth < 20; depth++) {
      for (let i = 0; i < 5; i++) fs.create(here, `file${i}`, { type: "file" });
      fs.link(here, "keep", keep);
      fs.create(here, "link", { type: "symlink", target: "/keep" });
      here = fs.create(here, "down", { type: "directory" });
    }
    for (let i = 0; i < 2500; i++) fs.create(here, `many${i}`, { type: "fifo" });
    assertEquals(fs.stat(keep).nlink, 21);
    fs.removeTree(2, "top");
    assertEquals([...fs.list(2)].map(({ name }) => name), ["keep"]);
    assertEquals(fs.stat(keep).nlink, 1);
    fs.removeTree(2, "keep");
    assertEquals([...fs.list(2)], []);
    assertEquals(fs.inodeCount, 1);
  }));

test("an inode number that is used again has another generation and none of the old content", () =>
  live((fs) => {
    const ino = fs.create(2, "a", { type: "file" });
    fs.write(ino, 0, new Random(1).bytes(100_000));
    fs.setExtendedAttributes(ino, { xattrs: new Map([["user.a", new Uint8Array(9)]]) });
    const { generation } = fs.stat(ino);
    fs.remove(2, "a");
    assertThrows(() => fs.stat(ino), VolcastError);
    const again = fs.create(2, "b", { type: "file" });
    assertEquals(again, ino);
    assertEquals(fs.stat(again).generation, generation + 1);
    assertEquals([fs.stat(again).size, fs.attributes(again).xattrs.size], [0, 0]);
    fs.truncate(again, 100_000);
    assert(fs.readAll(again).every((byte) => byte === 0));
  }));

test("what was cut off does not come back, in the inode or in blocks", () =>
  live((fs) => {
    const sizes = [0, 1, 100, 127, 128, 129, 4095, 4096, 4097, 9000];
    for (const [i, long] of sizes.entries()) {
      for (const short of sizes.slice(0, i)) {
        for (const again of sizes) {
          const ino = fs.create(2, `${long}-${short}-${again}`, { type: "file" });
          fs.write(ino, 0, new Uint8Array(long).fill(7));
          fs.truncate(ino, short);
          if (again > short) fs.write(ino, again - 1, new Uint8Array([9]));
          const expected = new Uint8Array(Math.max(short, again)).fill(7, 0, short);
          if (again > short) expected[again - 1] = 9;
          assertEquals(fs.readAll(ino), expected);
          fs.truncate(ino, short);
          fs.truncate(ino, again);
          assertEquals(fs.readAll(ino), new Uint8Array(again).fill(7, 0, Math.min(short, again)));
          fs.remove(2, `${long}-${short}-${again}`);
        }
      }
    }
  }));

test("extended attributes give back what they do not need any more", async () => {
  const volume = await Volume.create(new MemoryStore(600), { now: tickingClock() });
  const inUse = () => volume.current.blockCount;
  const set = (byteCount: number) =>
    volume.exclusive(async (writer) => {
      const ino = writer.fs.lookup(2, "a") ?? writer.fs.create(2, "a", { type: "file" });
      const xattrs = byteCount === 0 ? [] : [["user.a", new Uint8Array(byteCount)] as const];
      writer.fs.setExtendedAttributes(ino, { xattrs: new Map(xattrs) });
      await writer.checkpoint();
    });
  await set(0);
  const none = inUse();
  await set(40_000);
  assertEquals(inUse(), none + 11);
  await set(4000);
  assertEquals(inUse(), none + 1);
  await set(0);
  assertEquals(inUse(), none);
  assertClean(volume);
  await volume.close();
});

test("LiveFileSystem.read ends at the end of the file", () =>
  live((fs) => {
    const ino = fs.create(2, "a", { type: "file" });
    const bytes = new Random(1).bytes(10_000);
    fs.write(ino, 0, bytes);
    const target = new Uint8Array(5000);
    assertEquals(fs.read(ino, 8000, target), 2000);
    assertEquals(target.subarray(0, 2000), bytes.subarray(8000));
    assertEquals(target.subarray(2000), new Uint8Array(3000));
    assertEquals(fs.read(ino, 10_000, target), 0);
    assertEquals(fs.read(ino, 99_999, target), 0);
    assertEquals(fs.read(ino, 0, new Uint8Array(0)), 0);
  }));

test("LiveFileSystem keeps the security descriptor beside extended attributes", () =>
  live((fs) => {
    const ino = fs.create(2, "a", { type: "file" });
    const attributes = {
      xattrs: new Map([["user.a", new Uint8Array([1])], [
        "system.posix_acl_access",
        new Uint8Array(0),
      ]]),
      securityDescriptor: new Random(1).bytes(5000),
    };
    fs.setExtendedAttributes(ino, attributes);
    fs.settleAll();
    const read = fs.attributes(ino);
    assertEquals(new Map([...read.xattrs].sort()), new Map([...attributes.xattrs].sort()));
    assertEquals(read.securityDescriptor, attributes.securityDescriptor);
  }));

test("a damaged block can be written over, also with what it should hold", async () => {
  const store = new MemoryStore(400);
  const volume = await Volume.create(store, { now: tickingClock(), cacheBytes: 0 });
  const content = new Random(1).bytes(3 * 4096);
  const vbn = await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "a", { type: "file" });
    writer.fs.write(ino, 0, content);
    await writer.checkpoint();
    return writer.fs.open(ino).tree.pointer(1).vbn;
  });
  store.write(vbn, new Uint8Array(4096));
  await volume.exclusive(async (writer) => {
    writer.fs.write(writer.fs.resolve("/a"), 0, content);
    await writer.checkpoint();
  });
  assertClean(volume);
  const view = volume.view();
  const target = new Uint8Array(content.length);
  view.fs.read(view.fs.resolve("/a"), 0, target);
  assertEquals(target, content);
  view.release();
  await volume.close();
});

test("a file has 16 TiB at most, nearly all of them a hole", () =>
  live((fs) => {
    const ino = fs.create(2, "a", { type: "file" });
    const far = 2 ** 44 - 4096;
    fs.write(ino, far, new Uint8Array(4096).fill(7));
    assertEquals(fs.stat(ino).size, 2 ** 44);
    const target = new Uint8Array(8192);
    assertEquals(fs.read(ino, far - 4096, target), 8192);
    assertEquals([target[0], target[4095], target[4096]], [0, 0, 7]);
    assertEquals(fs.read(ino, 2 ** 40, target), 8192);
    assert(target.every((byte) => byte === 0));
    for (const size of [2 ** 44 + 1, 2 ** 53, 2 ** 60, -1, 0.5, NaN]) {
      refuse(() => fs.truncate(ino, size), "usage");
      refuse(() => fs.write(ino, size, new Uint8Array(1)), "usage");
    }
    refuse(() => fs.write(ino, far, new Uint8Array(4097)), "usage");
    assertEquals(fs.stat(ino).size, 2 ** 44);
    fs.truncate(ino, 5);
    assertEquals(fs.readAll(ino), new Uint8Array(5));
  }));

test("content with the checksum of what was there before is written all the same", async () => {
  // The generator of CRC-32 itself, laid over a block, changes its bits and not its checksum.
  const generator = (0x104c11db7).toString(2);
  const [a, b] = [new Random(1).bytes(4096), new Random(1).bytes(4096)];
  for (const [i, bit] of [...generator].entries()) {
    if (bit === "1") b[100 + (i >> 3)] ^= 1 << (i & 7);
  }
  assertEquals(checksum(a), checksum(b));
  await live((fs) => {
    const ino = fs.create(2, "a", { type: "file" });
    fs.write(ino, 0, a);
    fs.write(ino, 0, b);
    assertEquals(fs.readAll(ino), b);
  });
});
