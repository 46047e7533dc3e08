/**
 * Pointers over a hierarchy: one move of `master` moves every site, back and forth; some follow another
 * pointer; and a site that was away for too long serves what it has until the full image is there.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { currentOf, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";

Deno.test({
  name: "pointers move all sites at once, back and forth; a site away for long serves meanwhile",
  ignore: !(await has("rsync")),
  fn: pointers,
});

async function pointers(): Promise<void> {
  using directory = new TempDirectory();
  const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
  await makeTree(tree, SOURCE, { mostKiB: 16 });
  Deno.writeTextFileSync(`${tree}/release`, "r1");
  await volcast(["init", volume, "--size", "1GiB"]);
  await volcast(["publish", volume, tree, "--as", "r1"]);
  await volcast(["pointer", "set", volume, "stable", "r1"]);
  await using origin = await Server.start([volume]);
  const start = (name: string, parent: string, ...more: string[]) =>
    Server.start([
      ...[directory.file(`${name}.vol`), "--site", name, "--parent", parent],
      ...["--every", "1s", ...more],
    ]);
  const servers = [
    await start("paris", origin.url),
    await start("oslo", origin.url, "--pointer", "stable"),
  ];
  const [paris, oslo] = servers;
  servers.push(await start("rome", paris.url), await start("bergen", oslo.url));
  const [, , rome, bergen] = servers;
  const are = (release: string, ...sites: Server[]) =>
    until(`${release} is everywhere`, async () => {
      const found = await Promise.all(sites.map(({ url }) => currentOf(url)));
      return found.every((one) => one === release);
    });
  await are("r1", ...servers);
  // Away from here on.
  const away = await start("away", origin.url);
  await are("r1", away);
  assertEquals(await away.stop(), 0);

  changeTree(tree, 2);
  Deno.writeTextFileSync(`${tree}/release`, "r2");
  await volcast(["publish", origin.url, tree, "--as", "r2"]);
  await are("r2", paris, rome);
  await are("r1", oslo, bergen);
  const set = (name: string, to: string) => volcast(["pointer", "set", origin.url, name, to]);
  await set("master", "r1");
  await are("r1", ...servers);
  await set("master", "r2");
  await set("stable", "r2");
  await are("r2", ...servers);
  for (const site of [rome, bergen]) {
    const out = directory.file("out");
    await volcast(["export", site.url, out]);
    await assertSameTree(tree, out);
    Deno.removeSync(out, { recursive: true });
  }

  // What the one that is away stands on goes.
  const response = await fetch(`${origin.url}/sites/away`, { method: "DELETE" });
  assertEquals(response.status, 204);
  await volcast(["snapshot", "delete", origin.url, "r1"]);
  const back = await start("away", origin.url);
  const seen = new Set<string>();
  while (!seen.has("r2")) {
    const answer = await fetch(`${back.url}/files/release`);
    const text = await answer.text();
    assertEquals(answer.status, 200, text);
    seen.add(text);
  }
  assertEquals([...seen], ["r1", "r2"]);
  await until("the log says so", () => back.log.includes("full image"));
  const out = directory.file("out");
  await volcast(["export", back.url, out]);
  await assertSameTree(tree, out);
  for (const server of [back, ...servers.reverse()]) assertEquals(await server.stop(), 0);
  for (const name of ["away", "rome", "bergen"]) {
    const { stdout } = await volcast(["fsck", directory.file(`${name}.vol`), "--json"]);
    assert(JSON.parse(stdout).clean);
  }
}
