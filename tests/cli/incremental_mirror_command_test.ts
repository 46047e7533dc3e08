/**
 * Incremental mirrors from the command line, in this process.
 */

import { assert, assertEquals } from "@std/assert";
import { openMirror } from "../../src/cli/open_volume.ts";
import { fails, inDirectory, json, ok, serving } from "../helpers/cli.ts";
import { namesIn, Site } from "../helpers/mirrored_site.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

test("two mirrors whose files have the same name in two directories are two sites", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    for (const name of ["a", "b"]) Deno.mkdirSync(`${directory}/${name}`);
    const of = (name: string) => [`${directory}/${name}/base.img`, `${directory}/${name}/m.mirror`];
    for (let round = 0; round < 3; round++) {
      for (const name of ["a", "b"]) {
        const text = await site.change();
        const [base, into] = of(name);
        const { kind } = await json(...site.round(base, into));
        assertEquals([name, kind], [name, round === 0 ? "full" : "increment"]);
        assertEquals(await ok("cat", into, "/b"), text);
      }
    }
    assertEquals((await site.snapshots()).length, 2);
    // The name is the mirror's own: it moves with its file, and a new one gets another.
    const [base, into] = of("a");
    const moved = `${directory}/b/moved.mirror`;
    Deno.renameSync(into, moved);
    assertEquals((await json(...site.round(`${directory}/a/other.img`, into))).kind, "full");
    await site.change();
    for (const [under, name] of [[base, moved], of("b"), [`${directory}/a/other.img`, into]]) {
      assertEquals((await json(...site.round(under, name))).kind, "increment");
    }
    assertEquals(Object.keys(await site.sites()), ["m.mirror", "m.mirror-2", "m.mirror-3"]);
    assertEquals((await site.snapshots()).length, 3);
  }));

test("a mirror that was made before mirrors had names goes on under that of its file", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/old.mirror`];
    await ok(...site.round(base, into));
    const mirror = await openMirror({ mirror: into, base });
    await mirror.updateLocal((state) => {
      delete state.site;
    });
    await mirror.close();
    await site.change();
    assertEquals((await json(...site.round(base, into))).kind, "increment");
    const moved = `${directory}/new.mirror`;
    Deno.renameSync(into, moved);
    await site.change();
    assertEquals((await json(...site.round(base, moved))).kind, "increment");
    assertEquals(Object.keys(await site.sites()), ["old.mirror"]);
    assertEquals((await site.snapshots()).length, 1);
  }));

test("a base of another volume, or of a newer line of history, is refused, and nothing stays", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const base = `${directory}/base.img`;
    const other = `${directory}/other`;
    Deno.mkdirSync(other);
    await ok("snapshot", "create", (await Site.make(other)).volume, "june3");
    await ok("image", `${other}/site.vol`, "june3", "-o", base);
    const before = [namesIn(directory), await site.snapshots(), await site.sites()];
    await fails(1, /it has volume/, ...site.round(base, `${directory}/new.mirror`));
    assertEquals([namesIn(directory), await site.snapshots(), await site.sites()], before);
    // A replica is promoted, and gives an image; the volume that it came from is left behind.
    const replica = `${directory}/replica.vol`;
    await ok("snapshot", "create", site.volume, "june3");
    await ok("copy", site.volume, replica);
    await ok("promote", replica);
    await ok("snapshot", "create", replica, "june5");
    const newer = `${directory}/newer.img`;
    await ok("image", replica, "june5", "-o", newer);
    const then = [namesIn(directory), await site.snapshots(), await site.sites()];
    await fails(1, /line of history 2/, ...site.round(newer, `${directory}/new.mirror`));
    assertEquals([namesIn(directory), await site.snapshots(), await site.sites()], then);
  }));

test("what cannot be mirrored into is refused before anything is made, with what to do for a mirror", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    const refused = async (says: RegExp, ...args: string[]) => {
      const before = [namesIn(directory), await site.snapshots(), await site.sites()];
      const { err } = await fails(1, says, ...args);
      assert(!/--parents|URL|resync|--full/.test(err), err);
      assertEquals([namesIn(directory), await site.snapshots(), await site.sites()], before);
    };
    await refused(
      /base\.img: .*no\/where.*Make it/s,
      ...site.round(`${directory}/no/where/base.img`, into),
    );
    await refused(
      /m\.mirror: .*no\/where.*Make it/s,
      ...site.round(base, `${directory}/no/where/m.mirror`),
    );
    await refused(
      /m\.mirror: .*no\/where/s,
      ...site.round(`${base}/`, `${directory}/no/where/m.mirror`),
    );
    // What the standby stands on is unknown here.
    const other = `${directory}/other`;
    Deno.mkdirSync(other);
    const stranger = await Site.make(other);
    await ok(...stranger.round(base, into));
    await refused(/it has volume.*other paths for --base and --into/s, ...site.round(base, into));
    const copy = `${directory}/copy.vol`;
    Deno.copyFileSync(stranger.volume, copy);
    await stranger.change();
    await ok(...stranger.round(base, into));
    Deno.renameSync(copy, stranger.volume);
    await refused(
      /stands on 'mirror\.m\.mirror.*other paths for --base and --into/s,
      ...stranger.round(base, into),
    );
    // A base that is there is not written over, with a mirror and without.
    await fails(1, /Cannot make a new base.*other paths/s, ...stranger.round(base, into, "--full"));
    await ok("snapshot", "create", site.volume, "june3");
    const image = `${directory}/june3.img`;
    await ok("image", site.volume, "june3", "-o", image);
    await refused(
      /Cannot make a new base.*other paths/s,
      ...site.round(image, `${directory}/new.mirror`, "--full"),
    );
  }));

test("whoever meets a bad block of a base names the base's file and the VBN", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    await ok(...site.round(base, into));
    // A bit of what `a` has.
    const bytes = Deno.readFileSync(base);
    const content = new Random(1).bytes(200_000).subarray(20_000, 20_032);
    const at = bytes.findIndex((_, i) => content.every((byte, j) => byte === bytes[i + j]));
    bytes[at] ^= 1;
    Deno.writeFileSync(base, bytes);
    const out = `${directory}/whole.vol`;
    const says = /VBN \d+ in \S*base\.img: its checksum is .*copy/s;
    const { err } = await fails(4, says, "reintegrate", base, into, "-o", out);
    assert(!/stream broke|curl/.test(err), err);
    await fails(4, says, "cat", into, "/a");
    await fails(4, says, ...site.round(base, `${directory}/other.mirror`));
    assertEquals(namesIn(directory).filter((name) => /whole|other/.test(name)), []);
  }));

test("what a killed run left of a mirror's file is removed, and not what another is writing", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    await ok("snapshot", "create", site.volume, "june3");
    await ok("image", site.volume, "june3", "-o", base);
    Deno.writeTextFileSync(`${into}.incoming`, "half");
    {
      using other = Deno.openSync(`${into}.incoming`, { write: true });
      other.lockSync(true);
      await fails(5, /m\.mirror\.incoming: .*another process/, ...site.round(base, into));
      assertEquals(Deno.readTextFileSync(`${into}.incoming`), "half");
      other.unlockSync();
    }
    await ok(...site.round(base, into));
    const files = ["base.img", "m.mirror", "site.vol", "tree"];
    assertEquals(namesIn(directory), files);
  }));

test("a mirror is a file, and another one than its base", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const before = namesIn(directory);
    const [file, folder] = [`${directory}/x`, `${directory}/base`];
    for (
      const [base, into, says] of [
        [file, file, /both --base and --into/],
        [`${directory}/./x`, file, /both --base and --into/],
        [`${folder}/`, folder, /both --base and --into/],
        [file, `${folder}/`, /it is a directory/],
      ] as const
    ) {
      await fails(2, says, ...site.round(base, into));
      assertEquals([namesIn(directory), await site.snapshots()], [before, []]);
    }
    Deno.mkdirSync(folder);
    Deno.symlinkSync(folder, `${directory}/link`);
    await fails(2, /both/, ...site.round(`${folder}/x`, `${directory}/link/x`));
    assertEquals(namesIn(folder), []);
    // A pipe would be waited for.
    await fails(2, /neither a file nor a directory/, ...site.round("/dev/null", file));
    await ok("init", `${directory}/store.vol`, "--size", "16MiB");
    await ok(...site.round(`${directory}/store.vol:/bases/x.img`, file));
  }));

test("a base is not written over by what is made of it", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const into = `${directory}/m.mirror`;
    for (const base of ["base.img", "base/"].map((name) => `${directory}/${name}`)) {
      await ok(...site.round(base, into));
      const targets = base.endsWith("/") ? namesIn(base).map((name) => base + name) : [base];
      const says = /Cannot copy to .*base.*: .*the base of .*m\.mirror/;
      for (const to of targets) {
        await fails(2, says, "reintegrate", base, into, "-o", to, "--overwrite");
        await fails(2, says, "copy", into, to, "--overwrite");
      }
      await ok("fsck", into);
      Deno.removeSync(into);
    }
  }));

test("who comes to a mirror that is served is told where", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    await ok(...site.round(base, into));
    await serving([into], async (url) => {
      const says = new RegExp(`serves it at ${url}`);
      await fails(5, says, ...site.round(base, into));
      await fails(5, says, "cat", into, "/b");
      await fails(5, says, "reintegrate", base, into, "-o", `${directory}/whole.vol`);
    });
    assertEquals((await site.snapshots()).length, 1);
  }));

test("who names a base that is not there is told to name it as this command takes it", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    await ok(...site.round(base, into));
    Deno.renameSync(base, `${base}.moved`);
    await fails(1, /not at .*base\.img.*m\.mirror\+PATH/s, "ls", into);
    const out = ["-o", `${directory}/whole.vol`];
    const says = /not at .*base\.img\n.*made over .*base\.img.*now/s;
    for (const args of [site.round(base, into), ["reintegrate", base, into, ...out]]) {
      const { err } = await fails(1, says, ...args);
      assert(!err.includes("+"), err);
    }
    await fails(1, /not at no\n.*made over .*base\.img/s, "reintegrate", "no", into, ...out);
    await ok("reintegrate", `${base}.moved`, into, ...out);
  }));

test("what comes to the path of a base while that is written is not written over", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    const { open } = Deno;
    Deno.open = (name, options) => {
      if (String(name).endsWith(".part")) Deno.writeTextFileSync(base, "of somebody else");
      return open(name, options);
    };
    try {
      await fails(1, /base\.img: something came there/, ...site.round(base, into));
    } finally {
      Deno.open = open;
    }
    assertEquals(Deno.readTextFileSync(base), "of somebody else");
    assertEquals(namesIn(directory), ["base.img", "site.vol", "tree"]);
    assertEquals([await site.snapshots(), await site.sites()], [[], {}]);
  }));
