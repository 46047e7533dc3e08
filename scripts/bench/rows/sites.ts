/**
 * Many sites that pull one increment at once, from the origin and by way of parents between.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import { ContentMaker } from "../content.ts";
import type { Lab } from "../lab.ts";
import { median } from "../measure.ts";
import { must, peakMemory } from "../process.ts";
import { Proxy } from "../../../tests/e2e/proxy.ts";
import { cost, faster, type Line, type Outcome, type Row } from "../row.ts";
import { Site } from "../site.ts";
import { json, setPointer, volcast } from "../volcast.ts";

const MIB = 2 ** 20;
/** What a flat memory may grow by, as more sites come. */
const FLAT = 1.5;
/** Sites below each parent, itself not counted. */
const CHILDREN = 7;
/** Each release brings as much; the turns alternate between them. */
const RELEASES = ["first", "second"] as const;

/** See the module. */
export const sites: Row = {
  id: "sites",
  title: "many sites at once, and parents between",
  measure: (lab) => lab.within("sites", (directory) => measure(lab, directory)),
};

interface Fleet {
  readonly sites: readonly Site[];
  readonly server: Server;
  readonly imageBytes: number;
  /** Counts what the origin sends; it takes time of its own, so only where that is asked for. */
  readonly relay: Proxy | undefined;
  readonly stack: AsyncDisposableStack;
}

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const { sites: count } = lab.scale;
  const one = await aggregate(lab, `${directory}/one`, { count: 1, isTree: false });
  const many = await aggregate(lab, `${directory}/many`, { count, isTree: false });
  const tree = await aggregate(lab, `${directory}/tree`, { count, isTree: true });
  const parents = parentsOf(count);
  const lines: Line[] = [{
    what: `${count} sites that pull one increment at once`,
    unit: "MiB/s",
    figure: many.rate,
    against: "one site",
    other: one.rate,
    target: faster(1.5),
  }, {
    what: `${count} sites at once: the origin's memory`,
    unit: "B",
    figure: many.memory,
    against: "with one site",
    other: one.memory,
    target: cost(FLAT),
  }, {
    what: `${count} sites below ${parents} of them: what the origin sends`,
    unit: "B",
    figure: tree.sent,
    against: `bytes of ${count} images`,
    other: count * tree.imageBytes,
    target: cost(Math.ceil(parents / count * 100 * 1.05) / 100),
  }];
  return { lines };
}

function parentsOf(count: number): number {
  return Math.max(1, Math.round(count / (CHILDREN + 1)));
}

async function fleet(
  lab: Lab,
  directory: string,
  { count, isTree }: { count: number; isTree: boolean },
): Promise<Fleet> {
  const { siteBytes } = lab.scale;
  await using stack = new AsyncDisposableStack();
  await Deno.mkdir(directory);
  stack.defer(() => Deno.remove(directory, { recursive: true }));
  const volume = `${directory}/origin.vol`;
  await must(volcast("init", volume, "--size", String(siteBytes * 3 + 16 * MIB)));
  const maker = new ContentMaker(4);
  await Deno.mkdir(`${directory}/tree`);
  for (const release of RELEASES) {
    Deno.writeFileSync(`${directory}/tree/content`, maker.noise(siteBytes));
    await must(volcast("publish", volume, `${directory}/tree`, "--as", release, "--checksum"));
  }
  const server = stack.use(await Server.start([volume]));
  const relay = isTree ? stack.use(new Proxy(Number(new URL(server.url).port))) : undefined;
  const { bytes: imageBytes } = await json<{ bytes: number }>(
    "plan",
    server.url,
    "second - first",
    "--json",
  );
  const parents = isTree ? parentsOf(count) : count;
  const started: Site[] = [];
  for (let i = 0; i < count; i++) {
    const above = i < parents ? relay?.url ?? server.url : started[i % parents].server.url;
    const site = await Site.start(`${directory}/site${i}.vol`, {
      name: `site${i}`,
      parent: above,
      release: "second",
    });
    started.push(stack.use(site));
  }
  return { sites: started, server, imageBytes, relay, stack: stack.move() };
}

/** What many sites got at once. */
export interface Aggregate {
  /** MiB a second, all together. */
  readonly rate: number;
  /** Until the last one had it. */
  readonly seconds: number;
  /** Most of the origin's memory that was resident. */
  readonly memory: number;
  /** Bytes that the origin sent; 0 without parents between. */
  readonly sent: number;
  readonly imageBytes: number;
}

/** Lets many sites pull an increment at once, some times. */
export async function aggregate(
  lab: Lab,
  directory: string,
  options: { count: number; isTree: boolean },
): Promise<Aggregate> {
  return await follow(await fleet(lab, directory, options), lab.scale.turns);
}

/** Moves the pointer until all have followed, some times; ends the fleet. */
async function follow(
  { sites, server, imageBytes, relay, stack }: Fleet,
  turns: number,
): Promise<Aggregate> {
  await using _ = stack;
  const found: number[] = [];
  let sent = 0;
  // The first one only warms up.
  for (let turn = 0; turn <= turns; turn++) {
    const release = RELEASES[turn % 2];
    const all = Promise.all(sites.map((site) => site.pulled(release)));
    const before = relay?.sent ?? 0;
    const begin = performance.now();
    await setPointer(server.url, "master", release);
    await all;
    const seconds = (performance.now() - begin) / 1000;
    sent = (relay?.sent ?? 0) - before;
    if (turn > 0) found.push(seconds);
    for (const site of sites) await site.assertHas(release);
  }
  if (relay !== undefined && sent < imageBytes) {
    throw new Error(`the origin sent ${sent} bytes, an image has ${imageBytes}`);
  }
  const seconds = median(found);
  const rate = sites.length * imageBytes / MIB / seconds;
  return { rate, seconds, memory: peakMemory(server.process.pid), sent, imageBytes };
}
