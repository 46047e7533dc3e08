/**
 * Storage images from outside: the levels of the source, and copies that keep history, with real files.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { currentOf, getJson, has, run, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const hasRsync = await has("rsync");
const hasCurl = await has("curl");

/** A volume with june1 to june9, and what the tree was at some of them. */
async function published(directory: TempDirectory, kept: readonly number[]): Promise<string> {
  const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
  await makeTree(tree, SOURCE);
  // Thousands of files, and not much in them: every release is compared.
  await run(["find", tree, "-type", "f", "-size", "+6k", "-not", "-path", "*/odd/*", "-delete"]);
  await volcast(["init", volume, "--size", "256MiB"]);
  for (let i = 1; i <= 9; i++) {
    if (i > 1) changeTree(tree, i);
    await volcast(["publish", volume, tree, "--as", `june${i}`]);
    if (kept.includes(i)) {
      const copied = await run(["cp", "-a", tree, directory.file(`as${i}`)]);
      assertEquals(copied.code, 0, copied.stderr);
    }
  }
  return volume;
}

/** What a volume, or a server, has as a snapshot is what the tree was then. */
async function assertHas(directory: TempDirectory, volume: string, release: number): Promise<void> {
  const out = directory.file(`out${release}`);
  await volcast(["export", volume, out, "--at", `june${release}`]);
  await assertSameTree(directory.file(`as${release}`), out);
  Deno.removeSync(out, { recursive: true });
}

async function namesOf(volume: string): Promise<string[]> {
  const { stdout } = await volcast(["snapshot", "list", volume, "--json"]);
  const { snapshots } = JSON.parse(stdout) as { snapshots: { name: string }[] };
  return snapshots.map(({ name }) => name);
}

async function digestOf(path: string): Promise<string> {
  const { stdout } = await run(["sha256sum", path]);
  return stdout.split(" ")[0];
}

/** Of a volume without VBN 2, which says who has opened it last. */
async function digestOfVolume(path: string): Promise<string> {
  const parts = `head -c 8192 '${path}'; tail -c +12289 '${path}'`;
  return (await run(["sh", "-c", `{ ${parts}; } | sha256sum`])).stdout;
}

async function assertClean(volume: string): Promise<void> {
  const { stdout } = await volcast(["fsck", volume, "--json"]);
  assertEquals(JSON.parse(stdout).clean, true);
}

Deno.test({
  name: "levels of images restore in order, every snapshot in them, and are refused out of order",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const site = await published(directory, [2, 4, 9]);
    const image = async (name: string, select: string) => {
      const path = directory.file(`${name}.img`);
      await volcast(["image", site, select, "-o", path]);
      const { stdout } = await volcast(["plan", site, select, "--json"]);
      assertEquals(Deno.statSync(path).size, JSON.parse(stdout).bytes);
      return path;
    };
    const level0 = await image("level0", "june3 + june2 + june1");
    const level1 = await image("level1", "june5 + june4 - june3");
    const level2 = await image("level2", "june9 + june8 - june5");
    const cumulative = await image("cumulative", "june9 + june8 - june3");
    const copy = directory.file("copy.vol");
    const early = await volcast(["apply", copy, level1], { code: 1 });
    assertStringIncludes(early.stderr, "Apply a full image first");
    await volcast(["apply", copy, level0]);
    await run(["cp", copy, directory.file("other.vol")]);

    const before = await digestOfVolume(copy);
    const late = await volcast(["apply", copy, level2], { code: 1 });
    assertStringIncludes(late.stderr, "its base is 'june5'");
    assertStringIncludes(late.stderr, "Apply the image that leads from 'june3' to 'june5' first");
    const fragment = await image("fragment", "june5 & june3");
    assertStringIncludes(
      (await volcast(["apply", copy, fragment], { code: 1 })).stderr,
      "fragment",
    );
    // Nothing was written.
    assertEquals(await digestOfVolume(copy), before);

    await volcast(["apply", copy, level1]);
    await assertHas(directory, copy, 4);
    await volcast(["apply", copy, cumulative], { code: 1 });
    await volcast(["apply", copy, level2]);
    for (const release of [2, 9]) await assertHas(directory, copy, release);
    assertEquals(await namesOf(copy), [1, 2, 3, 4, 5, 8, 9].map((i) => `june${i}`));

    // The other way of the source: level 1 again, in the place of the one before.
    const other = directory.file("other.vol");
    await volcast(["apply", other, cumulative]);
    assertEquals(await namesOf(other), [1, 2, 3, 8, 9].map((i) => `june${i}`));
    await assertHas(directory, other, 9);
    for (const volume of [copy, other]) await assertClean(volume);

    // What deleting frees: as many blocks as were counted, but for the metadata of the deletions.
    const gone = ["june2", "june3", "june6"];
    const freeOf = async () =>
      JSON.parse((await volcast(["info", site, "--json"])).stdout).volume.freeBlocks;
    const plan = JSON.parse(
      (await volcast(["plan", site, "--delete", gone.join(","), "--json"])).stdout,
    );
    const free = await freeOf();
    for (const name of gone) await volcast(["snapshot", "delete", site, name]);
    const freed = await freeOf() - free;
    console.log(`deleting ${gone}: ${plan.blocks} blocks planned, ${freed} freed`);
    assert(plan.blocks > 100 && Math.abs(freed - plan.blocks) <= 8, `${freed} of ${plan.blocks}`);
  },
});

Deno.test({
  name: "a site that keeps history has every snapshot, and an image goes on at another node",
  ignore: !hasRsync || !hasCurl,
  async fn() {
    using directory = new TempDirectory();
    const site = await published(directory, [3, 9]);
    await using origin = await Server.start([site]);
    const keep = (name: string, parent: string) => [
      directory.file(`${name}.vol`),
      ...["--site", name, "--parent", parent, "--snapshots", "all", "--every", "1h"],
    ];
    const paris = await Server.start(keep("paris", origin.url));
    await using _paris = paris;
    await until("june9 at paris", async () => await currentOf(paris.url) === "june9");
    const all = Array.from({ length: 9 }, (_, i) => `june${i + 1}`);
    assertEquals(await namesOf(paris.url), all);
    await assertHas(directory, paris.url, 3);

    // The whole history as a file, begun at one node and ended at another.
    const name = (await fetch(`${origin.url}/replicate?snapshots=all`, { method: "HEAD" })).headers
      .get("content-location");
    const path = directory.file("history.img");
    const cut = await run(["curl", "-s", "-r", "0-3000000", "-o", path, origin.url + name]);
    assertEquals(cut.code, 0, cut.stderr);
    assertEquals(Deno.statSync(path).size, 3_000_001);
    const rest = await run(["curl", "-s", "-C", "-", "-o", path, paris.url + name]);
    assertEquals(rest.code, 0, rest.stderr);
    const made = directory.file("made.img");
    await volcast(["image", origin.url, "--snapshots", "all", "-o", made]);
    assertEquals(await digestOf(path), await digestOf(made));
    const copy = directory.file("copy.vol");
    await volcast(["apply", copy, path]);
    assertEquals(await namesOf(copy), all);
    await assertHas(directory, copy, 9);

    // Three releases while paris is away come at once, and go on to rome.
    await paris.stop();
    const tree = directory.file("tree");
    for (const release of [10, 11, 12]) {
      changeTree(tree, release);
      await volcast(["publish", origin.url, tree, "--as", `june${release}`]);
      if (release === 11) await run(["cp", "-a", tree, directory.file("as11")]);
    }
    await using again = await Server.start(keep("paris", origin.url));
    await until("june12 at paris", async () => await currentOf(again.url) === "june12");
    await until("the log of paris", () => again.log.includes("; with june10, june11"));
    assertStringIncludes(again.log, "increment");
    const rome = directory.file("rome.vol");
    const pull = ["pull", rome, "--site", "rome", "--parent", again.url, "--snapshots", "all"];
    await volcast(pull);
    assertEquals(await namesOf(rome), [...all, "june10", "june11", "june12"]);
    for (const release of [3, 11]) await assertHas(directory, rome, release);
    await volcast(pull, { code: 3 });

    // Any expression, as a stream into a replica.
    const select = new URLSearchParams({ select: "june12 + june11 - june9" });
    const url = `${again.url}/image?${select}`;
    await volcast(["apply", copy, url]);
    await assertHas(directory, copy, 11);
    const refused = await volcast(["apply", copy, `${url}+-+june8`], { code: 3 });
    assertStringIncludes(refused.stdout, "already");
    const { restores, bases } = await getJson(`${origin.url}/plan?${select}`);
    assertEquals([restores, bases], [["june11", "june12"], ["june9"]]);
    for (const volume of [copy, rome]) await assertClean(volume);
  },
});
