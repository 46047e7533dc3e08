/**
 * Runs a process that fuzzes, and sees what it cannot tell itself: that an input never ends, and that it
 * takes the process with it.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import type { Job, Line } from "./job.ts";
import type { Input } from "./target.ts";

/** Something that is wrong. */
export interface Finding {
  /** Number of the input. */
  readonly number: number;
  readonly problems: readonly string[];
  /** The smallest input that shows it; absent where it took the process with it. */
  readonly input?: Input;
  readonly file?: string;
}

/** What a process found. */
export interface Report {
  readonly inputs: number;
  readonly findings: readonly Finding[];
  /** What was done, and how it ended. */
  readonly outcomes: ReadonlySet<string>;
  /** Bytes of the process at its largest. */
  readonly rss: number;
}

/**
 * Longest silence, ms: an input takes milliseconds, and a machine may be slow for minutes. Only what hangs
 * for ever comes to this; work that is too much is counted.
 */
const SILENCE_MS = 300_000;
/** Memory for objects, MiB; what the inputs need is a tenth of it. */
const HEAP_MIB = 700;

/** Runs a job. @param each Called for each line. */
export async function supervise(job: Job, each: (line: Line) => void = () => {}): Promise<Report> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--frozen",
      "--no-check",
      "-A",
      `--v8-flags=--max-old-space-size=${HEAP_MIB}`,
      new URL("./child.ts", import.meta.url).pathname,
      JSON.stringify(job),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const errors = new Response(child.stderr).text();
  const outcomes = new Set<string>();
  const findings: Finding[] = [];
  let inputs = 0;
  let rss = 0;
  let begun: { number: number; file?: string } = { number: job.first };
  let isSilent = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      isSilent = true;
      child.kill("SIGKILL");
    }, SILENCE_MS);
  };
  try {
    watch();
    const lines = child.stdout
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .pipeThrough(new TextLineStream() as TransformStream<string, string>);
    for await (const text of lines) {
      watch();
      // Other lines are what the code under test says.
      if (!text.startsWith('{"kind":')) continue;
      const line: Line = JSON.parse(text);
      each(line);
      if (line.kind === "begin") begun = line;
      else if (line.kind === "end") {
        inputs++;
        rss = Math.max(rss, line.rss);
        for (const outcome of line.outcomes) outcomes.add(outcome);
      } else findings.push(line);
    }
    const { code } = await child.status;
    const said = await errors;
    const end = isSilent
      ? `Nothing came for ${SILENCE_MS} ms`
      : `The process ended with ${code}: ${said.slice(-2000)}`;
    if (isSilent || code !== 0) {
      const { number, file } = begun;
      findings.push({ number, problems: [end], ...(file === undefined ? {} : { file }) });
    }
  } finally {
    clearTimeout(timer);
  }
  return { inputs, findings, outcomes, rss };
}
