/**
 * Takeover from outside: the source dies, a replica is promoted, the sites follow on, and the old source
 * comes back with changes that nobody has.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { currentOf, getJson, has, run, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const hasRsync = await has("rsync");

function site(directory: TempDirectory, name: string, parent: string): Promise<Server> {
  return Server.start([
    directory.file(`${name}.vol`),
    ...["--site", name, "--parent", parent, "--every", "1h"],
  ]);
}

async function arrived(name: string, ...servers: Server[]): Promise<void> {
  for (const server of servers) {
    await until(`${name} at ${server.url}`, async () => await currentOf(server.url) === name);
  }
}

/** Content and attributes of a volume's master are those of a tree. */
async function assertHolds(volume: string, tree: string, directory: TempDirectory): Promise<void> {
  const out = `${directory.path}/out-${crypto.randomUUID()}`;
  await volcast(["export", volume, out]);
  await assertSameTree(tree, out);
  Deno.removeSync(out, { recursive: true });
}

/** Bytes of the increment that a server pulled last. */
function lastIncrement(log: string): number {
  return Number([...log.matchAll(/increment, \d+ blocks, (\d+) bytes/g)].at(-1)?.[1]);
}

Deno.test({
  name:
    "a promoted replica takes over, its sites follow on, and the old source comes back onto its line",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const tree = directory.file("tree");
    const volume = directory.file("site.vol");
    await volcast(["init", volume, "--size", "1GiB"]);
    Deno.mkdirSync(directory.file("first"));
    await volcast(["publish", volume, directory.file("first"), "--as", "june1"]);
    await run(["cp", "--sparse=always", volume, directory.file("ancient.vol")]);
    await makeTree(tree, SOURCE, { mostKiB: 32 });
    await volcast(["publish", volume, tree, "--as", "june3"]);
    const origin = await Server.start([volume]);
    await using _origin = origin;
    const first = await site(directory, "paris", origin.url);
    await using _first = first;
    await using rome = await site(directory, "rome", first.url);
    changeTree(tree, 5);
    await arrived("june3", first, rome);
    await volcast(["publish", origin.url, tree, "--as", "june5"]);
    await arrived("june5", first, rome);

    // The source dies. On its disk is more than anybody else has.
    await origin.kill();
    await volcast(["import", volume, "tests/helpers", "--into", "/never published"]);
    await volcast(["snapshot", "create", volume, "june6"]);
    Deno.mkdirSync(directory.file("late"));
    Deno.writeTextFileSync(directory.file("late/after june6"), "later");
    await volcast(["import", volume, directory.file("late")]);

    const promoted = await volcast(["promote", first.url]);
    assertMatch(promoted.stdout, /^epoch +2$/m);
    await volcast(["promote", first.url], { code: 3 });
    await until("it says so", () => first.log.includes("the origin of epoch 2"));
    // Under the same options it serves on after a restart, and does not go back to its old parent.
    const port = Number(new URL(first.url).port);
    assertEquals(await first.stop(), 0);
    const paris = await Server.start([
      directory.file("paris.vol"),
      ...["--site", "paris", "--parent", origin.url, "--every", "1h"],
    ], { port });
    await using _paris = paris;
    const stays = "was promoted and is the origin of epoch 2";
    await until("it says that it stays", () => paris.log.includes(stays));
    assertEquals(await (await fetch(`${paris.url}/readyz`)).text(), "ready\n");

    // Published there; the site below takes what has changed.
    changeTree(tree, 6);
    await volcast(["publish", paris.url, tree, "--as", "july1"]);
    await arrived("july1", rome);
    await assertHolds(rome.url, tree, directory);
    const plan = JSON.parse((await volcast(["plan", paris.url, "july1", "--json"])).stdout);
    const full: number = plan.bytes;
    await until("the log says so", () => lastIncrement(rome.log) > 0);
    assert(lastIncrement(rome.log) < full / 5, `${lastIncrement(rome.log)} bytes of ${full}`);

    // The old source is told, however it is asked to follow, and those who ask it are too.
    const follow = ["--site", "lyon", "--parent", paris.url];
    for (const command of ["pull", "serve"]) {
      const told = await volcast([command, volume, ...follow], { code: 1 });
      assertStringIncludes(told.stderr, "has a history of its own");
      assertStringIncludes(told.stderr, "volcast resync");
    }
    const back = await Server.start([volume]);
    await volcast(["pull", directory.file("oslo.vol"), "--site", "oslo", "--parent", rome.url]);
    const asking = ["pull", directory.file("oslo.vol"), "--site", "oslo", "--parent", back.url];
    const refused = await volcast(asking, { code: 1 });
    assertStringIncludes(refused.stderr, "source from before a takeover: run volcast resync there");
    await back.stop();

    // It lists what would be lost, all of it, and changes nothing.
    const resync = ["resync", volume, ...follow];
    const listed = await volcast(resync, { code: 1 });
    assertStringIncludes(listed.stdout, "Newest common snapshot: 'june5'");
    assertStringIncludes(listed.stdout, "snapshot  'june6'");
    assertStringIncludes(listed.stderr, "--discard-local");
    const difference = (await volcast(["diff", volume, "june5", "active"])).stdout;
    assertStringIncludes(difference, "created   /after june6\n");
    assertStringIncludes(difference, "created   /never published/random.ts\n");
    const paths = listed.stdout.split("\n").filter((line) =>
      /^ {2}(created|changed|removed)/.test(line)
    );
    assertEquals(paths.map((line) => line.slice(2)).join("\n"), difference.trimEnd());
    assertEquals(
      JSON.parse((await volcast(["info", volume, "--json"])).stdout).volume.role,
      "origin",
    );

    // And comes back with what differs only, as a site like any other.
    const done = await volcast([...resync, "--discard-local", "--json"]);
    const { pulled, lost } = JSON.parse(done.stdout);
    assertEquals([pulled.kind, pulled.name, pulled.unconfirmed], ["increment", "july1", undefined]);
    assertEquals(lost.snapshots.map(({ name }: { name: string }) => name), [
      "june1",
      "june6",
    ]);
    assert(pulled.bytes < full / 5, `${pulled.bytes} bytes of ${full}`);
    const lyon = await Server.start([volume, ...follow, "--every", "1h"]);
    await using _lyon = lyon;
    changeTree(tree, 7);
    await volcast(["publish", paris.url, tree, "--as", "july2"]);
    await arrived("july2", rome, lyon);
    const sites = await getJson(`${paris.url}/sites`) as { sites: { name: string }[] };
    assertEquals(sites.sites.map(({ name }) => name).sort(), ["lyon", "rome"]);

    const ancient = ["resync", directory.file("ancient.vol"), "--parent", paris.url];
    const nothing = await volcast([...ancient, "--discard-local"], { code: 1 });
    assertStringIncludes(nothing.stderr, "it has none of the snapshots here");
    assertStringIncludes(nothing.stderr, "volcast pull NEW");

    for (const server of [lyon, rome, paris]) assertEquals(await server.stop(), 0);
    for (const name of ["site", "paris", "rome", "oslo", "ancient"]) {
      const report = await volcast(["fsck", directory.file(`${name}.vol`), "--json"]);
      assertEquals(JSON.parse(report.stdout).clean, true);
    }
    // An id names the root by its checksum, and so, in a clean volume, all that is below it.
    await assertHolds(volume, tree, directory);
    const heads = ["site", "rome", "paris"].map(async (name) => {
      const { stdout } = await volcast(["info", directory.file(`${name}.vol`), "--json"]);
      return JSON.parse(stdout).master.id;
    });
    assertEquals(new Set(await Promise.all(heads)).size, 1);
  },
});
