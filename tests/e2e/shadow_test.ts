/**
 * Shadows from outside: a site that stands on one takes increments although the blocks of its release
 * were used again, and its readers notice nothing.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { currentOf, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, noise, randomOf } from "./trees.ts";

const FILES = 2000;
const MIB = 2 ** 20;

/** Thousands of small files of which a tenth changes with each release, and some MiB that change wholly. */
function makeRelease(tree: string, release: number): void {
  const random = randomOf(release);
  for (let i = 0; i < (release === 0 ? FILES : FILES / 10); i++) {
    const number = release === 0 ? i : Math.floor(random() * FILES);
    const directory = `${tree}/${number % 40}`;
    Deno.mkdirSync(directory, { recursive: true });
    Deno.writeFileSync(`${directory}/${number}`, noise(Math.floor(random() * 6000)));
  }
  Deno.writeFileSync(`${tree}/index.bin`, noise(4 * MIB));
  Deno.writeTextFileSync(`${tree}/release`, `r${release}\n`);
}

/** Reads at a site until it is told to end; each answer is one release, and none fails. */
async function readAll(url: string, signal: AbortSignal): Promise<number> {
  let count = 0;
  while (!signal.aborted) {
    const response = await fetch(`${url}/files/release`);
    const text = await response.text();
    assertEquals(response.status, 200, text);
    assert(/^r\d+\n$/.test(text), text);
    count++;
  }
  return count;
}

Deno.test({
  name:
    "a site on a shadow takes increments over blocks that were used again, and serves meanwhile",
  ignore: !(await has("rsync")),
  async fn(): Promise<void> {
    using directory = new TempDirectory();
    const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
    Deno.mkdirSync(tree);
    makeRelease(tree, 0);
    await volcast(["init", volume, "--size", "48MiB"]);
    await volcast(["publish", volume, tree, "--as", "r0"]);
    await using origin = await Server.start([volume]);
    const sitePath = directory.file("paris.vol");
    const follow = () =>
      Server.start([sitePath, "--site", "paris", "--parent", origin.url, "--every", "1s"]);
    let paris = await follow();
    await until("r0", async () => await currentOf(paris.url) === "r0");
    let release = 0;
    for (let round = 0; round < 2; round++) {
      const stands = `r${release}`;
      assertEquals(await paris.stop(), 0);
      // Away for some releases; nothing but the last one is kept whole.
      for (let i = 0; i < 6; i++) {
        makeRelease(tree, ++release);
        await volcast(["publish", origin.url, tree, "--as", `r${release}`]);
        if (i === 0) await volcast(["snapshot", "shadow", origin.url, stands]);
        else await volcast(["snapshot", "delete", origin.url, `r${release - 1}`]);
      }
      const plan = await fetch(`${origin.url}/replicate?since=master&site=paris`, {
        method: "HEAD",
      });
      assertStringIncludes(plan.headers.get("volcast-base") ?? "", "~");
      paris = await follow();
      const reading = new AbortController();
      const reader = readAll(paris.url, reading.signal);
      await until(`r${release}`, async () => await currentOf(paris.url) === `r${release}`);
      reading.abort();
      assert(await reader > 0);
      // It is current before its blocks are in their places; the log says so after that.
      await until("the log says so", () => paris.log.includes("increment"));
      assert(!paris.log.includes("full image"), paris.log);
      const out = directory.file(`out${round}`);
      await volcast(["export", paris.url, out]);
      await assertSameTree(tree, out);
    }
    // A child of paris gets the same bytes that the origin has.
    const rome = directory.file("rome.vol");
    await volcast(["pull", rome, "--site", "rome", "--parent", paris.url]);
    for (const server of [paris, origin]) assertEquals(await server.stop(), 0);
    for (const path of [volume, sitePath, rome]) {
      const report = await volcast(["fsck", path, "--json"]);
      assertEquals(JSON.parse(report.stdout).clean, true);
    }
  },
});
