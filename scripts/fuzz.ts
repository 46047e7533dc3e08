/**
 * The long form of the fuzzer: hostile input of every kind, until the time or the number is up. What is wrong
 * is told with what is needed to see it again, and its smallest input is written beside the kept cases.
 *
 * deno task fuzz [--target NAME] [--minutes N | --inputs N] [--seed S] [--input I]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { CORPUS } from "../tests/fuzz/corpus.ts";
import { type Finding, type Report, supervise } from "../tests/fuzz/supervise.ts";
import { TARGETS } from "../tests/fuzz/targets/mod.ts";

/** Inputs of one process: then another one goes on. */
const BATCH = 2000;
/** Findings after which a target is left alone. */
const MOST_FINDINGS = 10;

const options = parseArgs(Deno.args, {
  string: ["target", "minutes", "inputs", "seed", "input"],
  unknown: (name: string) => {
    console.error(`Cannot fuzz: there is no option ${name}`);
    Deno.exit(2);
  },
});
const targets = TARGETS.filter(({ name }) =>
  options.target === undefined || name === options.target
);
if (targets.length === 0) {
  console.error(
    `Cannot fuzz '${options.target}': there are ${TARGETS.map(({ name }) => name).join("; ")}`,
  );
  Deno.exit(2);
}
const seed = numberOf("seed") ?? Math.floor(Math.random() * 2 ** 31);
const only = numberOf("input");
const minutes = numberOf("minutes");
const inputs = only === undefined
  ? numberOf("inputs") ?? (minutes === undefined ? 1000 : Infinity)
  : 1;

let problems = 0;
for (const { name } of targets) {
  const begin = performance.now();
  const end = minutes === undefined ? Infinity : begin + minutes * 60_000 / targets.length;
  const seen = new Map<string, number>();
  let [done, found, rss] = [0, 0, 0];
  const first = only ?? 0;
  while (done < inputs && performance.now() < end && found < MOST_FINDINGS) {
    const left = (end - performance.now()) / 60_000;
    const report = await supervise({
      target: name,
      seed,
      first: first + done,
      count: Math.min(BATCH, inputs - done),
      ...(Number.isFinite(left) ? { minutes: left } : {}),
      // Once is enough.
      ...(done === 0 && only === undefined ? { corpus: true } : {}),
    });
    done += Math.max(1, report.inputs);
    rss = Math.max(rss, report.rss);
    for (const finding of report.findings) found += tell(name, finding);
    count(seen, report);
  }
  problems += found;
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(
    `${name}: ${done} inputs, ${found} found, ${seconds} s, ` +
      `${Math.round(rss / 2 ** 20)} MiB at most, ${seen.size} outcomes`,
  );
}
console.log(`Seed ${seed}: ${problems} found`);
Deno.exit(problems > 0 ? 1 : 0);

function tell(target: string, { number, problems, input, file }: Finding): number {
  console.log(`\n${target}: ${problems.join("\n")}`);
  console.log(`  deno task fuzz --target '${target}' --seed ${seed} --input ${number}`);
  if (file !== undefined) console.log(`  It is the kept case ${file}`);
  else if (input !== undefined) {
    const kept = { target, found: problems[0].split("\n")[0], input };
    const path = new URL(`${target.replaceAll(" ", "_")}-${seed}-${number}.json`, CORPUS);
    Deno.writeTextFileSync(path, `${JSON.stringify(kept, undefined, 2)}\n`);
    console.log(`  Written: ${path.pathname}`);
  }
  return 1;
}

function count(seen: Map<string, number>, { outcomes }: Report): void {
  for (const outcome of outcomes) seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
}

function numberOf(name: "minutes" | "inputs" | "seed" | "input"): number | undefined {
  const text = options[name];
  if (text === undefined) return undefined;
  if (/^\d{1,10}$/.test(text)) return Number(text);
  console.error(`Cannot fuzz with --${name} '${text}': it is not a whole number`);
  Deno.exit(2);
}
