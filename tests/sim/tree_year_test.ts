// A year of a tree that is pulled by hand, on simulated time: a release every other day, old ones pruned as one does,
// clocks that are set, summer time, and a site that is away for months.

import { assertEquals } from "@std/assert";
import { assert } from "../../src/core/mod.ts";
import { PinBudget } from "../../src/replication/mod.ts";
import { MASTER } from "../../src/volume/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { FileModel } from "../models/file_model.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import { checkHeld } from "./tree_invariants.ts";
import { SimNet } from "./tree_net.ts";
import { TreeNode } from "./tree_node.ts";
import { SimTime } from "./tree_time.ts";
import { Truth } from "./truth.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Releases that are kept: of the last days, and of so many weeks and months. */
const KEPT = { days: 7, weeks: 5, months: 4 };

/** Which of the releases of these days may go today. */
function prunable(days: readonly number[], today: number): number[] {
  return days.filter((day) => {
    const age = today - day;
    if (age < KEPT.days) return false;
    if (day % 7 === 0 && age < KEPT.weeks * 7) return false;
    return !(day % 28 === 0 && age < KEPT.months * 28);
  });
}

Deno.test("a year of releases, pruned, with clocks that are set and a site that is away", async () => {
  const random = new Random(1);
  const time = new SimTime();
  const truth = new Truth();
  const log: string[] = [];
  const net = new SimNet(time, random.fork(), {
    count: () => {},
    watcher: { asks: () => {}, sends: () => {} },
  });
  const counts = { full: 0, increments: 0, pruned: 0, refused: 0 };
  const around = {
    time,
    names: ["origin", "paris", "rome", "oslo"],
    net,
    random: random.fork(),
    note: (text: string) => void log.push(text),
    count: () => {},
    died: () => {},
  };
  const nodes = [["origin", []], ["paris", ["origin"]], ["rome", ["paris"]], ["oslo", ["origin"]]]
    .map(([name, parents]) => new TreeNode(name as string, parents as string[], around));
  const [origin, ...sites] = nodes;
  await origin.create(4096, "0123456789abcdef0123456789abcdef");
  for (const node of nodes) {
    node.follows = false;
    node.boot();
  }
  const { volume } = origin.process!.node;
  const history = History.resume(
    { store: undefined as unknown as MemoryStore, volume, model: new FileModel() },
    random.fork(),
    { writeBytes: 12_000, prefix: "r" },
  );
  // By hand too: by itself it looks every minute, which is half a million looks.
  const budget = new PinBudget(origin.process!.node, {
    bytes: 80_000,
    log: (text) => void log.push(text),
  });
  const idOfDay = new Map<number, string>();

  for (let day = 0; day < 365; day += 2) {
    await time.pass(2 * DAY - HOUR + random.below(2 * HOUR));
    // Summer time at some hosts, and clocks that were wrong.
    if (day === 84 || day === 300) {
      for (const { host } of nodes) {
        host.offsetMs += day < 200 ? HOUR : -HOUR;
      }
    }
    if (random.oneIn(20)) {
      random.pick(nodes).host.offsetMs += random.pick([-400, -30, -1, 1, 30]) * DAY;
    }

    await time.finish(history.change(2));
    const kept = await time.finish(history.snapshot({ pointers: [MASTER] }));
    assert(kept !== undefined, `day ${day}: the volume is full`);
    // Looking at all of a release costs more than making it.
    if (day % 14 === 0) truth.learn(volume, volume.resolve(kept.id), history.model);
    idOfDay.set(day, kept.id);
    await time.finish(budget.enforce());
    for (const old of prunable([...idOfDay.keys()], day)) {
      const id = idOfDay.get(old)!;
      if (volume.find(id) === undefined) {
        // The budget made a shadow of it, which goes by itself.
        idOfDay.delete(old);
        continue;
      }
      const gone = await time.finish(
        volume.exclusive((writer) => writer.deleteSnapshot(id)).then(() => true, (error) => {
          assertEquals(error.kind, "held", `day ${day}: ${error.message}`);
          return false;
        }),
      );
      counts[gone ? "pruned" : "refused"]++;
      if (gone) idOfDay.delete(old);
    }
    for (const site of sites) {
      // One is away for a quarter, the others now and then.
      const isAway = site.name === "oslo" ? day > 100 && day < 190 : random.oneIn(10);
      if (isAway) continue;
      const result = await time.finish(site.puller!.pull());
      if (result.kind === "full") counts.full++;
      if (result.kind === "increment") counts.increments++;
      const { current } = site.volume!;
      if (truth.knows(current.id)) truth.checkShows(site.volume!, current);
    }
    if (day % 90 === 88) {
      for (const node of nodes) {
        checkHeld(node.volume!, truth);
        assertClean(node.volume!);
      }
    }
  }
  // The first image of each is a full one, and no other: who was away had a base still.
  assertEquals(counts.full, sites.length);
  assert(counts.pruned > 100, JSON.stringify(counts));
  assert(counts.refused > 0, JSON.stringify(counts));
  assert(log.some((line) => line.includes("a shadow")), "the budget was never short");
  const most = KEPT.days + KEPT.weeks + KEPT.months + sites.length;
  for (const node of nodes) {
    const { snapshots, shadows } = {
      snapshots: node.volume!.snapshots(),
      shadows: node.volume!.shadows(),
    };
    assert(snapshots.length <= most, `${node.name} keeps ${snapshots.length} snapshots`);
    assert(shadows.length <= sites.length, `${node.name} keeps ${shadows.length} shadows`);
    assert(JSON.stringify(node.volume!.local).length < 8000, "the local state stays small");
    node.process!.clock.isDead = true;
  }
});
