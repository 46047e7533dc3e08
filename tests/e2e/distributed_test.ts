/**
 * Distributed images from outside: one image over several places, and put together from any mix.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { currentOf, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import {
  assertPublished,
  assertRestored,
  filesOf,
  flipBitOf,
  type Releases,
  twoReleases,
} from "./releases.ts";

const MIB = 2 ** 20;

Deno.test({
  name: "distributed: parts by size and by VBN, images of two nodes and cut files make one volume",
  ignore: !(await has("rsync")),
  async fn() {
    using directory = new TempDirectory();
    const releases = await twoReleases(directory);
    await dealt(directory, releases);
    await byVbn(directory, releases);
    await mixed(directory, releases);
  },
});

/** By size to three directories: in turn, and each part no longer than asked for. */
async function dealt(directory: TempDirectory, releases: Releases): Promise<void> {
  const disks = ["disk1", "disk2", "disk3"].map((name) => directory.file(name));
  for (const disk of disks) Deno.mkdirSync(disk);
  const outputs = disks.flatMap((disk) => ["-o", disk]);
  await volcast(["image", releases.volume, "june3", "--split-size", "16MiB", ...outputs]);
  await volcast(["image", releases.volume, "june5 - june3", "--split-size", "1MiB", ...outputs]);
  const parts = disks.map((disk) => filesOf(disk).filter((name) => name.includes("/june3.")));
  assertEquals(parts.map(([first]) => first.slice(-3)), ["001", "002", "003"]);
  assertMatch(parts[0][1], /disk1\/june3\.004$/);
  for (const name of parts.flat()) assert(Deno.statSync(name).size <= 16 * MIB);
  const whole = Number(
    (await volcast(["plan", releases.volume, "june3", "--json"])).stdout.match(
      /"bytes": (\d+)/,
    )![1],
  );
  const sum = parts.flat().reduce((total, name) => total + Deno.statSync(name).size, 0);
  assert(sum - whole < parts.flat().length * 8400, `${sum} bytes for ${whole}`);

  const copy = directory.file("copy.vol");
  await volcast(["apply", copy, ...parts.flat()]);
  await assertRestored(copy, releases, "june3");
  const increment = disks.flatMap((disk) =>
    filesOf(disk).filter((name) => name.includes("-since-"))
  );
  assert(increment.length >= 2, increment.join());
  await volcast(["apply", copy, ...increment]);
  await assertRestored(copy, releases, "june5");
  await assertPublished(directory, copy, releases);
  // A disk is lost.
  const { stderr } = await volcast(["apply", `${copy}.new`, ...parts[0], ...parts[2]], { code: 4 });
  assertMatch(stderr, /bytes \d+-\d+, \d+-\d+.* of \d+ are in none of the pieces \(segment 2, 5/);
  const listed = JSON.parse(
    (await volcast(["tape", "list", ...parts[0], ...parts[2], "--json"])).stdout,
  );
  assertEquals(listed.images[0].missingSegments.slice(0, 2), [2, 5]);
  Deno.removeSync(copy);
}

/** By VBN, a place for each range. */
async function byVbn(directory: TempDirectory, releases: Releases): Promise<void> {
  const names = ["a.seg", "b.seg", "c.seg"].map((name) => directory.file(name));
  const split = ["image", releases.volume, "june3", "--split-vbn", "9000,15000"];
  await volcast([...split, ...names.flatMap((name) => ["-o", name])]);
  const { pieces } = JSON.parse((await volcast(["tape", "list", ...names, "--json"])).stdout);
  const ranges = pieces.map(({ vbns }: { vbns: { first: number; last: number } }) => vbns);
  assert(ranges[0].last < 9000 && ranges[1].last >= 9000 && ranges[1].last < 15_000);
  assert(ranges[2].last >= 15_000);
  const wrong = await volcast([...split, "-o", names[0], "-o", names[1], "--force"], { code: 2 });
  assertMatch(wrong.stderr, /Cannot write 3 parts to 2 places/);
  const copy = directory.file("vbn.vol");
  await volcast(["apply", copy, names[2], names[0], names[1]]);
  await assertRestored(copy, releases, "june3");
  Deno.removeSync(copy);
}

/** Any mix: canonical URLs of two nodes, segments of two kinds, a file that was cut off, a damaged one. */
async function mixed(directory: TempDirectory, releases: Releases): Promise<void> {
  await using origin = await Server.start([releases.volume]);
  await using site = await Server.start([
    ...[directory.file("site2.vol"), "--site", "site2", "--parent", origin.url, "--every", "1h"],
  ]);
  await until("june5 at the site", async () => await currentOf(site.url) === "june5");
  const served = { ...releases, volume: origin.url };
  const canonicalOf = async (query: string) => {
    const { headers } = await fetch(`${origin.url}/image?${query}`, { method: "HEAD" });
    return headers.get("content-location")!;
  };
  const full = await canonicalOf("select=june5");
  const copy = directory.file("mixed.vol");

  // Half of it in a file, one damaged block in that, the rest from a site.
  const half = directory.file("half.img");
  await volcast(["image", origin.url, "june5", "-o", half]);
  Deno.truncateSync(half, 40_000_000);
  flipBitOf(half, 20_000_000);
  await volcast(["tape", "write", origin.url, "june5", "--segment-size", "30MiB", "-o", half]);
  const read = await volcast(["apply", copy, `${half}.001`, half, `${site.url}${full}`]);
  assertMatch(read.stderr, /half.img is cut off: it has 40000000 of the image's \d+ bytes/);
  await assertRestored(copy, served, "june5");
  Deno.removeSync(copy);

  const damaged = await volcast(["apply", copy, half, `${half}.003`, `${site.url}${full}`]);
  assertMatch(damaged.stderr, /half.img: Cannot read the image: the checksum .* from elsewhere/);
  await assertRestored(copy, served, "june5");
  Deno.removeSync(copy);

  // A node that is gone, and one that does not have the snapshot, do no harm where others have it all.
  const odd = [`http://127.0.0.1:9${full}`, `${site.url}${full.replace(/[^/]*$/, "99-00000000")}`];
  const gone = await volcast(["apply", copy, ...odd, `${origin.url}${full}`, `${half}.002`]);
  assertMatch(gone.stderr, /Cannot read http:\/\/127.0.0.1:9/);
  await assertRestored(copy, served, "june5");
  const foreign = await volcast(
    ["apply", copy, `${half}.001`, `${origin.url}${await canonicalOf("select=june3")}`],
    { code: 1 },
  );
  assertMatch(
    foreign.stderr,
    /Cannot use http.*: it is of the image 'june3', .*half.img.001 is of 'june5'/,
  );
}
