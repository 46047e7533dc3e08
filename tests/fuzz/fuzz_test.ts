// The short form of the fuzzer, and what it found once; the long form is `deno task fuzz`. VOLCAST_SEED gives
// the seed.

import { assert, assertEquals } from "@std/assert";
import { test } from "../helpers/strict.ts";
import { casesOf } from "./corpus.ts";
import { supervise } from "./supervise.ts";
import { MISTAKES } from "./targets/mistakes.ts";
import { TARGETS } from "./targets/mod.ts";

const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);

/** How many inputs each target gets here; and what must have been reached by them. */
const SHORT: Readonly<Record<string, readonly [inputs: number, reached: readonly RegExp[]]>> = {
  metadata: [60, [/^open: damaged/, /^fsck again: done/, /^checkpoint again: done/]],
  images: [50, [/^apply to replica: damaged/, /^apply a right image: done/, /^heal with it/]],
  media: [60, [/^open packed: damaged/, /^pipe: damaged/]],
  archives: [40, [/^import: done/, /^export: usage/]],
  requests: [40, [/^status 400/, /^status 200/]],
  parents: [30, [/^pull: io/, /^pull: done/]],
  "command lines": [30, [/^exit 2/]],
  settings: [60, [/^tokens: done/, /^tokens: damaged/, /^certificate: usage/, /^key: usage/]],
};

for (const { name } of TARGETS) {
  test(`fuzz: ${name}`, async () => {
    const [count, reached] = SHORT[name];
    const report = await supervise({ target: name, seed: SEED, first: 0, count, corpus: true });
    const [first] = report.findings;
    assert(
      first === undefined,
      `${first?.problems.join("\n")}\n${JSON.stringify(first?.input)}\n` +
        `See it again: deno task fuzz --target '${name}' ` +
        (first?.file ?? `--seed ${SEED} --input ${first?.number}`),
    );
    // What was found once is right still, and was run.
    assertEquals(report.inputs, count + casesOf(name).length);
    for (const outcome of reached) {
      const outcomes = [...report.outcomes];
      assert(outcomes.some((one) => outcome.test(one)), `${outcome} of ${outcomes.join("; ")}`);
    }
  });
}

for (const { name } of MISTAKES) {
  test(`the fuzzer sees that ${name}`, async () => {
    const report = await supervise({
      target: name,
      seed: 1,
      first: 0,
      count: 300,
      untilFound: true,
    });
    const inputs = report.findings.flatMap(({ input }) => input === undefined ? [] : [input]);
    assert(inputs.length === 1, "nothing was seen");
    assert(inputs[0].length <= 4, JSON.stringify(inputs[0]));
  });
}
