/**
 * How costs grow: with what changed, with the number of files, with the size of the volume, with the
 * number of sites.
 *
 * @module
 */

import { Server } from "../../tests/e2e/harness.ts";
import { ContentMaker } from "./content.ts";
import { assertSame, digestOfDirectory, digestOfVolume } from "./digest.ts";
import { clear, type Lab } from "./lab.ts";
import { median } from "./measure.ts";
import type { Plot } from "./plots.ts";
import { must } from "./process.ts";
import { aggregate } from "./rows/sites.ts";
import { Site } from "./site.ts";
import { makeMany } from "./trees.ts";
import { assertPulled, pull, setPointer, volcast } from "./volcast.ts";

const MIB = 2 ** 20;
const TURNS = 3;
/** Bytes that change where something else grows. */
const SOME_BYTES = 4 * MIB;

/** Points of a plot: they grow until the scale's limit. */
function steps(from: number, to: number, factor: number): number[] {
  const list = [];
  for (let value = from; value <= to; value *= factor) list.push(value);
  return list;
}

/** Measures all of them. */
export async function growth(lab: Lab): Promise<Plot[]> {
  const plots: Plot[] = [];
  for (const measure of [byChangedBytes, byFiles, byVolumeSize, bySites]) {
    lab.note(`growth: ${measure.name}`);
    plots.push(...await lab.within("growth", (directory) => measure(lab, directory)));
  }
  return plots;
}

async function byChangedBytes(lab: Lab, directory: string): Promise<Plot[]> {
  const points: [number, number][] = [];
  for (const bytes of steps(64 * 1024, lab.scale.largeBytes, 4)) {
    points.push([bytes / MIB, await incrementSeconds(`${directory}/${bytes}`, { bytes })]);
  }
  return [{
    id: "pull-by-changed-bytes",
    title: "Increment at a served site, by what changed",
    x: "MiB changed",
    y: "s",
    lines: [{ name: "volcast", points }],
  }];
}

async function byVolumeSize(lab: Lab, directory: string): Promise<Plot[]> {
  const points: [number, number][] = [];
  const bytes = Math.min(SOME_BYTES, lab.scale.largeBytes);
  for (const gib of [1, 4, 16, 64, 256, 1024]) {
    const path = `${directory}/${gib}`;
    points.push([gib, await incrementSeconds(path, { bytes, size: `${gib}GiB` })]);
  }
  return [{
    id: "pull-by-volume-size",
    title: `Increment of ${bytes / MIB} MiB at a served site, by the size of the volume`,
    x: "GiB of volume",
    y: "s",
    lines: [{ name: "volcast", points }],
  }];
}

/** Seconds from the move of the pointer until the site has `bytes` that are new. */
async function incrementSeconds(
  directory: string,
  { bytes, size = String(bytes * 3 + 16 * MIB) }: { bytes: number; size?: string },
): Promise<number> {
  await using stack = new AsyncDisposableStack();
  await Deno.mkdir(`${directory}/tree`, { recursive: true });
  stack.defer(() => Deno.remove(directory, { recursive: true }));
  const volume = `${directory}/origin.vol`;
  await must(volcast("init", volume, "--size", size));
  const maker = new ContentMaker(5);
  for (const release of ["first", "second"]) {
    Deno.writeFileSync(`${directory}/tree/content`, maker.noise(bytes));
    await must(volcast("publish", volume, `${directory}/tree`, "--as", release, "--checksum"));
  }
  const server = stack.use(await Server.start([volume]));
  const copy = `${directory}/site.vol`;
  const site = await Site.start(copy, { name: "site", parent: server.url, release: "second" });
  const seconds: number[] = [];
  // The first turn warms up; the last one ends with the release that the tree has.
  for (let turn = 0; turn < TURNS + 1; turn++) {
    const release = turn % 2 === 0 ? "first" : "second";
    const pulled = site.pulled(release);
    const begin = performance.now();
    await setPointer(server.url, "master", release);
    await pulled;
    if (turn > 0) seconds.push((performance.now() - begin) / 1000);
  }
  await site[Symbol.asyncDispose]();
  assertSame(await digestOfVolume(copy), digestOfDirectory(`${directory}/tree`));
  return median(seconds);
}

async function byFiles(lab: Lab, directory: string): Promise<Plot[]> {
  const publish: [number, number][] = [];
  const full: [number, number][] = [];
  for (const count of steps(100, lab.scale.manyFiles, 10)) {
    const path = `${directory}/${count}`;
    await Deno.mkdir(`${path}/tree`, { recursive: true });
    makeMany(new ContentMaker(6), `${path}/tree`, count);
    const times = await fileSeconds(path, count);
    publish.push([count, times.publish]);
    full.push([count, times.pull]);
    await clear(path);
  }
  return [{
    id: "by-files",
    title: "Publish of a tree and full pull of it, by its files",
    x: "files",
    y: "s",
    lines: [{ name: "publish", points: publish }, { name: "full pull", points: full }],
  }];
}

async function fileSeconds(
  path: string,
  count: number,
): Promise<{ publish: number; pull: number }> {
  const volume = `${path}/origin.vol`;
  const expected = digestOfDirectory(`${path}/tree`);
  await must(volcast("init", volume, "--size", String(count * 16_384 + 64 * MIB)));
  let begin = performance.now();
  await must(volcast("publish", volume, `${path}/tree`, "--as", "first"));
  const publish = (performance.now() - begin) / 1000;
  await using server = await Server.start([volume]);
  begin = performance.now();
  assertPulled(await pull(`${path}/site.vol`, server.url), { kind: "full" });
  const seconds = (performance.now() - begin) / 1000;
  assertSame(await digestOfVolume(`${path}/site.vol`), expected);
  return { publish, pull: seconds };
}

async function bySites(lab: Lab, directory: string): Promise<Plot[]> {
  const points: [number, number][] = [];
  for (const count of steps(1, lab.scale.sites, 2)) {
    const { seconds } = await aggregate(lab, `${directory}/${count}`, { count, isTree: false });
    points.push([count, seconds]);
  }
  return [{
    id: "pull-by-sites",
    title: `Increment of ${lab.scale.siteBytes / MIB} MiB until all sites have it, by their number`,
    x: "sites",
    y: "s",
    lines: [{ name: "volcast", points }],
  }];
}
