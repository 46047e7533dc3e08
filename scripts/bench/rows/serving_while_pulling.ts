/**
 * A site that serves small files while it applies one image after the other.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import { ContentMaker } from "../content.ts";
import type { Lab } from "../lab.ts";
import { assertPages, load, type LoadReport } from "../load.ts";
import { type Contestant, inTurns } from "../measure.ts";
import { must } from "../process.ts";
import { missing } from "../programs.ts";
import { cost, lineOf, lineOfFailures, type Outcome, type Row, without } from "../row.ts";
import { Site } from "../site.ts";
import { makeReleases } from "../trees.ts";
import { setPointer, volcast } from "../volcast.ts";

const IDLE = "the same, idle";
const PULLING = "while pulling";

/** See the module. */
export const servingWhilePulling: Row = {
  id: "serving-pulling",
  title: "serving files of 10 KiB while images are applied",
  measure: (lab) => lab.within("serving-pulling", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const what = "files of 10 KiB while images are applied";
  if (missing(["wrk"]).length > 0) {
    return without(what, ["wrk"]);
  }
  const tree = makeReleases(directory, "pages", lab.scale).first;
  await using stack = new AsyncDisposableStack();
  const { server, site } = await originAndSite(lab, { directory, tree, stack });
  const counts = { failures: 0, pulls: 0 };
  const figures = await inTurns(
    lab.scale.turns,
    contestants(lab, { directory, tree, server, site, counts }),
  );
  const line = lineOf(figures, { own: PULLING, against: IDLE }, {
    what: `${what}: p99 latency`,
    unit: "ms",
    target: cost(3),
    note: `${counts.pulls} pulls of ${lab.scale.largeBytes} bytes were done meanwhile`,
  });
  return { lines: [line, lineOfFailures(`${what}: failures`, counts.failures)] };
}

/** The pages beside a large file, which is another one in each of the two releases. */
async function originAndSite(
  lab: Lab,
  { directory, tree, stack }: { directory: string; tree: string; stack: AsyncDisposableStack },
): Promise<{ server: Server; site: Site }> {
  const volume = `${directory}/origin.vol`;
  const { largeBytes } = lab.scale;
  const size = largeBytes * 2.5 + 128 * 2 ** 20;
  await must(volcast("init", volume, "--size", String(Math.ceil(size))));
  const maker = new ContentMaker(2);
  for (const release of ["first", "second"]) {
    Deno.writeFileSync(`${tree}/large`, maker.noise(largeBytes));
    await must(volcast("publish", volume, tree, "--as", release, "--checksum"));
  }
  const server = stack.use(await Server.start([volume]));
  const site = await Site.start(`${directory}/site.vol`, {
    name: "site",
    parent: server.url,
    release: "second",
    args: ["--www", "127.0.0.1:0"],
  });
  return { server, site: stack.use(site) };
}

interface Setting {
  readonly directory: string;
  readonly tree: string;
  readonly server: Server;
  readonly site: Site;
  readonly counts: { failures: number; pulls: number };
}

function contestants(
  lab: Lab,
  { directory, tree, server, site, counts }: Setting,
): Contestant[] {
  const { pages, loadSeconds: seconds } = lab.scale;
  const url = `${site.server.wwwUrl}/`;
  const check = () => assertPages(url, tree, pages);
  let report: LoadReport;
  const underLoad = async () => {
    report = await load(url, { pages, seconds, scratch: directory });
    counts.failures += report.failures;
    return report.p99Ms;
  };
  let release = "second";
  const pullOn = async (isOver: () => boolean) => {
    while (!isOver()) {
      release = release === "first" ? "second" : "first";
      const pulled = site.pulled(release);
      await setPointer(server.url, "master", release);
      await pulled;
      counts.pulls++;
    }
  };
  return [
    { name: IDLE, run: underLoad, check },
    {
      name: PULLING,
      async run() {
        let isOver = false;
        const pulls = pullOn(() => isOver);
        try {
          return await underLoad();
        } finally {
          isOver = true;
          await pulls;
        }
      },
      check,
    },
  ];
}
