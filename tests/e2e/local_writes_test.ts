/**
 * Local changes of a replica from outside: there for who asks, gone with the next increment.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { currentOf, getJson, has, run, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const hasRsync = await has("rsync");

Deno.test({
  name:
    "a replica with local writes keeps them through kill -9, shows them as active, and flushes them",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const [tree, local] = [directory.file("tree"), directory.file("local")];
    const [volume, paris] = [directory.file("site.vol"), directory.file("paris.vol")];
    await makeTree(tree, SOURCE, { mostKiB: 32 });
    await volcast(["init", volume, "--size", "1GiB"]);
    await volcast(["publish", volume, tree, "--as", "june3"]);
    await using origin = await Server.start([volume]);
    const options = ["--site", "paris", "--parent", origin.url, "--every", "1h", "--local-writes"];
    const first = await Server.start([paris, ...options]);
    await using _first = first;
    await until("june3 at paris", async () => await currentOf(first.url) === "june3");
    await using rome = await Server.start([
      directory.file("rome.vol"),
      ...["--site", "rome", "--parent", first.url, "--every", "1h"],
    ]);
    await until("june3 at rome", async () => await currentOf(rome.url) === "june3");

    // The whole tree, changed: edits, renames, removals, types, modes.
    assertEquals((await run(["cp", "-a", tree, local])).code, 0);
    changeTree(local, 8);
    const report = JSON.parse(
      (await volcast(["import", first.url, local, "--prune", "--json"])).stdout,
    );
    assert(report.changed > 10 && report.removed > 5, JSON.stringify(report));
    const out = async (url: string, ref: string, wanted: string) => {
      const path = directory.file(`out-${crypto.randomUUID()}`);
      await volcast(["export", url, path, ...(ref === "" ? [] : ["--at", ref])]);
      await assertSameTree(wanted, path);
      Deno.removeSync(path, { recursive: true });
    };
    await out(first.url, "active", local);
    const difference = (await volcast(["diff", first.url, "master", "active"])).stdout;
    assert(difference.split("\n").length > 50, difference);
    // Who does not ask for it gets what was pulled.
    const changes = (await volcast(["diff", first.url, "master", "active", "--json"])).stdout;
    const size = (path: string) => Deno.statSync(path).size;
    const path: string = changes.trimEnd().split("\n").map((line) => JSON.parse(line))
      .filter(({ kind, type }) => kind === "changed" && type === "file")
      .find((change) => size(tree + change.path) !== size(local + change.path)).path;
    for (const [at, from] of [["", tree], ["?at=master", tree], ["?at=active", local]]) {
      const bytes = await (await fetch(`${first.url}/files${encodeURI(path)}${at}`)).bytes();
      assertEquals(bytes, Deno.readFileSync(from + path), at);
    }

    // Acknowledged is durable, and is there under the same options after a restart.
    await first.kill();
    const clean = await volcast(["fsck", paris, "--json"]);
    assertEquals(JSON.parse(clean.stdout).roots, 2);
    const info = (await volcast(["info", paris])).stdout;
    assertStringIncludes(info, "the next image takes them away");
    const server = await Server.start([paris, ...options]);
    await using _server = server;
    assertEquals((await volcast(["diff", server.url, "master", "active"])).stdout, difference);
    const publish = ["publish", server.url, local, "--as", "mine"];
    const refused = await volcast(publish, { code: 1 });
    assertStringIncludes(refused.stderr, "it is the parent's");
    await volcast([...publish, "--pointer", "local"]);
    assertEquals((await volcast(["diff", server.url, "mine", "active"])).stdout, "");
    const listed = await getJson(`${server.url}/snapshots`) as { local: { name: string }[] };
    assertEquals(listed.local.map(({ name }) => name), ["mine"]);
    // Who stands below has what was published.
    await out(rome.url, "active", tree);

    changeTree(tree, 5);
    await volcast(["publish", origin.url, tree, "--as", "june5"]);
    await until("june5 at paris", async () => await currentOf(server.url) === "june5");
    const flushed = /Local changes were flushed: \d+ changed files, with the snapshots mine\n/;
    await until("the log says what went", () => flushed.test(server.log));
    assertEquals((await volcast(["diff", server.url, "master", "active"])).stdout, "");
    assertEquals(await server.stop(), 0);
    await volcast(["fsck", paris]);

    // The file itself: only where it is asked for, and a pull flushes it as well.
    const notes = directory.file("notes");
    Deno.mkdirSync(notes);
    Deno.writeTextFileSync(`${notes}/note`, "here only");
    const replica = await volcast(["import", paris, notes], { code: 1 });
    assertStringIncludes(replica.stderr, "it is a replica");
    assertStringIncludes(replica.stderr, "--local-writes");
    await volcast(["import", origin.url, notes, "--local-writes"], { code: 2 });
    await volcast(["import", paris, notes, "--local-writes"]);
    assertEquals((await volcast(["cat", paris, "/note", "--at", "active"])).stdout, "here only");
    assertEquals((await volcast(["diff", paris, "master", "active"])).stdout, "created   /note\n");
    await volcast(["fsck", paris]);
    changeTree(tree, 6);
    await volcast(["publish", origin.url, tree, "--as", "june6"]);
    const pulled = await volcast(["pull", paris, "--site", "paris", "--parent", origin.url]);
    assertStringIncludes(pulled.stdout, "increment");
    assertStringIncludes(pulled.stderr, "Local changes were flushed: 1 changed file\n");
    await out(paris, "active", tree);
    await volcast(["fsck", paris]);
  },
});
