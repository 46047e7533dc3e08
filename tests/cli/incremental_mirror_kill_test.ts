/**
 * First rounds of incremental mirrors that do not come to their end, by a kill or by an error: nothing is
 * kept for ever, and the next one is as if there had been none.
 */

import { assertEquals } from "@std/assert";
import { fails, inDirectory, json, ok } from "../helpers/cli.ts";
import { killAt, type Moment } from "../helpers/kill_at.ts";
import { namesIn, Site } from "../helpers/mirrored_site.ts";
import { test } from "../helpers/strict.ts";

/** One mirror is there, and at its source one site and one snapshot for it. */
async function assertOne(site: Site, into: string, text: string): Promise<void> {
  assertEquals(await ok("cat", into, "/b"), text);
  assertEquals(Object.keys(await site.sites()), ["m.mirror"]);
  const [snapshot, ...more] = await site.snapshots();
  assertEquals([/^mirror\.m\.mirror\.\d+$/.test(snapshot), more], [true, []]);
}

const MOMENTS: readonly (readonly [Moment, string])[] = [
  ["writing", "base.img"],
  ["before", "base.img"],
  ["after", "base.img"],
  ["before", "m.mirror"],
  ["after", "m.mirror"],
];
for (const [moment, file] of MOMENTS) {
  test(`a first round that is killed ${moment} ${file} leaves nothing that the next does not use`, () =>
    inDirectory(async (directory) => {
      const site = await Site.make(directory);
      const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
      await killAt([moment, file], site.round(base, into));
      const text = await site.change();
      await ok(...site.round(base, into));
      await assertOne(site, into, text);
      assertEquals(namesIn(directory), ["base.img", "m.mirror", "site.vol", "tree"]);
    }));
}

test("what a killed first round kept goes with the next round of any incremental mirror", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const lost = [`${directory}/lost/`, `${directory}/lost.mirror`] as const;
    const pieces = ["--segment-size", "128KiB"];
    await killAt(["writing", ".002"], site.round(...lost, ...pieces));
    assertEquals([(await site.snapshots()).length, namesIn(lost[0]).length], [1, 2]);
    const text = await site.change();
    const into = `${directory}/m.mirror`;
    await ok(...site.round(`${directory}/base.img`, into));
    await assertOne(site, into, text);
    // Of what was lost there are segments that no snapshot goes with any more.
    await fails(1, /segments of 'mirror\.lost\.mirror.*another directory/s, ...site.round(...lost));
    await assertOne(site, into, text);
  }));

test("segments of a killed first round are gone on with, and those of one that failed go", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base/`, `${directory}/m.mirror`];
    const round = site.round(base, into, "--segment-size", "128KiB");
    await killAt(["before", ".002"], round);
    const [snapshot] = await site.snapshots();
    const text = await site.change();
    const { rename } = Deno;
    Deno.rename = (from, to) =>
      String(to).endsWith(".002") ? Promise.reject(new Deno.errors.Busy("no")) : rename(from, to);
    try {
      await fails(1, /no/, ...round);
    } finally {
      Deno.rename = rename;
    }
    assertEquals([namesIn(base), await site.snapshots(), await site.sites()], [[], [], {}]);
    await killAt(["before", ".002"], round);
    assertEquals((await json(...round)).resumed, true);
    await assertOne(site, into, text);
    assertEquals(namesIn(base).every((name) => !name.startsWith(`${snapshot}.`)), true);
  }));

test("a first round that fails keeps nothing, but for a base that is complete", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base.img`, `${directory}/m.mirror`];
    const { rename, renameSync } = Deno;
    const before = namesIn(directory);
    try {
      Deno.rename = () => Promise.reject(new Deno.errors.Busy("no base"));
      await fails(1, /no base/, ...site.round(base, into));
      assertEquals([namesIn(directory), await site.snapshots()], [before, []]);
      assertEquals(await site.sites(), {});
      Deno.rename = rename;
      Deno.renameSync = (_, to) => {
        throw new Deno.errors.Busy(`no ${to}`);
      };
      await fails(1, /no .*m\.mirror/, ...site.round(base, into));
      assertEquals(namesIn(directory), ["base.img", ...before]);
    } finally {
      Object.assign(Deno, { rename, renameSync });
    }
    const text = await site.change();
    assertEquals((await json(...site.round(base, into))).kind, "increment");
    await assertOne(site, into, text);
  }));

test("what a complete base stands on is kept, whatever else is mirrored before its mirror is made", () =>
  inDirectory(async (directory) => {
    const site = await Site.make(directory);
    const [base, into] = [`${directory}/base/`, `${directory}/m.mirror`];
    // The first segment is half there: the next attempt writes one of another name.
    await killAt(["writing", ".001"], site.round(base, into));
    await site.change();
    await killAt(["before", "m.mirror"], site.round(base, into));
    assertEquals(namesIn(base).map((name) => /^mirror\.m\.mirror\.\d+\.001$/.test(name)), [true]);
    await ok(...site.round(`${directory}/other.img`, `${directory}/other.mirror`));
    const text = await site.change();
    assertEquals((await json(...site.round(base, into))).kind, "increment");
    assertEquals(await ok("cat", into, "/b"), text);
    assertEquals(Object.keys(await site.sites()).sort(), ["m.mirror", "other.mirror"]);
    assertEquals((await site.snapshots()).length, 2);
  }));
