/**
 * The process in which inputs run: what they break, hang or fill is this process alone. It tells its parent
 * on standard output, a line of JSON for each input that begins and for each that showed something.
 *
 * deno run -A tests/fuzz/child.ts JOB
 *
 * @module
 */

import { runCorpus } from "./corpus.ts";
import type { Job, Line } from "./job.ts";
import { catchStray, countArrays, minimized, randomOf, runInput } from "./run.ts";
import { TARGETS } from "./targets/mod.ts";
import { MISTAKES } from "./targets/mistakes.ts";
import type { Prepared, Target } from "./target.ts";

const job: Job = JSON.parse(Deno.args[0]);
const encoder = new TextEncoder();
countArrays();
catchStray();

function tell(line: Line): void {
  const bytes = encoder.encode(`${JSON.stringify(line)}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

const target = [...TARGETS, ...MISTAKES].find(({ name }) => name === job.target)!;
const prepared = await target.prepare();
try {
  await checkHonest(target, prepared);
  if (job.corpus) await runCorpus(target, prepared, tell);
  await runNumbers(target, prepared);
} finally {
  await prepared.close?.();
}
Deno.exit(0);

/** Without any change nothing is wrong: or whatever is found means nothing. */
async function checkHonest(target: Target, prepared: Prepared): Promise<void> {
  const { problems } = await runInput(target, prepared, []);
  if (problems.length > 0) throw new Error(`Without a change: ${problems[0]}`);
}

async function runNumbers(target: Target, prepared: Prepared): Promise<void> {
  const end = job.minutes === undefined ? Infinity : Date.now() + job.minutes * 60_000;
  for (let i = job.first; i < job.first + job.count && Date.now() < end; i++) {
    tell({ kind: "begin", number: i });
    const input = prepared.make(randomOf(target.name, job.seed, i));
    const watch = await runInput(target, prepared, input);
    // What is kept from input to input would fill the memory in the end.
    const { rss } = Deno.memoryUsage();
    tell({ kind: "end", number: i, outcomes: [...watch.outcomes.keys()], rss });
    if (watch.problems.length === 0) continue;
    const smallest = await minimized(target, prepared, input, watch.problems[0]);
    tell({ kind: "found", number: i, problems: watch.problems, input: smallest });
    if (job.untilFound) return;
  }
}
