import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { decodeSuperblock } from "../../src/format/mod.ts";
import { openVolumeFile } from "../../src/volume/mod.ts";
import { fails, inDirectory, json, makeTree, ok, volcast } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

/** Nobody listens there: what needs no other node must not ask one. */
const NOBODY = "http://127.0.0.1:9";

function flip(path: string, at: number): void {
  using file = Deno.openSync(path, { read: true, write: true });
  const byte = new Uint8Array(1);
  file.seekSync(at, Deno.SeekMode.Start);
  file.readSync(byte);
  byte[0] ^= 16;
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(byte);
}

/** Sequence numbers in the two slots. */
function slotsOf(path: string): (number | undefined)[] {
  using file = Deno.openSync(path);
  return [0, 1].map(() => {
    const block = new Uint8Array(4096);
    file.readSync(block);
    return decodeSuperblock(block)?.sequence;
  });
}

test("fsck tells of a superblock that cannot be read, and repair writes it from the other one", () =>
  inDirectory(async (directory) => {
    const [site, tree] = [`${directory}/site.vol`, `${directory}/tree`];
    await makeTree(tree, { a: "hello" });
    await ok("init", site, "--size", "16MiB");
    await ok("publish", site, tree, "--as", "june3");
    const before = slotsOf(site) as number[];
    const older = before[0] < before[1] ? 0 : 1;
    flip(site, older * 4096 + 60);
    assertStringIncludes(await ok("fsck", site), `cannot be read (VBN ${older})`);
    assertEquals((await json("fsck", site)).badSuperblocks, [older]);
    const done = await json("repair", site, "--from", NOBODY);
    assertEquals([done.superblocks, done.healed, done.left], [[older], 0, []]);
    const newest = Math.max(...before);
    assertEquals(slotsOf(site), [newest, newest]);
    assertEquals((await volcast("repair", site, "--from", NOBODY)).code, 3);
    // The next consistency point has its place, whichever slot is lost then.
    await makeTree(tree, { a: "hello again" });
    await ok("publish", site, tree, "--as", "june5");
    assertEquals((await json("fsck", site)).badSuperblocks, []);
    assert(Math.max(...slotsOf(site) as number[]) > newest);
  }));

test("fsck names the files of bad blocks, and repair says what nobody has", () =>
  inDirectory(async (directory) => {
    const [site, tree] = [`${directory}/site.vol`, `${directory}/tree`];
    await makeTree(tree, { "pictures/a.png": new Uint8Array(20_000).fill(7) });
    await ok("init", site, "--size", "16MiB");
    await ok("publish", site, tree, "--as", "june3");
    const volume = openVolumeFile(site);
    const fs = volume.fileSystem(volume.active);
    const { vbn } = fs.open(fs.resolve("/pictures/a.png")).tree.pointer(1);
    await volume.close();
    flip(site, vbn * 4096);
    const report = await volcast("fsck", site);
    assertEquals(report.code, 4);
    assertStringIncludes(report.out, `VBN ${vbn}:`);
    assertStringIncludes(report.out, "it is of /pictures/a.png");
    const failed = await volcast("repair", site, "--from", NOBODY);
    assertEquals(failed.code, 4);
    assertStringIncludes(failed.out, `No node had 1 block: ${vbn}`);
    assertStringIncludes(failed.err, NOBODY);
  }));

test("serve takes --repair-from only with --scrub", () =>
  inDirectory(async (directory) => {
    const site = `${directory}/site.vol`;
    await ok("init", site, "--size", "16MiB");
    await fails(2, /without --scrub/, "serve", site, "--repair-from", NOBODY);
    await fails(2, /at least 4096 bytes a second/, "serve", site, "--scrub", "1");
  }));
