/**
 * Lives whole trees of nodes on simulated time, network and disks, see tests/sim/tree.ts. The first that
 * goes wrong is told with its seed and its last events.
 *
 * Run: deno task tree --seeds N --steps M --seed S [--stop]
 *
 * With --stop it ends with the first that goes wrong.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { Tree } from "../tests/sim/tree.ts";

const options = parseArgs(Deno.args, { string: ["seeds", "steps", "seed"], boolean: ["stop"] });
const first = Number(options.seed ?? 1);
const count = Number(options.seeds ?? 20);
const steps = Number(options.steps ?? 100);

const sums: Record<string, number> = {};
const failed: number[] = [];
const begin = performance.now();
let days = 0;
let events = 0;
for (let seed = first; seed < first + count && !(options.stop && failed.length > 0); seed++) {
  let tree: Tree | undefined;
  try {
    tree = await Tree.begin(seed);
    await tree.run(steps);
  } catch (error) {
    failed.push(seed);
    console.error(error instanceof Error ? error.message : error);
    if (error instanceof Error) console.error(error.cause);
  } finally {
    tree?.close();
  }
  for (const [what, times] of Object.entries(tree?.counts ?? {})) {
    sums[what] = (sums[what] ?? 0) + times;
  }
  days += (tree?.time.now ?? 0) / 86_400_000;
  events += tree?.time.count ?? 0;
  const done = seed - first + 1;
  if (done % 20 === 0) console.error(`${done} seeds, ${failed.length} failed`);
}
const seconds = ((performance.now() - begin) / 1000).toFixed(1);
console.log(
  `${count} seeds from ${first}, ${steps} steps each: ${days.toFixed(1)} days in ${seconds} s, ` +
    `${events} events`,
);
for (const [what, sum] of Object.entries(sums).sort()) console.log(`${sum}\t${what}`);
if (failed.length > 0) console.error(`Failed seeds: ${failed.join(", ")}`);
Deno.exitCode = failed.length > 0 ? 1 : 0;
