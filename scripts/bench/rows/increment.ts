/**
 * An increment, by one command and at a site that is served, against rsync's daemon.
 *
 * The second release and the first one take turns: what changes is the same both ways, and everybody
 * begins where the turn before ended.
 *
 * @module
 */

import { assertSame, digestOfDirectory, digestOfVolume } from "../digest.ts";
import type { Lab } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import type { Origin, Release } from "../origin.ts";
import { rsyncPull, startRsyncDaemon } from "../peers/rsync.ts";
import type { Service } from "../process.ts";
import { missing } from "../programs.ts";
import { faster, type Line, lineOf, type Outcome, type Row, without } from "../row.ts";
import { Site } from "../site.ts";
import type { TreeKind } from "../trees.ts";
import { assertPulled, pull, type Pulled } from "../volcast.ts";

const RSYNC = "rsync daemon";
const COMMAND = "volcast pull";
const SERVED = "a site that is served";

/** The row of a tree. */
export function increment(kind: TreeKind): Row {
  return {
    id: `increment-${kind}`,
    title: `increment of '${kind}'`,
    measure: (lab) => lab.within("increment", (directory) => measure(lab, kind, directory)),
  };
}

async function measure(lab: Lab, kind: TreeKind, directory: string): Promise<Outcome> {
  const origin = await lab.origin(kind);
  const what = `1 % changed in '${kind}'`;
  if (missing(["rsync"]).length > 0) {
    return without(what, ["rsync"]);
  }
  await using stack = new AsyncDisposableStack();
  const { first, second } = origin.releases;
  const daemon = stack.use(await startRsyncDaemon(directory, { first, second }));
  const volume = `${directory}/site.vol`;
  await pull(volume, origin.url);
  const servedVolume = `${directory}/served.vol`;
  const site = await Site.start(servedVolume, {
    name: "served",
    parent: origin.url,
    release: "first",
  });
  stack.use(site);
  const target = `${directory}/rsync`;
  await rsyncPull(daemon, "first", target);

  const turn = new Turn();
  const figures = await inTurns(lab.scale.turns, [
    byServedSite(origin, site, turn),
    byCommand(origin, volume, turn),
    byRsync(origin, daemon, { target, turn }),
  ]);
  const last = turn.release;
  await stack.disposeAsync();
  assertSame(await digestOfVolume(servedVolume), origin.digest(last));

  const line = (name: string): Line =>
    lineOf(figures, { own: name, against: RSYNC }, {
      what: `${what}: ${name}`,
      unit: "s",
      ...(kind === "many" ? { target: faster(20) } : {}),
    });
  return { lines: [line(COMMAND), line(SERVED)] };
}

/** Which release comes now. */
class Turn {
  release: Release = "first";

  next(): void {
    this.release = this.release === "first" ? "second" : "first";
  }
}

/** The site hears of the release by itself: from the moment its parent's pointer moves. */
function byServedSite(origin: Origin, site: Site, turn: Turn): Contestant {
  return {
    name: SERVED,
    prepare: () => turn.next(),
    async run() {
      const pulled = site.pulled(turn.release);
      await origin.point(turn.release);
      await pulled;
    },
    check: () => site.assertHas(turn.release),
  };
}

function byCommand(origin: Origin, volume: string, turn: Turn): Contestant {
  let pulled: Pulled | undefined;
  return {
    name: COMMAND,
    run: async () => void (pulled = await pull(volume, origin.url)),
    async check() {
      const [base, top] = turn.release === "first" ? ["second", "first"] : ["first", "second"];
      const { bytes } = await origin.plan(`${top} - ${base}`);
      assertPulled(pulled, { kind: "increment", name: top, bytes });
      assertSame(await digestOfVolume(volume), origin.digest(turn.release));
    },
  };
}

function byRsync(
  origin: Origin,
  daemon: Service,
  { target, turn }: { target: string; turn: Turn },
): Contestant {
  return {
    name: RSYNC,
    run: () => rsyncPull(daemon, turn.release, target),
    check: () => assertSame(digestOfDirectory(target), origin.digest(turn.release)),
  };
}
