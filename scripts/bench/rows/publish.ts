/**
 * Publishing a tree, and its second release, against `rsync -a` on the same host.
 *
 * @module
 */

import { assertSame, digestOfDirectory, digestOfVolume } from "../digest.ts";
import { clear, type Lab } from "../lab.ts";
import { type Contestant, type Figures, inTurns } from "../measure.ts";
import { makeVolume, type Origin, type Release } from "../origin.ts";
import { rsyncCopy } from "../peers/rsync.ts";
import { must } from "../process.ts";
import { missing } from "../programs.ts";
import { faster, type Line, lineOf, type Outcome, type Row, without } from "../row.ts";
import { volcast } from "../volcast.ts";

const RSYNC = "rsync -a, local";

/** See the module. */
export const publish: Row = {
  id: "publish",
  title: "publishing a tree",
  measure: (lab) => lab.within("publish", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const what = "publish of 'many'";
  const origin = await lab.origin("many");
  if (missing(["rsync"]).length > 0) {
    return without(what, ["rsync"]);
  }
  const paths = { volume: `${directory}/published.vol`, copy: `${directory}/copy` };
  const first = await inTurns(lab.scale.turns, firstTime(origin, paths));
  // What the last turn left is where the second release begins.
  const second = await inTurns(lab.scale.turns, nextTime(origin, paths));
  const line = (release: string, figures: Figures): Line =>
    lineOf(figures, { own: "volcast", against: RSYNC }, {
      what: `${what}, ${release}`,
      unit: "s",
      target: faster(1),
    });
  return { lines: [line("first release", first), line("a release with 1 % changed", second)] };
}

interface Paths {
  readonly volume: string;
  readonly copy: string;
}

function firstTime(origin: Origin, { volume, copy }: Paths): Contestant[] {
  const { releases } = origin;
  return [{
    name: "volcast",
    async prepare() {
      await clear(volume);
      await makeVolume(volume, releases);
    },
    run: async () => void await must(volcast("publish", volume, releases.first, "--as", "0")),
    check: async () => assertSame(await digestOfVolume(volume), origin.digest("first")),
  }, {
    name: RSYNC,
    prepare: () => clear(copy),
    run: () => rsyncCopy(releases.first, copy),
    check: () => assertSame(digestOfDirectory(copy), origin.digest("first")),
  }];
}

/** Both releases take turns, so that 1 % has changed each time. */
function nextTime(origin: Origin, { volume, copy }: Paths): Contestant[] {
  const { releases } = origin;
  let release: Release = "first";
  let number = 0;
  return [{
    name: "volcast",
    prepare: () => void (release = release === "first" ? "second" : "first"),
    async run() {
      await must(volcast("publish", volume, releases[release], "--as", String(++number)));
    },
    check: async () => assertSame(await digestOfVolume(volume), origin.digest(release)),
  }, {
    name: RSYNC,
    run: () => rsyncCopy(releases[release], copy),
    check: () => assertSame(digestOfDirectory(copy), origin.digest(release)),
  }];
}
