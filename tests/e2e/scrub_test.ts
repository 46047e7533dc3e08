/**
 * The scrub from outside: bits of a served replica's file are flipped; they are found at the set rate,
 * healed from the parent block by block, and no reader gets anything wrong meanwhile.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { openVolumeFile } from "../../src/volume/mod.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { flipBitOf } from "./releases.ts";
import { assertSameTree, makeTree, randomOf } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const FLIPS = Number(Deno.env.get("VOLCAST_FLIPS") ?? 40);

interface Scrub {
  readonly completedAt: string | null;
  readonly foundBlocks: number;
  readonly healedBlocks: number;
  readonly badBlocks: number;
}

Deno.test({
  name:
    `a served replica finds the bits that rotted, and heals them from its parent (seed ${SEED})`,
  ignore: !(await has("rsync")),
  async fn(): Promise<void> {
    using directory = new TempDirectory();
    const random = randomOf(SEED);
    const [tree, volume, site] = ["tree", "site.vol", "paris.vol"].map((name) =>
      directory.file(name)
    );
    await makeTree(tree, SOURCE, { mostKiB: 24 });
    Deno.writeTextFileSync(`${tree}/read all the time`, "as it was ".repeat(5000));
    await volcast(["init", volume, "--size", "256MiB"]);
    await volcast(["publish", volume, tree, "--as", "june5"]);
    await using origin = await Server.start([volume]);
    await volcast(["pull", site, "--site", "paris", "--parent", origin.url]);
    const opened = openVolumeFile(site);
    const used = [...bitsOf(opened, opened.current)].filter((vbn) =>
      vbn !== opened.current.root.vbn
    );
    await opened.close();
    const flipped = new Set<number>();
    while (flipped.size < FLIPS) flipped.add(used[Math.floor(random() * used.length)]);

    const options = ["--site", "paris", "--parent", origin.url, "--scrub", "64MiB"];
    // What leads to the volume's tables is read before anything is scrubbed: those bits are flipped later.
    await using paris = await Server.start([site, ...options, "--scrub-every", "1s"]);
    const scrubOf = async () => (await (await fetch(`${paris.url}/status`)).json()).scrub as Scrub;
    await until("a pass is over", async () => (await scrubOf()).completedAt !== null);
    assertEquals((await scrubOf()).foundBlocks, 0);
    for (const vbn of flipped) flipBitOf(site, vbn * 4096 + Math.floor(random() * 4096));
    const wanted = "as it was ".repeat(5000);
    let answers = 0;
    await until("all of them are healed", async () => {
      const response = await fetch(`${paris.url}/files/read all the time`);
      const text = await response.text().catch(() => undefined);
      // A block that is bad is an error, never other content.
      if (response.ok && text !== undefined) assertEquals(text, wanted);
      answers++;
      const { healedBlocks, badBlocks } = await scrubOf();
      return healedBlocks === flipped.size && badBlocks === 0;
    });
    assert(answers > 0);
    await until("the log says so", () => paris.log.includes("Healed"));
    assert(!paris.log.includes("full image"), paris.log);
    const metrics = await (await fetch(`${paris.url}/metrics`)).text();
    assertStringIncludes(metrics, `volcast_scrub_healed_blocks_total ${flipped.size}\n`);
    assertEquals(await paris.stop(), 0);
    const { stdout } = await volcast(["fsck", site, "--json"]);
    assertEquals(JSON.parse(stdout).clean, true);
    await volcast(["export", site, directory.file("out")]);
    await assertSameTree(tree, directory.file("out"));
  },
});
