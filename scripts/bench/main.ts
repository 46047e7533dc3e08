/**
 * Measures volcast against what people use today, and prints one table:
 *
 *     deno task bench [--quick] [--only ROW,ROW] [--turns N] [--json] [--out DIR]
 *
 * It builds its own trees, runs the compiled binary (`deno task compile`; from source where there is
 * none) and the peers that are installed in turn, and compares what each run left with what it should
 * have left. A run that did not do its work is an error, and so is the exit code. Targets that are
 * missed are not: the table says so.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { growth } from "./growth.ts";
import { Lab, SCALES } from "./lab.ts";
import { type Machine, machineText, thisMachine } from "./machine.ts";
import { writePlot } from "./plots.ts";
import { installLine, missing, whyMissing } from "./programs.ts";
import { isMet, type LeftOut, type Line, ratioOf, type Row } from "./row.ts";
import { ROWS } from "./rows/mod.ts";
import { remarksText, tableText } from "./table.ts";
import { chooseBinary } from "./volcast.ts";

const HELP = `Measures volcast against what people use today.

Usage: deno task bench [options]

Options:
  --quick          small trees: all of it in some minutes
  --only ROW,ROW   these rows; '' for none, with --out
  --turns N        turns of everybody whose figure has a target; 3 by default
  --json           the result as JSON
  --out DIR        writes plots of how costs grow
  --tiny           trees so small that figures mean nothing: to see that everything works
  --help           this text

Rows:
${ROWS.map(({ id, title }) => `  ${id.padEnd(20)} ${title}`).join("\n")}
`;

/** What went wrong with a row. */
interface Failure {
  readonly row: string;
  readonly reason: string;
}

interface Results {
  readonly lines: Line[];
  readonly leftOut: LeftOut[];
  readonly failures: Failure[];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      quick: { type: "boolean", default: false },
      tiny: { type: "boolean", default: false },
      only: { type: "string" },
      turns: { type: "string" },
      json: { type: "boolean", default: false },
      out: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const rows = chosen(values.only);
  const subject = chooseBinary();
  const machine = thisMachine();
  const begin = performance.now();
  const note = (text: string) => console.error(`${seconds(begin)} ${text}`);
  const chosenScale = SCALES[values.tiny ? "tiny" : values.quick ? "quick" : "full"];
  const scale = { ...chosenScale, turns: turnsOf(values.turns) ?? chosenScale.turns };
  const results: Results = { lines: [], leftOut: [], failures: [] };
  await using lab = await Lab.open(scale, note);
  const print = () => {
    const about = { subject, scale: scale.name, place: lab.place.description, machine };
    if (values.json) console.log(JSON.stringify({ ...about, ...asJson(results) }, undefined, 2));
    else console.log(`${aboutText(about)}\n\n${resultsText(results)}\nTook${seconds(begin)}`);
  };
  endOnInterrupt(lab, print);
  note(`${subject}; ${lab.place.description}`);
  for (const row of rows) await measure(lab, row, results);
  if (values.out !== undefined) await writePlots(lab, values.out, results);
  print();
  return results.failures.length === 0 ? 0 : 1;
}

function turnsOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const turns = Number(text);
  if (Number.isInteger(turns) && turns > 0) return turns;
  throw new Error(`Cannot take '${text}' turns: it must be a number from 1`);
}

function chosen(only: string | undefined): readonly Row[] {
  if (only === undefined) return ROWS;
  if (only === "") return [];
  return only.split(",").map((id) => {
    const row = ROWS.find((candidate) => candidate.id === id);
    if (row !== undefined) return row;
    throw new Error(`There is no row '${id}'; there are: ${ROWS.map(({ id }) => id).join(", ")}`);
  });
}

async function measure(lab: Lab, row: Row, results: Results): Promise<void> {
  lab.note(row.id);
  try {
    const { lines, leftOut = [] } = await row.measure(lab);
    results.lines.push(...lines);
    results.leftOut.push(...leftOut);
  } catch (error) {
    fail(lab, results, { row: row.id, error });
  }
}

function fail(lab: Lab, results: Results, { row, error }: { row: string; error: unknown }): void {
  const reason = error instanceof Error ? error.message : String(error);
  lab.note(`FAILED ${row}: ${reason}`);
  results.failures.push({ row, reason });
}

/** Measures how costs grow, and writes plots of it. */
async function writePlots(lab: Lab, directory: string, results: Results): Promise<void> {
  if (missing(["gnuplot"]).length > 0) {
    results.leftOut.push({ what: "plots", why: whyMissing(["gnuplot"]) });
    return;
  }
  try {
    await Deno.mkdir(directory, { recursive: true });
    for (const plot of await growth(lab)) await writePlot(directory, plot);
    lab.note(`wrote plots into ${directory}`);
  } catch (error) {
    fail(lab, results, { row: "growth", error });
  }
}

function aboutText(
  { subject, scale, place, machine }: {
    subject: string;
    scale: string;
    place: string;
    machine: Machine;
  },
): string {
  const scaleNote = scale === "full" ? "" : ", targets are for the full one";
  return `volcast: ${subject}; scale: ${scale}${scaleNote}\n${machineText(machine)}; ${place}`;
}

function resultsText({ lines, leftOut, failures }: Results): string {
  const parts = [lines.length === 0 ? "" : tableText(lines), remarksText(lines, leftOut)];
  const install = installLine();
  if (install !== undefined) parts.push(`For the peers that are not installed: ${install}`);
  if (failures.length > 0) {
    const list = failures.map(({ row, reason }) => `  ${row}: ${reason}`).join("\n");
    parts.push(`FAILED, so there are no figures of:\n${list}`);
  }
  return parts.filter((part) => part !== "").join("\n\n") + "\n";
}

function asJson({ lines, leftOut, failures }: Results): Record<string, unknown> {
  return {
    lines: lines.map((line) => ({ ...line, ratio: ratioOf(line), isMet: isMet(line) ?? null })),
    leftOut,
    failures,
  };
}

function seconds(begin: number): string {
  return `${((performance.now() - begin) / 1000).toFixed(0).padStart(4)} s`;
}

/** Ctrl-C shows what there is so far and leaves no data in memory; programs that run get it too, and end. */
function endOnInterrupt(lab: Lab, print: () => void): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, async () => {
      print();
      await lab[Symbol.asyncDispose]();
      Deno.exit(130);
    });
  }
}

if (import.meta.main) Deno.exit(await main());
