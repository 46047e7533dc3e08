/**
 * Lives random histories with every technique in them, see tests/sim/world.ts. The first that goes wrong
 * is told with its seed and its last steps.
 *
 * Run: deno task worlds --seeds N --steps M --seed S
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { addUp } from "../tests/sim/tally.ts";
import { World } from "../tests/sim/world.ts";

const options = parseArgs(Deno.args, { string: ["seeds", "steps", "seed"] });
const first = Number(options.seed ?? 1);
const count = Number(options.seeds ?? 20);
const steps = Number(options.steps ?? 300);

const sums: Record<string, number> = {};
const failed: number[] = [];
const begin = performance.now();
for (let seed = first; seed < first + count; seed++) {
  const world = await World.begin(seed);
  try {
    await world.run(steps);
  } catch (error) {
    failed.push(seed);
    console.error(error instanceof Error ? error.message : error);
  } finally {
    world.close();
  }
  addUp(sums, world);
  const done = seed - first + 1;
  if (done % 20 === 0) console.error(`${done} seeds, ${sums["images compared"]} images`);
}
const seconds = ((performance.now() - begin) / 1000).toFixed(1);
console.log(`${count} seeds from ${first}, ${steps} steps each, ${seconds} s`);
for (const [what, sum] of Object.entries(sums).sort()) console.log(`${sum}\t${what}`);
if (failed.length > 0) console.error(`Failed seeds: ${failed.join(", ")}`);
Deno.exitCode = failed.length > 0 ? 1 : 0;
