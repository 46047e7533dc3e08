/**
 * A site that changes its parent: to one that never had the release the site is at, to a grandparent, to
 * one below itself before. It takes increments each time, whatever was published and deleted meanwhile.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { currentOf, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree, noise } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";

Deno.test({
  name: "a site changes to any relative and stays incremental",
  ignore: !(await has("rsync")),
  fn: changesParents,
});

async function changesParents(): Promise<void> {
  using directory = new TempDirectory();
  const [tree, volume, site] = ["tree", "site.vol", "rome.vol"].map((name) => directory.file(name));
  await makeTree(tree, SOURCE, { mostKiB: 24 });
  await volcast(["init", volume, "--size", "512MiB"]);
  await volcast(["publish", volume, tree, "--as", "r1"]);
  await using origin = await Server.start([volume]);
  let release = 1;
  const publish = async () => {
    changeTree(tree, ++release);
    Deno.writeFileSync(`${tree}/changes wholly`, noise(3_000_000));
    await volcast(["publish", origin.url, tree, "--as", `r${release}`]);
  };
  const follow = async (name: string, parent: string) => {
    const path = directory.file(`${name}.vol`);
    const server = await Server.start([path, "--site", name, "--parent", parent, "--every", "1s"]);
    await until(`${name} is there`, async () => await currentOf(server.url) === `r${release}`);
    return server;
  };
  const pull = async (parent: string) => {
    const pulled = await volcast(["pull", site, "--site", "rome", "--parent", parent, "--json"]);
    const { kind, name, bytes } = JSON.parse(pulled.stdout);
    assertEquals(name, `r${release}`);
    return { kind, bytes };
  };

  const { kind, bytes: fullBytes } = await pull(origin.url);
  assertEquals(kind, "full");
  await publish();
  await publish();
  await volcast(["snapshot", "delete", origin.url, "r2"]);
  // A cousin that began after the site did: it lists r1, and never had a block of it.
  const paris = await follow("paris", origin.url);
  const fromParis = await pull(paris.url);
  assertEquals(fromParis.kind, "increment");
  assert(fromParis.bytes < fullBytes, `${fromParis.bytes} of ${fullBytes} bytes`);
  const shows = async (url: string) => {
    const out = directory.file("out");
    await volcast(["export", url, out]);
    await assertSameTree(tree, out);
    Deno.removeSync(out, { recursive: true });
  };
  await shows(site);

  // A grandchild of the origin, two releases later; then the origin itself.
  await publish();
  await publish();
  await until("paris is there", async () => await currentOf(paris.url) === `r${release}`);
  const lyon = await follow("lyon", paris.url);
  assertEquals((await pull(lyon.url)).kind, "increment");
  assertEquals(await lyon.stop(), 0);
  await publish();
  assertEquals((await pull(origin.url)).kind, "increment");
  await shows(site);

  // The one that was above is below now.
  const rome = await Server.start([site]);
  const pulled = await volcast([
    ...["pull", directory.file("lyon.vol"), "--site", "lyon"],
    ...["--parent", rome.url, "--json"],
  ]);
  assertEquals(JSON.parse(pulled.stdout).kind, "increment");
  await shows(directory.file("lyon.vol"));
  for (const server of [rome, paris]) assertEquals(await server.stop(), 0);
  for (const name of ["paris", "rome", "lyon"]) {
    const { stdout } = await volcast(["fsck", directory.file(`${name}.vol`), "--json"]);
    assertEquals(JSON.parse(stdout).clean, true);
  }
}
