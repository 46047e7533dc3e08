/**
 * Random worlds in which everything happens, for as long as one likes:
 *
 *     deno task worlds --seeds 300 --steps 600 --seed 1000
 *
 * Prints what has happened, and for each failure the seed and the step to see it again.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { World } from "../tests/sim/world.ts";

const options = parseArgs(Deno.args, {
  string: ["seeds", "steps", "seed"],
  default: { seeds: "100", steps: "400", seed: "1000" },
});
const [seeds, steps, first] = [options.seeds, options.steps, options.seed].map(Number);
const counts: Record<string, number> = {};
const begin = performance.now();
let failures = 0;
for (let seed = first; seed < first + seeds; seed++) {
  try {
    const world = await World.live(seed, steps);
    for (const [what, count] of Object.entries(world.counts)) {
      counts[what] = (counts[what] ?? 0) + count;
    }
  } catch (error) {
    failures++;
    console.error(error instanceof Error ? error.message : error);
  }
}
const seconds = (performance.now() - begin) / 1000;
console.log(`${seeds} worlds of ${steps} steps, ${failures} failed, ${seconds.toFixed(0)} s`);
console.log(counts);
Deno.exit(failures === 0 ? 0 : 1);
