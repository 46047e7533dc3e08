/**
 * Inputs that showed something once. Each stays, and is run again.
 *
 * @module
 */

import type { Line } from "./job.ts";
import { runInput } from "./run.ts";
import type { Input, Prepared, Target } from "./target.ts";

/** Where they lie. */
export const CORPUS: URL = new URL("./corpus/", import.meta.url);

/** A file of the corpus. */
export interface Case {
  readonly target: string;
  /** What was wrong. */
  readonly found: string;
  readonly input: Input;
}

/** All cases of a target, by file. */
export function casesOf(target: string): [file: string, kept: Case][] {
  return [...Deno.readDirSync(CORPUS)].map(({ name }) => name).sort()
    .map((name): [string, Case] => [name, JSON.parse(Deno.readTextFileSync(new URL(name, CORPUS)))])
    .filter(([, kept]) => kept.target === target);
}

/** Runs all cases of a target. @param tell Told what happens, case by case. */
export async function runCorpus(
  target: Target,
  prepared: Prepared,
  tell: (line: Line) => void,
): Promise<void> {
  for (const [number, [file, { input }]] of casesOf(target.name).entries()) {
    tell({ kind: "begin", number, file });
    const { problems, outcomes } = await runInput(target, prepared, input);
    const { rss } = Deno.memoryUsage();
    tell({ kind: "end", number, outcomes: [...outcomes.keys()], rss });
    if (problems.length > 0) tell({ kind: "found", number, problems, input, file });
  }
}
