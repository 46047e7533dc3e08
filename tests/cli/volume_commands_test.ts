import { assert, assertEquals, assertMatch } from "@std/assert";
import { encodeSuperblock, SUPERBLOCK_LAYOUT } from "../../src/format/mod.ts";
import { checksum } from "../../src/format/mod.ts";
import { FileStore } from "../../src/store/mod.ts";
import { readSuperblock } from "../../src/volume/mod.ts";
import {
  command,
  fails,
  inDirectory,
  json,
  makeTree,
  ok,
  serving,
  volcast,
} from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

/** A volume with two releases. */
async function withVolume(
  work: (site: string, directory: string) => Promise<void>,
): Promise<void> {
  await inDirectory(async (directory) => {
    const site = `${directory}/site.vol`;
    const tree = `${directory}/tree`;
    await ok("init", site, "--size", "8MiB");
    await makeTree(tree, {
      "index.html": "<h1>june 3</h1>\n",
      "css/a.css": "a{}\n",
      "css/b.css": "b{}\n",
      "large": new Uint8Array(300_000).fill(7),
    });
    await Deno.symlink("index.html", `${tree}/link`);
    await ok("publish", site, tree, "--as", "june3");
    await makeTree(tree, { "index.html": "<h1>june 5, longer</h1>\n", "new": "new\n" });
    await ok("publish", site, tree, "--as", "june5");
    await work(site, directory);
  });
}

test("init makes a sparse volume of the size asked for, and never twice", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    const made = await json("init", path, "--size", "4GiB");
    assertEquals(made.capacityBytes, 2 ** 32);
    assertEquals(made.capacityBlocks, 2 ** 20);
    assertMatch(made.id, /^[0-9a-f]{32}$/);
    const { size, blocks } = await Deno.stat(path);
    assertEquals(size, 2 ** 32);
    assert(blocks! * 512 < 2 ** 20, `${blocks} blocks on disk`);
    await fails(1, /it exists already/, "init", path, "--size", "4GiB");
    assertEquals((await json("info", path)).volume.id, made.id);

    assertMatch(await ok("init", `${directory}/b.vol`, "-s", "1048577"), /Made .*1052672 bytes/);
  });
});

test("init refuses bad sizes, URLs and directories that are not there", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    await fails(2, /--size is missing/, "init", path);
    await fails(2, /--size 'large': it is not a size/, "init", path, "--size", "large");
    for (const size of ["0", "1048575", "17TiB"]) {
      await fails(2, /the least is 1MiB, the most 16TiB/, "init", path, "--size", size);
    }
    await fails(2, /a file of the host/, "init", "http://127.0.0.1:1", "--size", "1GiB");
    await fails(1, /no such file or directory/, "init", `${directory}/no/a.vol`, "--size", "1MiB");
    assertEquals([...Deno.readDirSync(directory)], []);
  });
});

test("ls lists names, details and JSON, of any snapshot", async () => {
  await withVolume(async (site) => {
    assertEquals(await ok("ls", site), "css\nindex.html\nlarge\nlink\nnew\n");
    assertEquals(await ok("ls", site, "/", "--at", "june3"), "css\nindex.html\nlarge\nlink\n");
    assertEquals(await ok("ls", site, "css"), "a.css\nb.css\n");
    assertEquals(await ok("ls", site, "/css/a.css"), "a.css\n");
    const long = (await ok("ls", site, "--long")).trimEnd().split("\n");
    assertMatch(long[0], /^drwx\S+ {2}1? *2? .* css$/);
    assertMatch(long[2], /^-rw\S+ +1 +\d+ +\d+ +300000 {2}\d{4}-\d\d-\d\dT\S+Z +large$/);
    assertMatch(long[3], /^l.* link -> index.html$/);
    const listing = await json("ls", site, "/css", "--at", "june3");
    assertEquals([listing.path, listing.at], ["/css", "june3"]);
    // deno-lint-ignore no-explicit-any
    assertEquals(listing.entries.map((entry: any) => [entry.path, entry.type, entry.size]), [
      ["/css/a.css", "file", 4],
      ["/css/b.css", "file", 4],
    ]);
    assertMatch(listing.entries[0].mtime, /^\d{19}$/);
    await ok("snapshot", "create", site, "later");
    await fails(1, /Cannot find '\/nope'/, "ls", site, "/nope");
    await fails(
      1,
      /snapshot or pointer 'june9'\nThere are: june3, june5/,
      "ls",
      site,
      "--at",
      "june9",
    );
    await fails(2, /contains '\.\.'/, "ls", site, "/../etc");
  });
});

test("ls of an empty directory prints nothing, and an empty list as JSON", async () => {
  await inDirectory(async (directory) => {
    await ok("init", `${directory}/a.vol`, "--size", "1MiB");
    assertEquals(await ok("ls", `${directory}/a.vol`), "");
    assertEquals(await json("ls", `${directory}/a.vol`), { path: "/", at: null, entries: [] });
  });
});

test("cat writes content as it is, following links", async () => {
  await withVolume(async (site) => {
    assertEquals(await ok("cat", site, "/index.html"), "<h1>june 5, longer</h1>\n");
    assertEquals(await ok("cat", site, "link", "--at", "june3"), "<h1>june 3</h1>\n");
    const { bytes } = await volcast("cat", site, "large");
    assertEquals(bytes, new Uint8Array(300_000).fill(7));
    await fails(2, /'css': it is a directory/, "cat", site, "css");
    await fails(1, /Cannot find 'none'/, "cat", site, "none");
  });
});

test("stat tells what is known, of links themselves", async () => {
  await withVolume(async (site) => {
    const file = await json("stat", site, "/css/a.css");
    assertEquals([file.path, file.name, file.type, file.size, file.nlink], [
      "/css/a.css",
      "a.css",
      "file",
      4,
      1,
    ]);
    const link = await json("stat", site, "link");
    assertEquals([link.type, link.target], ["symlink", "index.html"]);
    const text = await ok("stat", site, "/large");
    assertMatch(text, /^size +300000 bytes \(292.97 KiB\)$/m);
    assertMatch(text, /^mode +0\d{3} \(-rw.*\)$/m);
    assertMatch(text, /^modified +\d{4}-\d\d-\d\dT/m);
    assertMatch(await ok("stat", site, "/"), /^type +directory$/m);
    await fails(1, /Cannot find/, "stat", site, "none");
  });
});

test("snapshots are taken, listed and deleted", async () => {
  await withVolume(async (site) => {
    const taken = await json(
      "snapshot",
      "create",
      site,
      "june6",
      "--pointer",
      "p",
      "--pointer",
      "q",
    );
    assertEquals(Object.keys(taken).sort(), [
      "blocks",
      "bytes",
      "cp",
      "id",
      "kind",
      "name",
      "pointers",
      "time",
    ]);
    assertEquals(taken.pointers.sort(), ["p", "q"]);
    assertMatch(await ok("snapshot", "create", site, "june7"), /^Took 'june7' \(\d+-[0-9a-f]{8}\)/);
    const { snapshots } = await json("snapshot", "list", site);
    // deno-lint-ignore no-explicit-any
    assertEquals(snapshots.map(({ name }: any) => name), ["june3", "june5", "june6", "june7"]);
    const lines = (await ok("snapshot", "list", site)).split("\n");
    assertMatch(lines[0], /^NAME +ID +KIND +TIME +BLOCKS +SIZE +POINTERS$/);
    assertMatch(lines[2], /^june5 +\d+-[0-9a-f]{8} +regular +\d{4}-.*Z +\d+ +\S+ KiB +master$/);

    assertEquals(await ok("snapshot", "delete", site, "june3"), "Deleted 'june3'\n");
    await fails(5, /'june5': the pointer 'master' names it/, "snapshot", "delete", site, "june5");
    await fails(
      1,
      /Cannot find a snapshot or pointer 'june3'/,
      "snapshot",
      "delete",
      site,
      "june3",
    );
    await fails(1, /there is a snapshot of this name/, "snapshot", "create", site, "june5");
    await fails(2, /as the name of a snapshot/, "snapshot", "create", site, "a b");
    await fails(2, /as the name of a snapshot/, "snapshot", "create", site, "n".repeat(256));
    await fails(2, /the word has a meaning/, "snapshot", "create", site, "active");
  });
});

test("snapshot shadow gives blocks back and keeps a base", async () => {
  await withVolume(async (site) => {
    const free = (await json("status", site)).volume.freeBlocks;
    await fails(5, /'june5': the pointer 'master' names it/, "snapshot", "shadow", site, "june5");
    assertMatch(
      await ok("snapshot", "shadow", site, "june3"),
      /^Made 'june3' \(\d+-[0-9a-f]{8}\) a shadow: \d+ blocks \(\d.* KiB\) may be used again$/m,
    );
    const status = await json("status", site);
    assert(status.volume.freeBlocks > free, `${status.volume.freeBlocks} after ${free}`);
    assertEquals([status.snapshots, status.shadows, status.pinnedBytes], [1, 1, {}]);
    assertMatch(await ok("status", site), /^shadows +1$/m);
    const lines = (await ok("snapshot", "list", site)).split("\n");
    assertMatch(lines[1], /^june3 +\d+-[0-9a-f]{8} +shadow +\d{4}/);
    const { snapshots } = await json("snapshot", "list", site);
    // deno-lint-ignore no-explicit-any
    assertEquals(snapshots.map(({ kind }: any) => kind), ["shadow", "regular"]);
    const says = /'june3': it is a shadow: its blocks may be used again/;
    await fails(2, says, "ls", site, "--at", "june3");
    await fails(2, says, "pointer", "set", site, "p", "june3");
    await fails(3, /'june3' \(\S+\): it is a shadow already/, "snapshot", "shadow", site, "june3");
    await fails(1, /Cannot find a snapshot/, "snapshot", "shadow", site, "none");
    await fails(1, /there is a snapshot of this name/, "snapshot", "create", site, "june3");
    const info = await json("info", site);
    // deno-lint-ignore no-explicit-any
    assertEquals(info.planeSpace.planes.map(({ name, kind }: any) => [name, kind]), [
      ["june3", "shadow"],
      ["june5", "regular"],
      ["active", "active"],
    ]);
    // 8 MiB are a sixteenth of what a page of plane covers.
    const { blockMaps, shadows } = info.planeSpace;
    assertEquals([blockMaps.pages, blockMaps.bitsPerBlock, blockMaps.bytes], [2, 32, 8192]);
    assertEquals([shadows.pages, shadows.bitsPerBlock, shadows.bytes], [1, 16, 4096]);
    const text = await ok("info", site);
    assertMatch(
      text,
      /^block maps +8192 bytes \(8 KiB\), 32.00 bits a block, for 2 file systems$/m,
    );
    assertMatch(text, /^shadow planes +4096 bytes \(4 KiB\), 16.00 bits a block$/m);
    assertMatch(text, /^june3 +shadow +\d+ +16.00$/m);
    assertMatch(await ok("fsck", site), /is clean/);
    assertEquals(await ok("snapshot", "delete", site, "june3"), "Deleted 'june3'\n");
    assertMatch(await ok("info", site), /^shadow planes +none$/m);
  });
});

test("pointers are set and listed", async () => {
  await withVolume(async (site) => {
    const set = await json("pointer", "set", site, "stable", "june3");
    assertEquals([set.name, set.snapshotName], ["stable", "june3"]);
    assertMatch(await ok("pointer", "set", site, "stable", "master"), /^stable -> june5 \(/);
    const { pointers } = await json("pointer", "list", site);
    // deno-lint-ignore no-explicit-any
    assertEquals(pointers.map(({ name, snapshotName }: any) => [name, snapshotName]), [
      ["master", "june5"],
      ["stable", "june5"],
    ]);
    assertMatch(await ok("pointer", "list", site), /^NAME +SNAPSHOT +ID\nmaster +june5 /);
    await fails(1, /'june9'/, "pointer", "set", site, "stable", "june9");
    await fails(1, /there is a snapshot of this name/, "pointer", "set", site, "june3", "june5");
  });
});

test("lists of nothing say so on standard error only", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    await ok("init", path, "--size", "1MiB");
    assertEquals(await volcast("snapshot", "list", path).then(({ out, err }) => [out, err]), [
      "",
      "There is no snapshot yet\n",
    ]);
    assertEquals(await ok("pointer", "list", path), "");
    assertEquals(await json("pointer", "list", path), { pointers: [] });
  });
});

test("plan counts exactly what image writes", async () => {
  await withVolume(async (site) => {
    const plan = await json("plan", site, "june5 - june3");
    assertEquals(plan.blockBytes, plan.blocks * 4096);
    assert(plan.blocks > 0 && plan.runs > 0 && plan.runs <= plan.blocks);
    const { bytes } = await volcast("image", site, "june5 - june3", "-o", "-");
    assertEquals(bytes.length, plan.bytes);
    const sum = await json("plan", site, "june5 + june3");
    const both = await json("plan", site, "june5 & june3");
    const one = await json("plan", site, "june5");
    assertEquals(sum.blocks, one.blocks + (await json("plan", site, "june3 - june5")).blocks);
    assertEquals(both.blocks, one.blocks - plan.blocks);
    assertMatch(await ok("plan", site, "june5"), /^blocks +\d+\nin blocks +\d+ bytes/);
    await fails(2, /it ends where a snapshot's name/, "plan", site, "june5 -");
    await fails(1, /pointer 'june9'/, "plan", site, "june5 - june9");
  });
});

test("fsck: clean is 0, damaged is 4, with the report as JSON", async () => {
  await withVolume(async (site, directory) => {
    const report = await json("fsck", site);
    assertEquals([report.clean, report.findings, report.findingCount], [true, [], 0]);
    assertEquals(report.files, 6);
    assertMatch(
      await ok("fsck", site),
      /is clean: \d+ blocks under \d roots, 6 files, 2 directories/,
    );

    // One flipped bit in the content of a file.
    const copy = `${directory}/copy.vol`;
    const bytes = await Deno.readFile(site);
    const at = findRun(bytes, 7, 4096);
    bytes[at + 100] ^= 1;
    await Deno.writeFile(copy, bytes);
    const damaged = await volcast("fsck", copy, "--json");
    assertEquals(damaged.code, 4);
    const found = JSON.parse(damaged.out);
    assertEquals(found.clean, false);
    assertMatch(found.findings[0].problem, /checksum/);
    const text = await volcast("fsck", copy);
    assertEquals(text.code, 4);
    assertMatch(text.out, /is damaged: \d+ findings?; /);
    await fails(4, /checksum/, "cat", copy, "/large");

    await fails(2, /reads all of the volume's file/, "fsck", "http://127.0.0.1:1");
  });
});

/** Where `count` equal bytes begin, at a block's start. */
function findRun(bytes: Uint8Array, value: number, count: number): number {
  for (let at = 0; at < bytes.length; at += 4096) {
    if (bytes.subarray(at, at + count).every((byte) => byte === value)) return at;
  }
  throw new Error("There is no such run");
}

test("info and status tell what a volume is", async () => {
  await withVolume(async (site) => {
    const info = await json("info", site);
    assertEquals(info.volume.role, "origin");
    assertEquals([info.formatVersion, info.blockSize], [1, 4096]);
    assertEquals([info.volume.capacityBytes, info.file.bytes], [8 * 2 ** 20, 8 * 2 ** 20]);
    assertEquals([info.current.name, info.master.name, info.snapshots], ["active", "june5", 2]);
    assertEquals(info.localZone.start, 2);
    assertEquals(info.localZone.start + info.localZone.blocks, info.dataStart);
    assert(info.volume.usedBlocks + info.volume.freeBlocks < info.volume.capacityBlocks);
    const text = await ok("info", site);
    assertMatch(text, /^role +origin$/m);
    assertMatch(text, /^master +june5 \(/m);
    assertMatch(text, /^local zone +\d+ blocks from VBN 2, data from VBN \d+$/m);
    const { volume, current } = await json("status", site);
    assertEquals({ volume, current }, { volume: info.volume, current: info.current });
    assertMatch(await ok("status", site), /^role +origin$/m);
    await fails(2, /it is a path/, "status", site, "--wait", "1s");
  });
});

test("what is not a volume, cut off, or of another version gets a clear error", async () => {
  await withVolume(async (site, directory) => {
    const path = `${directory}/bad.vol`;
    const commands = [["info"], ["ls"], ["fsck"], ["snapshot", "list"], ["status"]];
    const allFail = async (code: number, says: RegExp) => {
      for (const words of commands) await fails(code, says, ...words, path);
    };
    await allFail(1, /there is no such file or directory\nMake one with: volcast init/);
    await Deno.writeTextFile(path, "not a volume\n".repeat(100_000));
    await allFail(4, /bad\.vol: it has no valid superblock\nIt is not a volcast volume/);
    await Deno.writeTextFile(path, "");
    await allFail(4, /no valid superblock/);
    const unopened = await volcast("fsck", path, "--json");
    assertEquals([unopened.code, JSON.parse(unopened.out).clean], [4, false]);

    const bytes = await Deno.readFile(site);
    await Deno.writeFile(path, bytes.subarray(0, 2 * 2 ** 20));
    await allFail(4, /it has 2048 blocks, its file only 512\nThe file was cut off/);
    assertEquals((await Deno.stat(path)).size, 2 * 2 ** 20);

    await Deno.writeFile(path, withVersion(bytes, 99));
    await allFail(1, /its format version is 99, this program knows 1/);
    await Deno.remove(path);
    await Deno.mkdir(path);
    await fails(2, /.*/, "info", path).catch(() => fails(1, /bad\.vol/, "info", path));
  });
});

/** The volume's bytes with superblocks of another format version. */
function withVersion(bytes: Uint8Array, version: number): Uint8Array {
  const changed = bytes.slice();
  for (const slot of [0, 1]) {
    const block = changed.subarray(slot * 4096, (slot + 1) * 4096);
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
    view.setUint32(SUPERBLOCK_LAYOUT.offsetOf("version"), version, true);
    const at = SUPERBLOCK_LAYOUT.offsetOf("crc");
    view.setUint32(at, checksum(block.subarray(0, at)), true);
  }
  return changed;
}

test("a full volume says so, and what was published before stays", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    await ok("init", path, "--size", "2MiB");
    await makeTree(`${directory}/small`, { a: "a" });
    await ok("publish", path, `${directory}/small`, "--as", "one");
    await makeTree(`${directory}/large`, { b: crypto.getRandomValues(new Uint8Array(60_000)) });
    for (let i = 0; i < 60; i++) {
      const bytes = crypto.getRandomValues(new Uint8Array(60_000));
      await Deno.writeFile(`${directory}/large/${i}`, bytes);
    }
    await fails(
      1,
      /cannot write \d+ more blocks: the volume has \d+ blocks/,
      "publish",
      path,
      `${directory}/large`,
      "--as",
      "two",
    );
    assertEquals(await ok("ls", path), "a\n");
    assertEquals((await json("fsck", path)).clean, true);
  });
});

test("a volume that a server has gives exit code 5, naming owner and URL; the URL works", async () => {
  await withVolume(async (site) => {
    await serving([site], async (url) => {
      const busy = new RegExp(`process \\d+ has it open and serves it at ${url}\nUse ${url}`);
      for (const words of [["ls"], ["info"], ["fsck"], ["snapshot", "list"], ["status"]]) {
        await fails(5, busy, ...words, site);
      }
      await fails(5, busy, "snapshot", "create", site, "x");
      await fails(5, busy, "image", site, "june5", "-o", "-");

      assertEquals(await ok("ls", url), "css\nindex.html\nlarge\nlink\nnew\n");
      assertMatch(await ok("ls", url, "/css", "-l"), /^-rw.* a\.css$/m);
      assertEquals(await ok("cat", url, "link", "--at", "june3"), "<h1>june 3</h1>\n");
      assertEquals((await json("stat", url, "link")).target, "index.html");
      assertEquals((await json("snapshot", "create", url, "june6")).name, "june6");
      assertEquals((await json("pointer", "set", url, "stable", "june3")).snapshotName, "june3");
      assertMatch(await ok("pointer", "list", url), /^stable +june3 /m);
      assertEquals((await json("snapshot", "list", url)).snapshots.length, 3);
      await fails(5, /the pointer 'stable' names it/, "snapshot", "delete", url, "june3");
      assertEquals(await ok("snapshot", "delete", url, "june6"), "Deleted 'june6'\n");
      const plan = await json("plan", url, "june5 - june3");
      const { bytes } = await volcast("image", url, "june5 - june3", "-o", "-");
      assertEquals(bytes.length, plan.bytes);
      const status = await json("status", url, "--wait", "10s");
      assertEquals([status.ready, status.master.name, status.node], [true, "june5", "origin"]);
      assertEquals((await json("info", url)).volume.id, status.volume.id);
      assertMatch(await ok("status", url), /^ready +yes$/m);
      await fails(1, /Cannot find/, "cat", url, "/none");
      await fails(1, /'june9'/, "ls", url, "--at", "june9");
    });
    // The owner's note is stale now, and nobody minds.
    await ok("ls", site);
  });
});

test("a server that is not there gives an error at once, or when the waiting ends", async () => {
  const url = "http://127.0.0.1:9";
  await fails(1, /Cannot reach http:\/\/127\.0\.0\.1:9/, "ls", url);
  await fails(1, /Cannot reach/, "status", url);
  const begin = Date.now();
  await fails(1, /after 300 ms it is not ready/, "status", url, "--wait", "300ms");
  assert(Date.now() - begin >= 300);
  await fails(2, /it is not a duration/, "status", url, "--wait", "soon");
});

test("two processes on one volume: the second gets exit code 5", async () => {
  await withVolume(async (site) => {
    using store = holding(site);
    assert(store !== undefined);
    const { code, stderr } = await command(["ls", site]).output();
    assertEquals(code, 5);
    assertMatch(
      new TextDecoder().decode(stderr),
      /site\.vol: (another )?process (\d+ )?has it open/,
    );
  });
});

function holding(path: string): Disposable {
  const store = FileStore.open(path);
  return { [Symbol.dispose]: () => store.close() };
}

test("output that nobody reads any more ends the program quietly", async () => {
  await withVolume(async (site) => {
    const child = command(["cat", site, "large"]).spawn();
    await child.stdout.cancel();
    const [{ code }, said] = await Promise.all([child.status, new Response(child.stderr).text()]);
    assertEquals([code, said], [0, ""]);
  });
});

test("superblocks as tests write them are those that are read", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    await ok("init", path, "--size", "1MiB");
    const store = FileStore.open(path);
    const superblock = readSuperblock(store);
    store.close();
    const bytes = await Deno.readFile(path);
    const slot = superblock.sequence % 2;
    assertEquals(encodeSuperblock(superblock), bytes.slice(slot * 4096, (slot + 1) * 4096));
  });
});
