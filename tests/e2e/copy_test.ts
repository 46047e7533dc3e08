/**
 * Disk copies from outside: full, incremental and back; to files, packed files and block devices.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { deviceTest, withDevice } from "../helpers/loop_devices.ts";
import { has, run, Server, TempDirectory, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const MIB = 2 ** 20;
const hasRsync = await has("rsync");

// deno-lint-ignore no-explicit-any
async function json(...args: string[]): Promise<any> {
  return JSON.parse((await volcast([...args, "--json"])).stdout);
}

/** Exports a volume and compares it with a tree. */
async function assertHolds(
  volume: string,
  tree: string,
  directory: TempDirectory,
  at?: string,
): Promise<void> {
  const out = directory.file(`out${crypto.randomUUID()}`);
  await volcast(["export", volume, out, ...(at === undefined ? [] : ["--at", at])]);
  await assertSameTree(tree, out);
  Deno.removeSync(out, { recursive: true });
}

async function assertClean(volume: string): Promise<void> {
  assertEquals((await json("fsck", volume)).clean, true);
}

/** A volume with one release, and the tree of it. */
async function release(directory: TempDirectory, size: string): Promise<[string, string]> {
  const [site, tree] = [directory.file("site.vol"), directory.file("tree")];
  await makeTree(tree, SOURCE);
  await volcast(["init", site, "--size", size]);
  await volcast(["publish", site, tree, "--as", "june3"]);
  return [site, tree];
}

Deno.test({
  name: "a disk copy is full, then incremental, and is copied back to restore",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const [site, tree] = await release(directory, "2GiB");
    const copy = directory.file("copy.vol");
    const full = await json("copy", site, copy);
    assertEquals([full.kind, full.name], ["full", "june3"]);
    assertEquals(Deno.statSync(copy).size, Deno.statSync(site).size);
    assert(Deno.statSync(copy).blocks! * 512 < full.blocks * 4096 * 1.1 + MIB, "it is not sparse");
    assertStringIncludes((await volcast(["copy", site, copy], { code: 3 })).stdout, "Nothing new");

    const old = directory.file("june3");
    assertEquals((await run(["cp", "-a", tree, old])).code, 0);
    changeTree(tree, 7);
    await volcast(["publish", site, tree, "--as", "june5"]);
    const increment = await json("copy", site, copy);
    const plan = await json("plan", site, "june5 - june3");
    assertEquals([increment.kind, increment.blocks], ["increment", plan.blocks]);
    await assertHolds(copy, old, directory, "june3");
    await assertClean(copy);

    // A disk with bad spots: the original is gone, and comes back from its copy.
    const disk = Deno.openSync(site, { write: true });
    for (let at = 0; at < 64 * MIB; at += MIB) {
      disk.seekSync(at, Deno.SeekMode.Start);
      disk.writeSync(new Uint8Array(8192).fill(0xdd));
    }
    disk.close();
    await volcast(["fsck", site], { code: 4 });
    const refused = await volcast(["copy", copy, site], { code: 1 });
    assertStringIncludes(refused.stderr, "--overwrite");
    assertEquals((await json("copy", copy, site, "--overwrite")).kind, "full");
    await assertHolds(site, tree, directory);
    await assertClean(site);
    // And to another place, at an older release.
    const restored = directory.file("restored.vol");
    await volcast(["copy", copy, restored, "--at", "june3"]);
    await assertClean(restored);
    assertEquals((await json("info", restored)).current.name, "june3");
  },
});

Deno.test({
  name:
    "a packed copy takes the room of what is in it, is served, pulled from and brought up to date",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const [site, tree] = await release(directory, "64GiB");
    const packed = directory.file("packed.vol");
    await using origin = await Server.start([site]);
    const full = await json("copy", origin.url, packed, "--packed");
    const { size } = Deno.statSync(packed);
    assert(size > full.blocks * 4096 && size < full.blocks * 4096 * 1.02 + MIB, `${size} bytes`);

    changeTree(tree, 8);
    await volcast(["publish", origin.url, tree, "--as", "june5"]);
    assertEquals((await json("copy", origin.url, packed)).kind, "increment");
    await volcast(["copy", origin.url, packed], { code: 3 });
    assert(Deno.statSync(packed).size < size * 1.3);
    await assertClean(packed);
    assertEquals(await origin.stop(), 0);

    // A parent like any other.
    await using parent = await Server.start([packed]);
    const busy = await volcast(["copy", site, packed], { code: 5 });
    assertStringIncludes(busy.stderr, parent.url);
    const rome = directory.file("rome.vol");
    await volcast(["pull", rome, "--site", "rome", "--parent", parent.url]);
    await assertHolds(rome, tree, directory);
    const wanted = await fetch(`${parent.url}/files/new%202`);
    assertEquals(
      new Uint8Array(await wanted.arrayBuffer()),
      Deno.readFileSync(`${tree}/new 2`),
    );
    const image = async (volume: string) => {
      const file = directory.file(`${crypto.randomUUID()}.img`);
      await volcast(["image", volume, "june5 - june3", "-o", file]);
      return new Uint8Array(await crypto.subtle.digest("SHA-256", Deno.readFileSync(file)));
    };
    assertEquals(await image(parent.url), await image(site));
    assertEquals(await parent.stop(), 0);

    // A site may be packed too: it follows on.
    await using again = await Server.start([site]);
    changeTree(tree, 9);
    await volcast(["publish", again.url, tree, "--as", "june9"]);
    await volcast(["pull", packed, "--site", "packed", "--parent", again.url]);
    await assertHolds(packed, tree, directory);
    await assertClean(packed);
  },
});

deviceTest(
  "disks take copies: one of the volume's size, and a smaller one packed",
  async (path) => {
    if (!hasRsync) return;
    using directory = new TempDirectory();
    const [site, tree] = await release(directory, "1GiB");
    const { blocks } = await json("plan", site, "june3");
    const sizes = { exact: 1024 * MIB, small: Math.ceil(blocks * 4096 * 1.3 / MIB) * MIB };
    assert(sizes.small < sizes.exact / 2, `the tree has ${blocks} blocks`);
    await withDevice(path, "exact", sizes.exact, async ({ node: exact }) => {
      await withDevice(path, "small", sizes.small, async ({ node: small }) => {
        await volcast(["copy", site, exact]);
        const refused = await volcast(["copy", site, small], { code: 1 });
        assertStringIncludes(refused.stderr, "--packed");
        assertEquals((await json("copy", site, small, "--packed")).kind, "full");
        changeTree(tree, 10);
        await volcast(["publish", site, tree, "--as", "june5"]);
        for (const node of [exact, small]) {
          assertEquals((await json("copy", site, node)).kind, "increment");
          await volcast(["copy", site, node], { code: 3 });
          await assertHolds(node, tree, directory);
          await assertClean(node);
        }
        // Something else on a disk is not written over by mistake.
        Deno.writeFileSync(exact, new Uint8Array(8192).fill(1));
        const other = await volcast(["copy", small, exact], { code: 1 });
        assertStringIncludes(other.stderr, "--overwrite");
        await volcast(["copy", small, exact, "--overwrite"]);
        await assertHolds(exact, tree, directory);
      });
    });
    // The compiled program cannot open nodes in /dev, and says what to do.
    const inDev = await volcast(["copy", site, "/dev/loop0"], { code: 1 });
    assertStringIncludes(inDev.stderr, "mknod");
  },
);
