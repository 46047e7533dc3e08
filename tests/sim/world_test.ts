// Everything together, in random histories: see world.ts. `VOLCAST_SEED=7` lives one of them again, and
// `deno task worlds` many long ones.

import { assert, assertRejects } from "@std/assert";
import { difference, PAGE_BITS, type Plane } from "../../src/core/mod.ts";
import { Image } from "../../src/image/mod.ts";
import type { Snapshot, Volume } from "../../src/volume/mod.ts";
import { Random, seeds } from "../helpers/random.ts";
import { flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { addUp } from "./tally.ts";
import { type Sabotage, World } from "./world.ts";

const STEPS = 120;

/** The seed that was asked for, or these. */
function seedsOr(first: number, count: number): number[] {
  const wanted = Deno.env.get("VOLCAST_SEED");
  return wanted === undefined ? seeds(first, count) : [Number(wanted)];
}

async function live(seed: number, steps: number, sabotage: Sabotage = {}): Promise<World> {
  const world = await World.begin(seed, sabotage);
  try {
    await world.run(steps);
  } finally {
    world.close();
  }
  return world;
}

/** What must have happened in a group of histories, and how often; else little was tested. */
const LEAST: Record<string, number> = {
  snapshots: 80,
  shadows: 15,
  deletions: 20,
  pulls: 30,
  "pulls since shadows": 5,
  "lent planes": 4,
  histories: 4,
  compared: 15,
  mirrors: 10,
  takeovers: 3,
  back: 4,
  crashes: 10,
  tapes: 10,
  expressions: 15,
  refused: 50,
  "cut off": 4,
  "expressions applied": 1,
  "crashes within images": 4,
  "images compared": 400,
};

for (const first of [1, 101]) {
  test(`every node is as the model and every image as brute force: seeds from ${first}`, async () => {
    const sums: Record<string, number> = {};
    const all = seedsOr(first, 5);
    console.log(`seeds ${all.join(", ")}, ${STEPS} steps each`);
    for (const seed of all) addUp(sums, await live(seed, STEPS));
    if (all.length === 1) return;
    for (const [what, least] of Object.entries(LEAST)) {
      assert((sums[what] ?? 0) >= least, `${what}: ${JSON.stringify(sums)}`);
    }
  });
}

/** A mutant is found within some histories, by this complaint. */
async function isFound(complaint: RegExp, makeSabotage: () => Sabotage): Promise<void> {
  const error = await assertRejects(async () => {
    for (const seed of seeds(1, 6)) await live(seed, STEPS, makeSabotage());
  }, Error);
  assert(complaint.test(error.message), error.message);
}

test("the world sees an increment that lacks one block", () =>
  // Below a pointer block that lacks, the image itself may find nothing to check a block by.
  isFound(/VBN \d+ is missing in image|has had other bytes|Cannot read VBN \d+/, () => {
    let made = 0;
    return {
      image(volume: Volume, top: Snapshot, base?: Snapshot): Image {
        const image = new Image(volume, top, base);
        if (base === undefined || ++made < 3 || image.header.blockCount < 2) return image;
        const planes = [volume.plane(top), volume.lent.plane(base.id) ?? volume.plane(base)];
        const allocated = withoutOne(difference(planes[0], planes[1]));
        const deallocated = difference(planes[1], planes[0]);
        return Image.between(volume, top, base, { allocated, deallocated });
      },
    };
  }));

/** A plane without the first block that it has. */
function withoutOne(plane: Plane): Plane {
  const pages = Array.from({ length: plane.pageCount }, (_, i) => plane.page(i).slice());
  const page = pages.find((words) => words.some((word) => word !== 0))!;
  assert(page.length * 32 === PAGE_BITS);
  const at = page.findIndex((word) => word !== 0);
  page[at] &= page[at] - 1;
  return {
    pageCount: plane.pageCount,
    page: (index: number) => pages[index],
    pages: () => pages.keys(),
  } as Plane;
}

test("the world sees a shadow whose plane keeps the bits of single blocks", () =>
  isFound(/VBN \d+ is missing in image|[Tt]he shadow '.*' (still )?has/, () => ({
    async before({ nodes }) {
      for (const { volume, isOrigin } of nodes) {
        if (!isOrigin) continue;
        await volume.exclusive(({ space }) => {
          const { shadows } = space;
          if (shadows === undefined || Object.hasOwn(shadows, "clear")) return;
          const clear = shadows.clear.bind(shadows);
          shadows.clear = (index, at, count) => {
            if (count > 1) clear(index, at, count);
          };
        });
      }
    },
  })));

test("the world sees one bit flipped in a replica", () =>
  isFound(/VBN \d+ of '.*' has other bytes|Cannot read VBN \d+/, () => {
    const random = new Random(1);
    let steps = 0;
    return {
      before({ nodes, truth }) {
        // Right before everything is compared; what is read in between is in caches anyway.
        if (++steps !== 30) return;
        const node = nodes.find(({ isOrigin, place }) => !isOrigin && place.make === "memory");
        if (node === undefined) return;
        const { had } = truth.of(node.volume.current.id);
        flipBit(node.place.store, random.pick([...had.keys()]), random.below(32_768));
      },
    };
  }));
