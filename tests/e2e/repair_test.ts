/**
 * Repair from outside: bits of a volume's file are flipped, in content and in what leads to it, and come
 * back from a node that is served; at a replica, and at an origin from its site.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { decodeSuperblock } from "../../src/format/mod.ts";
import { openVolumeFile } from "../../src/volume/mod.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { has, run, Server, TempDirectory, volcast, volcastCommand } from "./harness.ts";
import { flipBitOf } from "./releases.ts";
import { assertSameTree, changeTree, makeTree, randomOf } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const FLIPS = Number(Deno.env.get("VOLCAST_FLIPS") ?? 60);

Deno.test({
  name: `repair fetches the blocks that rotted, and nothing else (seed ${SEED})`,
  ignore: !(await has("rsync")),
  async fn(): Promise<void> {
    using directory = new TempDirectory();
    const random = randomOf(SEED);
    const [tree, volume, site] = ["tree", "site.vol", "paris.vol"].map((name) =>
      directory.file(name)
    );
    await makeTree(tree, SOURCE, { mostKiB: 24 });
    await volcast(["init", volume, "--size", "256MiB"]);
    await volcast(["publish", volume, tree, "--as", "r1"]);
    const origin = await Server.start([volume]);
    const pull = ["pull", site, "--site", "paris", "--parent"];
    await volcast([...pull, origin.url]);
    changeTree(tree, 2);
    await volcast(["publish", origin.url, tree, "--as", "r2"]);
    await volcast([...pull, origin.url]);
    const repair = (path: string, from: Server, code = 0) =>
      volcast(["repair", path, "--from", from.url, "--json"], { code });
    await repair(site, origin, 3);

    // Anywhere below the plane: content, directories, inodes, planes, tables, the root.
    const { dataStart, used } = await extentOf(site);
    const flip = (path: string, vbn: number) =>
      flipBitOf(path, vbn * 4096 + Math.floor(random() * 4096));
    for (let i = 0; i < FLIPS; i++) flip(site, dataStart + Math.floor(random() * used));
    flip(site, rootOf(site));
    await volcast(["fsck", site], { code: 4 });
    const done = JSON.parse((await repair(site, origin)).stdout);
    assert(done.healed > FLIPS / 4, `${done.healed} of ${FLIPS} were in use`);
    assertEquals(done.left, []);
    assertEquals(done.from, { [origin.url]: done.healed });
    await volcast(["fsck", site]);
    const out = directory.file("out");
    await volcast(["export", site, out]);
    await assertSameTree(tree, out);

    // The site has what the origin published: it heals that, and says what nobody has.
    assertEquals(await origin.stop(), 0);
    const paris = await Server.start([site]);
    const published = await blocksOf(volume, "r2");
    for (let i = 0; i < 20; i++) flip(volume, published[Math.floor(random() * published.length)]);
    const command = [...volcastCommand(), "repair", volume, "--from", paris.url, "--json"];
    const healed = JSON.parse((await run(command)).stdout);
    assert(healed.healed > 0, JSON.stringify(healed));
    assertEquals(healed.left, []);
    assertEquals(await paris.stop(), 0);
    await volcast(["fsck", volume]);
    Deno.removeSync(out, { recursive: true });
    await volcast(["export", volume, out, "--at", "r2"]);
    await assertSameTree(tree, out);
  },
});

/** Where a volume's data begins, and how many blocks from there on are in use or nearly so. */
async function extentOf(path: string): Promise<{ dataStart: number; used: number }> {
  const info = JSON.parse((await volcast(["info", path, "--json"])).stdout);
  return { dataStart: info.dataStart, used: info.volume.usedBlocks };
}

/** VBN of the root in force. */
function rootOf(path: string): number {
  using file = Deno.openSync(path);
  const slots = [0, 1].map(() => {
    const block = new Uint8Array(4096);
    file.readSync(block);
    return decodeSuperblock(block);
  });
  return slots.sort((a, b) => (a?.sequence ?? 0) - (b?.sequence ?? 0))[1]!.root.vbn;
}

/** VBNs under a snapshot's plane. */
async function blocksOf(path: string, ref: string): Promise<number[]> {
  const volume = openVolumeFile(path);
  const bits = [...bitsOf(volume, volume.resolve(ref))];
  await volume.close();
  return bits;
}
