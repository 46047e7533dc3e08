/**
 * kill -9 at random moments of publish, pull and apply. VOLCAST_KILLS sets how many (100 by hand).
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { run, Server, sleep, TempDirectory, volcast, volcastCommand } from "./harness.ts";
import { noise, randomOf } from "./trees.ts";

const KILLS = Number(Deno.env.get("VOLCAST_KILLS") ?? 12);
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);

/** Starts a command and kills it after a while; says whether it had ended by itself. */
async function killed(args: readonly string[], afterMs: number): Promise<boolean> {
  const [program, ...rest] = [...volcastCommand(), ...args];
  const child = new Deno.Command(program, {
    args: rest,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const timer = setTimeout(() => {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
  }, afterMs);
  const { success } = await child.status;
  clearTimeout(timer);
  return success;
}

async function snapshotNames(volume: string): Promise<string[]> {
  const { stdout } = await volcast(["snapshot", "list", volume, "--json"]);
  return JSON.parse(stdout).snapshots.map((snapshot: { name: string }) => snapshot.name);
}

async function assertClean(volume: string): Promise<void> {
  const { stdout } = await volcast(["fsck", volume, "--json"]);
  assertEquals(JSON.parse(stdout).clean, true, stdout);
}

function rewrite(tree: string, round: number, random: () => number): void {
  for (let i = 0; i < 12; i++) {
    Deno.writeFileSync(
      `${tree}/${Math.floor(random() * 60)}`,
      noise(1 + Math.floor(random() * 400_000)),
    );
  }
  Deno.writeTextFileSync(`${tree}/round`, String(round));
}

Deno.test(`kill -9 of publish, pull and apply (${KILLS} times, seed ${SEED})`, async () => {
  using directory = new TempDirectory();
  const random = randomOf(SEED);
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  const site = directory.file("site.vol");
  const paris = directory.file("paris.vol");
  await volcast(["init", site, "--size", "1GiB"]);
  rewrite(tree, 0, random);
  // How long the work takes here decides when to strike.
  const begin = performance.now();
  await volcast(["publish", site, tree, "--as", "r0"]);
  const publishMs = performance.now() - begin;

  let server = await Server.start([site]);
  const pull = () => ["pull", paris, "--site", "paris", "--parent", server.url];
  await volcast(pull());
  const acknowledged = ["r0"];
  try {
    for (let round = 1; round <= KILLS; round++) {
      rewrite(tree, round, random);
      const name = `r${round}`;
      const what = round % 3;
      if (what === 0) {
        // The origin's server dies while somebody publishes to it.
        const publish = run([...volcastCommand(), "publish", server.url, tree, "--as", name]);
        await sleep(random() * publishMs);
        await server.kill();
        if ((await publish).code === 0) acknowledged.push(name);
        await assertClean(site);
        server = await Server.start([site]);
      } else if (what === 1) {
        await server.stop();
        const done = await killed(
          ["publish", site, tree, "--as", name],
          random() * publishMs,
        );
        if (done) acknowledged.push(name);
        await assertClean(site);
        server = await Server.start([site]);
      }
      const names = await snapshotNames(server.url);
      for (const expected of acknowledged) {
        assert(names.includes(expected), `${expected} was acknowledged and is gone: ${names}`);
      }
      if (!names.includes(name)) await volcast(["publish", server.url, tree, "--as", name]);
      if (!acknowledged.includes(name)) acknowledged.push(name);

      // The site dies while it pulls; what it has is a release, whole.
      await killed(pull(), random() * publishMs);
      await assertClean(paris);
      const text = (await volcast(["cat", paris, "round"])).stdout;
      assert(Number(text) === round || Number(text) < round, text);
      const result = await run([...volcastCommand(), ...pull(), "--json"]);
      assert(result.code === 0 || result.code === 3, result.stderr);
      if (result.code === 0) assertEquals(JSON.parse(result.stdout).kind, "increment");
      assertEquals((await volcast(["cat", paris, "round"])).stdout, String(round));
      await assertClean(paris);
    }
    // And the same for apply, of the whole way in one step.
    const image = directory.file("all.img");
    const full = directory.file("r0.img");
    const copy = directory.file("copy.vol");
    await volcast(["image", server.url, "r0", "-o", full]);
    await volcast(["image", server.url, `r${KILLS} - r0`, "-o", image]);
    await volcast(["apply", copy, full]);
    for (let i = 0; i < 3; i++) {
      await killed(["apply", copy, image], random() * publishMs);
      await assertClean(copy);
      const text = (await volcast(["cat", copy, "round"])).stdout;
      assert(text === "0" || text === String(KILLS), text);
    }
    const last = await run([...volcastCommand(), "apply", copy, image]);
    assert(last.code === 0 || last.code === 3, last.stderr);
    assertEquals((await volcast(["cat", copy, "round"])).stdout, String(KILLS));
    await assertClean(copy);
  } finally {
    await server.kill();
  }
});
