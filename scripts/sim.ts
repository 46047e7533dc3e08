/**
 * The long crash simulation: scenarios with one seed after the other, until enough distinct disks have
 * been found. What is wrong is told with what is needed to see it again.
 *
 * deno task sim [--seed N] [--states 100000] [--each 40] [--scenario TEXT] [--cut N] [--state N]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { SCENARIOS } from "../tests/sim/crash_scenarios.ts";
import { simulateCrashes } from "../tests/sim/crash_sim.ts";

const options = parseArgs(Deno.args, {
  string: ["seed", "states", "each", "scenario", "cut", "state"],
  unknown: (name: string) => {
    console.error(`Cannot simulate: there is no option ${name}`);
    Deno.exit(2);
  },
});
const firstSeed = numberOf("seed") ?? Math.floor(Math.random() * 2 ** 31);
const wanted = numberOf("states") ?? 100_000;
const statesEach = numberOf("each") ?? 40;
const cut = numberOf("cut");
const state = numberOf("state");
const scenarios = SCENARIOS.filter(({ name }) => name.includes(options.scenario ?? ""));
if (scenarios.length === 0) {
  console.error(
    `Cannot simulate '${options.scenario}': there are ${
      SCENARIOS.map(({ name }) => name).join("; ")
    }`,
  );
  Deno.exit(2);
}

interface Sum {
  cuts: number;
  states: number;
  secondCrashes: number;
  ms: number;
}

const sums = new Map<string, Sum>();
const begin = performance.now();
let total = 0;
let problems = 0;
let seed = firstSeed;
do {
  for (const scenario of scenarios) {
    const start = performance.now();
    const report = await simulateCrashes(scenario, {
      seed,
      statesEach,
      ...(cut === undefined ? {} : { cut }),
      ...(state === undefined ? {} : { state }),
    });
    const sum = sums.get(scenario.name) ?? { cuts: 0, states: 0, secondCrashes: 0, ms: 0 };
    sums.set(scenario.name, sum);
    sum.cuts += report.cuts;
    sum.states += report.states;
    sum.secondCrashes += report.secondCrashes;
    sum.ms += performance.now() - start;
    total += report.states;
    for (const found of report.problems) {
      problems++;
      console.log(
        `${scenario.name}: ${found.problem}\n  deno task sim --seed ${seed} ` +
          `--scenario '${scenario.name}' --cut ${found.cut} --state ${found.state}`,
      );
    }
  }
  console.log(`seed ${seed}: ${total} disks so far`);
  seed++;
} while (total < wanted && cut === undefined && problems === 0);

for (const [name, sum] of sums) {
  console.log(
    `${name}: ${sum.states} disks (${sum.secondCrashes} after second crashes) at ${sum.cuts} cuts, ` +
      `${Math.round(sum.ms / 1000)} s`,
  );
}
console.log(
  `${total} distinct disks, seeds ${firstSeed} to ${seed - 1}, ${problems} problems, ` +
    `${Math.round((performance.now() - begin) / 1000)} s`,
);
Deno.exit(problems > 0 ? 1 : 0);

function numberOf(name: "seed" | "states" | "each" | "cut" | "state"): number | undefined {
  const text = options[name];
  if (text === undefined) return undefined;
  if (/^\d{1,10}$/.test(text)) return Number(text);
  console.error(`Cannot simulate with --${name} '${text}': it is not a whole number`);
  Deno.exit(2);
}
