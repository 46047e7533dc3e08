// Where designs with shadows lose data: a block that was used again and still counts as what it was.
// Here the truth is kept outside of the volume, block by block, and asked after every step.

import { assert, assertRejects } from "@std/assert";
import { MemoryStore } from "../../src/store/mod.ts";
import { forSeeds, type Random, seeds } from "../helpers/random.ts";
import { ShadowHistory } from "../helpers/shadow_history.ts";
import { test } from "../helpers/strict.ts";

/** A life of `steps` steps. @param before Called before each. */
async function live(
  random: Random,
  options: { capacity: number; steps: number; writeBytes: number },
  before: (life: ShadowHistory) => Promise<void> = () => Promise.resolve(),
): Promise<ShadowHistory> {
  const { capacity, steps, writeBytes } = options;
  const life = await ShadowHistory.begin(new MemoryStore(capacity), random, { writeBytes });
  for (let step = 0; step < steps; step++) {
    await before(life);
    await life.step();
    if (step % 20 === 19) life.history.check();
  }
  return life;
}

const KINDS = [
  { what: "a volume with room", capacity: 2500, writeBytes: 60_000, full: false },
  { what: "a volume that is full most of the time", capacity: 500, writeBytes: 90_000, full: true },
  { what: "a volume of four pages of plane", capacity: 100_000, writeBytes: 60_000, full: false },
];

for (const { what, capacity, writeBytes, full } of KINDS) {
  test(`no shadow ever has a block that was used again: ${what}`, async () => {
    const sums = { reused: 0, saved: 0, earlier: 0, refused: 0 };
    await forSeeds(seeds(1, capacity > 50_000 ? 3 : 6), async (random) => {
      const life = await live(random, { capacity, writeBytes, steps: 120 }, async ({ history }) => {
        if (full) await history.change(12);
      });
      life.history.check();
      sums.reused += life.totals.reused;
      sums.saved += life.totals.saved;
      sums.earlier += life.totals.earlier;
      sums.refused += life.history.fullCount;
      await life.history.close();
    });
    // Otherwise nothing was tested: blocks must have been used again, and others must not.
    assert(sums.reused > 1000, `${sums.reused} blocks used again`);
    assert(sums.saved > 1000, `${sums.saved} blocks saved`);
    assert(sums.earlier > 10, `${sums.earlier} tops older than the shadow`);
    if (full) assert(sums.refused > 100, `${sums.refused} changes refused`);
  });
}

const MUTANTS: Record<string, (count: number) => boolean> = {
  "no bit at all": () => false,
  "no bit of single blocks, as metadata takes them": (count) => count > 1,
  "no bit of runs, as content takes them": (count) => count === 1,
};

for (const [what, clears] of Object.entries(MUTANTS)) {
  test(`the oracle sees an allocator that clears ${what}`, async () => {
    const life = (seed: Random) =>
      live(seed, { capacity: 600, writeBytes: 60_000, steps: 120 }, async ({ volume }) => {
        await volume.exclusive(({ space }) => {
          const { shadows } = space;
          if (shadows === undefined || Object.hasOwn(shadows, "clear")) return;
          const clear = shadows.clear.bind(shadows);
          shadows.clear = (index, first, count) => {
            if (clears(count)) clear(index, first, count);
          };
        });
      });
    await assertRejects(
      () => forSeeds(seeds(1, 4), async (random) => void await life(random)),
      Error,
      "would be missing",
    );
  });
}
