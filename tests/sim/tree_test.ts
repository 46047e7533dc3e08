// Whole trees of nodes in which everything goes wrong that can: see tree.ts. `VOLCAST_SEED=7` lives one of
// them again, and `deno task tree` many long ones.

import { assert, assertEquals } from "@std/assert";
import { Tree } from "./tree.ts";
import { liveWith, MISTAKES } from "./tree_mistakes.ts";

const STEPS = 50;
/** Trees that are lived at least; more until everything has happened, but not without an end. */
const TREES = { least: 6, most: 20 };

/** What must have happened in a group of trees, and how often; else little was tested. */
const LEAST: Record<string, number> = {
  "blocked requests": 1,
  "changed parents": 5,
  "clock steps": 5,
  "corrupted bodies": 1,
  "corrupted requests": 1,
  "crashes": 5,
  "crashes within writes": 5,
  "cut bodies": 5,
  "delays": 50,
  "deleted snapshots": 10,
  "deletions refused": 2,
  "disks looked at": 5,
  "duplicated confirmations": 1,
  "files read": 30,
  "full images": 5,
  "increments": 30,
  "lost answers": 2,
  "lost confirmations": 1,
  "lost requests": 2,
  "masters moved": 2,
  "partitions": 5,
  "publishes": 15,
  "replaced hosts": 1,
  "restarts": 5,
  "revivals": 5,
  "shadows": 1,
  "stalled bodies": 1,
  "takeovers": 1,
  "truncated bodies": 1,
  "writes to full disks": 1,
};

async function live(seed: number, steps: number): Promise<Tree> {
  const tree = await Tree.begin(seed);
  try {
    await tree.run(steps);
  } finally {
    tree.close();
  }
  return tree;
}

Deno.test("all nodes of a tree come to one master, whatever went wrong before", async () => {
  const wanted = Deno.env.get("VOLCAST_SEED");
  if (wanted !== undefined) return void await live(Number(wanted), STEPS);
  const sums: Record<string, number> = {};
  const missing = () => Object.keys(LEAST).filter((what) => (sums[what] ?? 0) < LEAST[what]);
  let seed = 0;
  while (seed < TREES.least || (missing().length > 0 && seed < TREES.most)) {
    const { counts } = await live(++seed, STEPS);
    for (const [what, count] of Object.entries(counts)) sums[what] = (sums[what] ?? 0) + count;
  }
  console.log(`seeds 1 to ${seed}, ${STEPS} steps each`);
  assertEquals(missing(), [], JSON.stringify(sums));
});

Deno.test("a tree comes again with its seed", async () => {
  const [first, second] = [await live(3, 15), await live(3, 15)];
  assertEquals(second.time.count, first.time.count);
  assertEquals(second.digest, first.digest);
});

for (const mistake of MISTAKES) {
  Deno.test(`the tree sees a build in which ${mistake.name}`, async () => {
    const said = await liveWith(mistake, { seeds: 40, steps: 20 });
    assert(mistake.says.test(said), said === "" ? "nothing was seen" : said);
  });
}
