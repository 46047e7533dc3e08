// The short form of the crash simulation; the long one is `deno task sim`. VOLCAST_SEED gives the seed.

import { assert } from "@std/assert";
import { test } from "../helpers/strict.ts";
import { SCENARIOS } from "./crash_scenarios.ts";
import { simulateCrashes } from "./crash_sim.ts";

const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);

for (const scenario of SCENARIOS) {
  test(`crash simulation: ${scenario.name}`, async () => {
    const { states, roots, problems } = await simulateCrashes(scenario, {
      seed: SEED,
      statesEach: 4,
    });
    const [first] = problems;
    assert(
      first === undefined,
      `${first?.problem}\nSee it again: deno task sim --seed ${SEED} --scenario '${scenario.name}' ` +
        `--cut ${first?.cut} --state ${first?.state}`,
    );
    assert(states > 40 && roots > 1, `${states} disks, ${roots} roots`);
  });
}
