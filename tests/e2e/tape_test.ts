/**
 * Tape backup from outside: segments on several media, through real pipes, and back.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { has, run, Server, TempDirectory, volcast } from "./harness.ts";
import {
  assertPublished,
  assertRestored,
  filesOf,
  flipBitOf,
  type Releases,
  shell,
  twoReleases,
} from "./releases.ts";
import { assertSameTree } from "./trees.ts";

const MIB = 2 ** 20;
const ignore = !(await has("rsync"));

Deno.test({
  name:
    "tape: a full image and an increment on several media come back in any order, and through pipes",
  ignore,
  async fn() {
    using directory = new TempDirectory();
    const releases = await twoReleases(directory);
    await severalMedia(directory, releases);
    await throughPipes(directory, releases);
    await single(directory, releases);
    await extract(directory, releases);
    await refused(directory, releases);
  },
});

async function severalMedia(directory: TempDirectory, releases: Releases): Promise<void> {
  const tapes = directory.file("tapes");
  Deno.mkdirSync(tapes);
  await volcast([
    "tape",
    "write",
    releases.volume,
    "june3",
    "--segment-size",
    "20MiB",
    "-o",
    tapes,
  ]);
  await volcast([
    ...["tape", "write", releases.volume, "june5 - june3", "--segment-size", "600KiB"],
    ...["-o", `${tapes}/increment`, "--record-size", "10KiB"],
  ]);
  const full = filesOf(tapes).filter((name) => name.includes("june3."));
  const increment = filesOf(tapes).filter((name) => name.includes("increment."));
  assert(full.length >= 4 && increment.length >= 2, filesOf(tapes).join());
  for (const name of full) {
    const { size } = Deno.statSync(name);
    assert(size <= 20 * MIB && size % 65_536 === 0, `${name}: ${size}`);
  }
  for (const name of increment) assertEquals(Deno.statSync(name).size % 10_240, 0);

  const listed = await volcast(["tape", "list", "--check", ...full, ...increment, "--json"]);
  const { images, pieces } = JSON.parse(listed.stdout);
  assertEquals(images.map(({ image, missing }: never) => [image, missing]), [
    ["'june3'", []],
    ["'june5' since 'june3'", []],
  ]);
  assertEquals(pieces.length, full.length + increment.length);
  assert(pieces.every(({ checked }: { checked: boolean }) => checked));

  const copy = directory.file("copy.vol");
  await volcast(["tape", "read", copy, ...full.toReversed()]);
  await assertRestored(copy, releases, "june3");
  await volcast(["tape", "read", copy, increment.at(-1)!, ...increment.slice(0, -1)]);
  await assertRestored(copy, releases, "june5");
  Deno.removeSync(copy);
}

async function throughPipes(directory: TempDirectory, releases: Releases): Promise<void> {
  const { volume } = releases;
  const copy = directory.file("piped.vol");
  const tape = directory.file("tape");
  // As to a tape drive of another host, and back from it.
  const away = `volcast tape write '${volume}' june3 --segment-size 30MiB -o - | cat > '${tape}'`;
  assertEquals((await shell(away)).code, 0);
  const back = await shell(`cat '${tape}' | volcast tape read '${copy}' -`);
  assertEquals(back.code, 0, back.stderr);
  await assertRestored(copy, releases, "june3");
  const straight = await shell(
    `volcast tape write '${volume}' 'june5 - june3' | dd bs=64k 2>/dev/null | volcast tape read '${copy}' -`,
  );
  assertEquals(straight.code, 0, straight.stderr);
  await assertRestored(copy, releases, "june5");
  // All segments in one file can be read in place, too.
  const whole = await volcast(["tape", "read", directory.file("in_place.vol"), tape]);
  assertMatch(whole.stdout, /is at 'june3'/);
  const listed = await shell(`cat '${tape}' | volcast tape list -`);
  assertEquals(listed.code, 0);
  assertMatch(listed.stdout, /all of it is here/);
  const cut = await shell(`head -c 40000000 '${tape}' | volcast tape read '${copy}.new' -`);
  assertEquals(cut.code, 4);
  assertMatch(cut.stderr, /Cannot read the segments: they end in segment 2 of \d+, at byte \d+/);
  for (const name of [copy, directory.file("in_place.vol"), `${copy}.new.incoming`]) {
    Deno.removeSync(name);
  }
}

/** One segment made again, by a server: the same bytes. */
async function single(directory: TempDirectory, { volume }: Releases): Promise<void> {
  const again = directory.file("again");
  await using server = await Server.start([volume]);
  await volcast([
    ...["tape", "write", server.url, "june3", "--segment-size", "20MiB"],
    ...["--only", "2,4", "-o", `${again}/`, "--parents"],
  ]);
  assertEquals(filesOf(again).map((name) => name.slice(-9)), ["june3.002", "june3.004"]);
  for (const name of ["june3.002", "june3.004"]) {
    const compared = await run(["cmp", `${again}/${name}`, `${directory.file("tapes")}/${name}`]);
    assertEquals(compared.code, 0, compared.stdout);
  }
}

async function extract(directory: TempDirectory, { volume, tree }: Releases): Promise<void> {
  const tapes = filesOf(directory.file("tapes"));
  const full = tapes.filter((name) => name.includes("june3."));
  const out = directory.file("out");
  await volcast(["tape", "extract", ...full, "--path", "/odd/exact", "-o", out]);
  const same = await shell(`volcast cat '${volume}' /odd/exact --at june3 | cmp - '${out}'`);
  assertEquals(same.code, 0, same.stdout);
  const shown = await shell(`volcast tape extract ${full.join(" ")} --path odd/plain -o -`);
  assertEquals(shown.stdout, "plain\n");
  // A directory of the newer release, from both images.
  await volcast(["tape", "extract", ...tapes, "--path", "/", "-o", `${out}5`]);
  await assertSameTree(tree, `${out}5`);
  await volcast(["tape", "extract", ...tapes, "--path", "/odd", "-o", `${out}.odd`]);
  await assertSameTree(`${tree}/odd`, `${out}.odd`);
  // One file with its attributes.
  Deno.mkdirSync(`${out}.one`);
  await volcast(["tape", "extract", ...full, "--path", "/odd/exact", "-o", `${out}.one`]);
  const { mode, mtime } = Deno.statSync(`${out}.one/exact`);
  const there = JSON.parse(
    (await volcast(["stat", volume, "/odd/exact", "--at", "june3", "--json"])).stdout,
  );
  const wantedMs = Number(BigInt(there.mtime) / 1_000_000n);
  assertEquals([mode, mtime!.getTime()], [there.mode, wantedMs]);
  // The increment alone does not have all of it.
  const alone = tapes.filter((name) => name.includes("increment."));
  const failed = await volcast(
    ["tape", "extract", ...alone, "--path", "/odd/exact", "-o", `${out}.no`],
    { code: 1 },
  );
  assertMatch(
    failed.stderr,
    /it is not in the image 'june5' since 'june3', but in its base 'june3'/,
  );
  assertMatch(failed.stderr, /Give the image of 'june3' too/);
}

async function refused(directory: TempDirectory, releases: Releases): Promise<void> {
  const tapes = filesOf(directory.file("tapes"));
  const full = tapes.filter((name) => name.includes("june3."));
  const increment = tapes.filter((name) => name.includes("increment."));
  const copy = directory.file("refused.vol");
  const refuse = async (code: number, says: RegExp, ...names: string[]) => {
    const { stderr } = await volcast(["tape", "read", copy, ...names], { code });
    assertMatch(stderr, says);
  };
  const count = full.length;
  const missing = new RegExp(
    `bytes \\d+-\\d+ of \\d+ are in none of the pieces \\(segment 2 of ${count} is not there\\)`,
  );
  await refuse(4, missing, full[0], ...full.slice(2));
  await refuse(
    1,
    /Cannot use .*increment.001: it is of the image 'june5' since 'june3'/,
    ...full,
    increment[0],
  );
  await refuse(1, /it is the increment since 'june3', and .* does not exist/, ...increment);

  const bad = directory.file("bad");
  Deno.copyFileSync(full[1], bad);
  flipBitOf(bad, 9_000_000);
  const rest = [full[0], ...full.slice(2)];
  await refuse(4, /the checksum of the frame/, bad, ...rest);
  const { stderr } = await volcast(["tape", "read", copy, bad, full[1], ...rest]);
  assertMatch(
    stderr,
    /bad: Cannot read the image: the checksum of the frame .* taking bytes \d+ and on from elsewhere/,
  );
  await assertRestored(copy, releases, "june3");
  Deno.removeSync(copy);
  const listed = await volcast(["tape", "list", "--check", bad], { code: 4 });
  assertMatch(listed.stderr, /segment 2 of \d+: the digest of its bytes/);
  await volcast(["tape", "list", bad]);

  Deno.truncateSync(bad, 9_000_000);
  await refuse(
    4,
    /bad is cut off within segment 2 of [^]*bytes \d+-\d+ of \d+ are in none/,
    bad,
    ...rest,
  );
  flipBitOf(bad, 100);
  await refuse(4, /bad: Cannot read the segment's header: its checksum/, bad, ...rest);
  const told = await volcast(["tape", "list", bad], { code: 4 });
  assertMatch(told.stderr, /it says of itself: segment 2 of/);

  // Another volume's.
  const other = directory.file("other.vol");
  await volcast(["init", other, "--size", "64MiB"]);
  await volcast(["publish", other, `${releases.tree}/odd`, "--as", "june3"]);
  await volcast(["tape", "write", other, "june3", "-o", bad, "--force"]);
  await refuse(1, /bad: it is of the image 'june3' of volume [0-9a-f]{32}/, ...full, bad);
  await volcast(["tape", "read", copy, ...full]);
  await refuse(1, /it is a full one, and .* is at 'june3'/, bad);
  await refuse(3, /^$/, ...full);
  await volcast(["tape", "read", copy, ...increment]);
  await assertRestored(copy, releases, "june5");
  await assertPublished(directory, copy, releases);
}
