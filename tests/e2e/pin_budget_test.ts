/**
 * A site that falls behind, from outside: what its base keeps grows with each release until the budget
 * makes a shadow of it. The space comes back, others never notice, and the site catches up.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { currentOf, getJson, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, noise, randomOf } from "./trees.ts";

const FILES = 2000;
const MIB = 2 ** 20;
const BUDGET = 6 * MIB;

interface Status {
  readonly volume: { readonly freeBlocks: number };
  readonly pinnedBytes: Record<string, number>;
  readonly pinBudgetBytes: number;
  readonly shadows: number;
}

interface Site {
  readonly name: string;
  readonly snapshotName: string;
  readonly kind: string;
  readonly pinnedBytes: number;
}

const sitesOf = async (url: string) =>
  (await getJson(`${url}/sites`) as { sites: unknown }).sites as Site[];
const statusOf = async (url: string) => await getJson(`${url}/status`) as unknown as Status;

/** Thousands of small files, and some that change with each release. */
function makeRelease(tree: string, release: number): void {
  const random = randomOf(release);
  for (let i = 0; i < (release === 0 ? FILES : FILES / 10); i++) {
    const number = release === 0 ? i : Math.floor(random() * FILES);
    const directory = `${tree}/${number % 40}`;
    Deno.mkdirSync(directory, { recursive: true });
    Deno.writeFileSync(`${directory}/${number}`, noise(Math.floor(random() * 6000)));
  }
  // What changes wholly: 3 MiB of every release are its own.
  Deno.writeFileSync(`${tree}/index.bin`, noise(3 * MIB));
}

const hasRsync = await has("rsync");

async function pinBudget(): Promise<void> {
  using directory = new TempDirectory();
  const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
  Deno.mkdirSync(tree);
  makeRelease(tree, 0);
  await volcast(["init", volume, "--size", "40MiB"]);
  await volcast(["publish", volume, tree, "--as", "r0"]);
  await using origin = await Server.start([volume, "--pin-budget", "6MiB"]);
  const follow = (name: string) =>
    Server.start([directory.file(`${name}.vol`), "--site", name, "--parent", origin.url]);
  await using rome = await follow("rome");
  const paris = await follow("paris");
  for (const site of [rome, paris]) {
    await until("r0", async () => await currentOf(site.url) === "r0");
  }
  await until("both confirmed", async () => (await sitesOf(origin.url)).length === 2);
  // Paris goes away. Rome follows each release, and what nobody stands on is deleted.
  assertEquals(await paris.stop(), 0);
  let free = 0;
  let kept: number[] = [];
  const publish = async (release: number) => {
    makeRelease(tree, release);
    await volcast(["publish", origin.url, tree, "--as", `r${release}`]);
    await until(`r${release}`, async () => await currentOf(rome.url) === `r${release}`);
    await until("rome confirmed", async () => {
      const rome = (await sitesOf(origin.url)).find(({ name }) => name === "rome");
      return rome?.snapshotName === `r${release}`;
    });
    if (release === 1) return;
    const old = `${origin.url}/snapshots/r${release - 1}`;
    assertEquals((await fetch(old, { method: "DELETE" })).status, 204);
  };
  let release = 0;
  while (!origin.log.includes("Made 'r0'")) {
    await publish(++release);
    const status = await statusOf(origin.url);
    // Over the budget, and perhaps dealt with already.
    if (status.shadows > 0 || status.pinnedBytes.paris > BUDGET) break;
    assert(release < 6, "the budget is reached by now");
    kept = [...kept, status.pinnedBytes.paris];
    free = status.volume.freeBlocks;
    assertEquals([status.pinBudgetBytes, status.shadows], [BUDGET, 0]);
    const site = (await sitesOf(origin.url)).find(({ name }) => name === "paris");
    assertEquals([site?.snapshotName, site?.kind], ["r0", "regular"]);
    assertEquals(site?.pinnedBytes, status.pinnedBytes.paris);
  }
  // It kept more with each release, at least what changes wholly.
  assert(kept.length > 0 && kept[0] >= 3 * MIB, `${kept} bytes kept`);
  assert(kept.every((bytes, i) => i === 0 || bytes > kept[i - 1]), `${kept} bytes kept`);
  await until("the base became a shadow", () => origin.log.includes("Made 'r0'"));
  const made =
    /Made 'r0' \(\S+\) a shadow: the site 'paris' keeps (\d+) bytes by it, the budget is 6291456; (\d+) blocks/
      .exec(origin.log);
  if (made === null) throw new Error(origin.log);
  assert(Number(made[1]) > BUDGET);
  // A release later a reader's hold on old blocks is gone too; then what r0 kept is free again.
  await until("space came back", async () => {
    const { volume: { freeBlocks } } = await statusOf(origin.url);
    return freeBlocks > free + 100;
  });
  const status = await statusOf(origin.url);
  assertEquals([status.pinnedBytes.paris, status.shadows], [0, 1]);
  const metrics = await (await fetch(`${origin.url}/metrics`)).text();
  assertMatch(metrics, /^volcast_site_pinned_bytes\{site="paris"\} 0$/m);
  assertMatch(metrics, /^volcast_shadows 1$/m);
  assertMatch(
    (await volcast(["status", origin.url])).stdout,
    /^pin budget +6291456 bytes \(6 MiB\)/m,
  );
  assertMatch((await volcast(["snapshot", "list", origin.url])).stdout, /^r0 +\S+ +shadow +/m);
  const read = await volcast(["ls", origin.url, "--at", "r0"], { code: 2 });
  assertMatch(read.stderr, /'r0': it is a shadow: its blocks may be used again/);

  // More than the volume has room for if r0 were kept; blocks come around.
  for (const last = release + 9; release < last;) await publish(++release);
  await volcast(["export", rome.url, directory.file("rome")]);
  await assertSameTree(tree, directory.file("rome"));

  // Paris comes back, from where nobody keeps anything for it.
  await using again = await follow("paris");
  await until("paris is there", async () => await currentOf(again.url) === `r${release}`);
  await volcast(["export", again.url, directory.file("paris")]);
  await assertSameTree(tree, directory.file("paris"));
  // Then nobody needs the shadow.
  await until("the shadow went", async () => (await statusOf(origin.url)).shadows === 0);
  for (const server of [again, rome, origin]) assertEquals(await server.stop(), 0);
  for (const name of ["site.vol", "paris.vol", "rome.vol"]) {
    const report = await volcast(["fsck", directory.file(name), "--json"]);
    assertEquals(JSON.parse(report.stdout).clean, true);
  }
}

Deno.test({
  name: "a base over the pin budget becomes a shadow, and the site behind catches up",
  ignore: !hasRsync,
  fn: pinBudget,
});
