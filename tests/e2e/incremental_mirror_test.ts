/**
 * Incremental mirroring from outside: a base image on slow storage, a file with what is newer, processes
 * that are killed, and the whole volume back.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { has, run, Server, TempDirectory, until, volcast, volcastCommand } from "./harness.ts";
import { filesOf, flipBitOf } from "./releases.ts";
import { assertSameTree, changeTree, makeTree, noise, randomOf } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const ignore = !(await has("rsync"));

interface Info {
  readonly files: number;
  readonly mirror: { readonly top: string; readonly newerBlocks: number };
  readonly file: { readonly bytes: number };
  readonly current: { readonly id: string };
}

async function infoOf(path: string): Promise<Info> {
  return JSON.parse((await volcast(["info", path, "--json"])).stdout);
}

async function assertClean(path: string): Promise<void> {
  assertEquals(JSON.parse((await volcast(["fsck", path, "--json"])).stdout).clean, true);
}

/** What a volume shows of `master` is a tree of this host, content and attributes. */
async function assertShows(directory: TempDirectory, volume: string, tree: string): Promise<void> {
  const out = directory.file("exported");
  await volcast(["export", volume, out]);
  await assertSameTree(tree, out);
  Deno.removeSync(out, { recursive: true });
}

Deno.test({
  name:
    `an incremental mirror: rounds, kills, reading and serving the pair, restoring (seed ${SEED})`,
  ignore,
  fn: rounds,
});

async function rounds(): Promise<void> {
  using directory = new TempDirectory();
  const random = randomOf(SEED);
  const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
  const [base, mirror] = [directory.file("base/"), directory.file("site.mirror")];
  await makeTree(tree, SOURCE, { mostKiB: 64 });
  await volcast(["init", volume, "--size", "1GiB"]);
  await volcast(["import", volume, tree]);
  const command = ["mirror", volume, "--base", base, "--into", mirror, "--segment-size", "5MiB"];
  const once = async () =>
    JSON.parse((await volcast([...command, "--once", "--json"])).stdout) as {
      kind: string;
      blocks: number;
    };
  assertEquals((await once()).kind, "full");
  assert(filesOf(base).length > 1, "the base is in segments");
  const bytesOfBase = await digestOf(base);
  const begin = performance.now();
  assertStringIncludes((await volcast([...command, "--once"], { code: 3 })).stdout, "Nothing new");
  const ms = performance.now() - begin;
  let blocks = 0;
  for (let round = 1; round <= 4; round++) {
    changeTree(tree, round);
    Deno.writeFileSync(`${tree}/always new`, noise(300_000));
    await volcast(["import", volume, tree, "--prune"]);
    // Killed at some moments; whatever was done by then, the next one goes on incrementally.
    for (let i = 0; i < (round === 3 ? 4 : 0); i++) {
      const seconds = ms * (0.7 + random() * 0.6) / 1000;
      await run([
        "timeout",
        "-s",
        "KILL",
        String(seconds),
        ...volcastCommand(),
        ...command,
        "--once",
      ]);
      await assertClean(mirror);
    }
    const done = await run([...volcastCommand(), ...command, "--once", "--json"]);
    assert(done.code === 0 || (done.code === 3 && round === 3), done.stderr);
    const result = JSON.parse(done.stdout);
    if (done.code === 0) {
      assertEquals(result.kind, "increment");
      blocks = Math.max(blocks, result.blocks);
    }
  }
  await assertShows(directory, mirror, tree);
  await assertClean(mirror);
  // What is newer is what differs: an image since the base's top would have as much, and metadata.
  const info = await infoOf(mirror);
  const room = info.file.bytes / 4096;
  assert(room < 2 * (info.mirror.newerBlocks + blocks) + 64, `${room} blocks of file`);
  assertEquals(await digestOf(base), bytesOfBase);

  // The pair is a volume.
  const server = await Server.start([mirror]);
  const sites = [directory.file("rome.vol"), "--site", "rome", "--parent", server.url];
  await volcast(["pull", ...sites]);
  assertEquals(await server.stop(), 0);
  await assertShows(directory, sites[0], tree);
  const whole = directory.file("whole.vol");
  await volcast(["reintegrate", base, mirror, "-o", whole]);
  await assertClean(whole);
  await assertShows(directory, whole, tree);

  // And only read.
  for (
    const refused of [
      ["import", mirror, tree],
      ["promote", mirror],
      ["pull", mirror, "--site", "x", "--parent", "http://127.0.0.1:1"],
      ["copy", volume, mirror],
    ]
  ) {
    const { stderr } = await volcast(refused, { code: 1 });
    assertMatch(stderr, /is an incremental mirror, which is written by its source only/);
    assertMatch(stderr, /volcast reintegrate/);
  }
  await wrongBases({ directory, base, mirror, command });
}

async function wrongBases(
  { directory, base, mirror, command }: {
    directory: TempDirectory;
    base: string;
    mirror: string;
    command: string[];
  },
): Promise<void> {
  const moved = directory.file("moved");
  Deno.renameSync(base, moved);
  assertMatch((await volcast(["ls", mirror], { code: 1 })).stderr, /its base is not at .*\+PATH/s);
  assertStringIncludes((await volcast(["ls", `${mirror}+${moved}`])).stdout, "odd");
  // Another image, though of the same volume.
  const other = directory.file("other.img");
  await volcast(["image", directory.file("site.vol"), "active", "-o", other]);
  const { stderr } = await volcast(["reintegrate", other, mirror, "-o", directory.file("no.vol")], {
    code: 1,
  });
  assertMatch(stderr, /stands on the image of .*, .*other\.img is that of/);
  assertEquals(await Deno.stat(directory.file("no.vol")).catch(() => undefined), undefined);
  const full = await volcast([...command, "--once", "--full"], { code: 1 });
  assertMatch(full.stderr, /its base is not at/);
  Deno.renameSync(moved, base);
  assertMatch((await volcast([...command, "--once", "--full"], { code: 1 })).stderr, /other paths/);
  const files = filesOf(base);
  Deno.renameSync(files[1], `${directory.file("gone")}`);
  const missing = await volcast(["ls", mirror], { code: 4 });
  assertStringIncludes(missing.stderr, "segment 2 of");
  Deno.renameSync(`${directory.file("gone")}`, files[1]);
  // A bit of a block that is still the base's: no reader gets it.
  const size = Deno.statSync(files[0]).size;
  for (let at = Math.floor(size / 2); at < size - 65536; at += 9000) flipBitOf(files[0], at);
  const checked = await volcast(["fsck", mirror], { code: 4 });
  assertStringIncludes(checked.stdout, "checksum");
}

/** The content of every file of a directory. */
async function digestOf(directory: string): Promise<string> {
  const parts = await Promise.all(
    filesOf(directory).map(async (file) => {
      const digest = await crypto.subtle.digest("SHA-256", Deno.readFileSync(file));
      return `${file} ${new Uint8Array(digest).toHex()}`;
    }),
  );
  return parts.join("\n");
}

Deno.test({
  name: "a server keeps an incremental mirror, on a base that was made before",
  ignore,
  async fn(): Promise<void> {
    using directory = new TempDirectory();
    const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
    const [base, mirror] = [directory.file("base.img"), directory.file("site.mirror")];
    await makeTree(tree, SOURCE, { mostKiB: 16 });
    await volcast(["init", volume, "--size", "256MiB"]);
    await volcast(["publish", volume, tree, "--as", "june3"]);
    await volcast(["image", volume, "june3", "-o", base]);
    const options = ["--mirror-base", base, "--mirror-into", mirror, "--mirror-every", "200ms"];
    await using server = await Server.start([volume, ...options]);
    await until("it is a mirror", () => server.log.includes("increment"));
    changeTree(tree, 5);
    await volcast(["publish", server.url, tree, "--as", "june5"]);
    await until("the mirror has the release", async () => {
      const { mirrors } = await (await fetch(`${server.url}/status`)).json();
      return mirrors[0].lagBlocks === 0;
    });
    assert(!server.log.includes("full image"), server.log);
    assertEquals(await server.stop(), 0);
    // The last round may have been under way.
    await volcast(["mirror", volume, "--base", base, "--into", mirror, "--once"], { code: 3 });
    await assertClean(mirror);
    await assertShows(directory, mirror, tree);
  },
});
