import { assert, assertEquals, assertMatch } from "@std/assert";
import { fails, inDirectory, json, makeTree, ok, serving, volcast } from "../helpers/cli.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

interface Paths {
  readonly directory: string;
  readonly site: string;
  readonly copy: string;
  readonly tree: string;
  publish(name: string): Promise<void>;
}

/** A volume with one release. */
async function withSite(work: (paths: Paths) => Promise<void>): Promise<void> {
  await inDirectory(async (directory) => {
    const paths: Paths = {
      directory,
      site: `${directory}/site.vol`,
      copy: `${directory}/copy.vol`,
      tree: `${directory}/tree`,
      async publish(name) {
        await makeTree(paths.tree, { a: name, [name]: new Random(name.length).bytes(700_000) });
        await ok("publish", paths.site, paths.tree, "--as", name);
      },
    };
    await ok("init", paths.site, "--size", "16MiB");
    await paths.publish("june3");
    await work(paths);
  });
}

const filesIn = (directory: string) =>
  [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

test("copy: a full copy, an increment, and nothing new is exit code 3", () =>
  withSite(async ({ directory, site, copy, publish }) => {
    const full = await json("copy", site, copy);
    assertEquals([full.kind, full.name, full.source, full.target], ["full", "june3", site, copy]);
    await publish("june5");
    await publish("june7");
    const { blocks } = await json("plan", site, "june7 - june3");
    const increment = await json("copy", site, copy);
    assertEquals([increment.kind, increment.base, increment.blocks], [
      "increment",
      full.top,
      blocks,
    ]);
    const again = await volcast("copy", site, copy, "--json");
    assertEquals([again.code, JSON.parse(again.out).kind], [3, "current"]);
    assertMatch(await ok("cat", copy, "a"), /^june7$/);
    assertMatch(await ok("cat", copy, "a", "--at", "june3"), /^june3$/);
    // Back to an older one, as a step of its own: that is an increment too.
    assertEquals((await json("copy", site, copy, "--at", "june5")).kind, "increment");
    assertMatch(await ok("cat", copy, "a"), /^june5$/);
    await ok("fsck", copy);
    assertEquals(filesIn(directory), ["copy.vol", "site.vol", "tree"]);
  }));

test("copy: what is in the way is named, and goes only with --overwrite", () =>
  withSite(async ({ directory, site, copy, publish }) => {
    await fails(2, /it is the source/, "copy", site, site);
    Deno.symlinkSync(site, `${directory}/link`);
    await fails(2, /it is the source/, "copy", site, `${directory}/link`);
    await fails(2, /a server takes images from its parent/, "copy", site, "http://127.0.0.1:1");
    await fails(2, /cannot be packed/, "copy", site, `${copy}.1,${copy}.2`, "--packed");
    await fails(1, /'june9'/, "copy", site, copy, "--at", "june9");
    await fails(1, /no such file/, "copy", `${directory}/none`, copy);
    await fails(1, /no such file/, "copy", site, `${directory}/none/copy.vol`);

    Deno.writeFileSync(copy, new Uint8Array(2 ** 20).fill(7));
    const before = Deno.readFileSync(copy);
    await fails(1, /something else is there.*\n.*--overwrite/, "copy", site, copy);
    assertEquals(Deno.readFileSync(copy), before);
    await ok("copy", site, copy, "--overwrite");

    // Another volume, an origin with changes of its own, and a base that is gone.
    const other = `${directory}/other.vol`;
    await ok("init", other, "--size", "16MiB");
    await fails(1, /no snapshot\n.*--at active/, "copy", other, copy);
    await fails(
      1,
      /it is volume [0-9a-f]{32}, the source is/,
      "copy",
      other,
      copy,
      "--at",
      "active",
    );
    await publish("june5");
    await fails(1, /it is an origin.*\n.*--overwrite/, "copy", copy, site);
    await ok("snapshot", "delete", site, "june3");
    await fails(1, /it is at 'june3'.*does not have/, "copy", site, copy);
    const full = await json("copy", site, copy, "--overwrite");
    assertEquals([full.kind, full.name], ["full", "june5"]);
    await fails(1, /it has a copy that is not packed/, "copy", site, copy, "--packed");
    await ok("copy", site, copy, "--packed", "--overwrite");
    assert(Deno.statSync(copy).size < 8 * 2 ** 20);
    // Packed it stays.
    await publish("june7");
    await ok("copy", site, copy, "--packed");
    await ok("fsck", copy);
    assertEquals(filesIn(directory), ["copy.vol", "link", "other.vol", "site.vol", "tree"]);
  }));

test("copy: what is in the active file system is copied where no snapshot is", () =>
  inDirectory(async (directory) => {
    const [site, copy] = [`${directory}/site.vol`, `${directory}/copy.vol`];
    await ok("init", site, "--size", "16MiB");
    await makeTree(`${directory}/tree`, { a: "now" });
    await ok("import", site, `${directory}/tree`);
    await fails(1, /it has no snapshot/, "copy", site, copy);
    await ok("copy", site, copy, "--at", "active");
    assertEquals(await ok("cat", copy, "a", "--at", "active"), "now");
    assertEquals((await volcast("copy", site, copy, "--at", "active")).code, 3);
  }));

test("copy from a server: full, increment by id and pointer, and exit code 3", () =>
  withSite(async ({ site, tree, copy, publish }) => {
    await publish("june5");
    await serving([site], async (url) => {
      assertEquals((await json("copy", url, copy, "--at", "june3")).kind, "full");
      const increment = await json("copy", `${url}/`, copy, "--at", "master");
      assertEquals([increment.kind, increment.name], ["increment", "june5"]);
      assertEquals((await volcast("copy", url, copy)).code, 3);
      assertEquals((await volcast("copy", url, copy, "--at", increment.top)).code, 3);
      await fails(
        1,
        /Cannot find a snapshot or pointer 'june9'/,
        "copy",
        url,
        copy,
        "--at",
        "june9",
      );
      await fails(5, /Use http/, "copy", copy, site);
      await makeTree(tree, { b: "only in the active file system" });
      await ok("import", url, tree);
      await ok("copy", url, copy, "--at", "active");
      assertEquals(await ok("cat", copy, "b", "--at", "active"), "only in the active file system");
    });
  }));

test("init: striped and packed, and what cannot be both", () =>
  inDirectory(async (directory) => {
    const size = ["--size", "16MiB"];
    const stripe = `${directory}/a,${directory}/b`;
    const made = await json("init", "--stripe", stripe, ...size);
    assertEquals([made.path, made.capacityBlocks], [stripe, 4096]);
    const packed = `${directory}/p`;
    await ok("init", packed, "--packed", ...size);
    for (
      const [path, kind] of [[stripe, "striped"], [`${directory}/b`, "striped"], [packed, "packed"]]
    ) {
      const { file } = await json("info", path);
      assertEquals(file.kind, kind);
      await ok("fsck", path);
    }
    assertMatch(await ok("info", stripe), /^layout +striped over .*\/a, .*\/b$/m);
    assertMatch(await ok("info", packed), /^layout +packed$/m);
    await fails(2, /no path is given/, "init", ...size);
    await fails(2, /two are given/, "init", packed, "--stripe", stripe, ...size);
    await fails(2, /exclude each other/, "init", "--packed", "--stripe", stripe, ...size);
    await fails(1, /exists already/, "init", "--stripe", `${directory}/c,${directory}/a`, ...size);
    assertEquals(filesIn(directory), ["a", "b", "p"]);
  }));
