/**
 * Plots, as SVG by gnuplot. A library from a registry would lie in every compiled binary, since what the
 * lock file names is compiled in.
 *
 * @module
 */

import { must } from "./process.ts";
import { pathOf } from "./programs.ts";

/** How something grows. */
export interface Plot {
  /** Name of its file. */
  readonly id: string;
  readonly title: string;
  /** What grows, and its unit. */
  readonly x: string;
  readonly y: string;
  readonly lines: readonly PlotLine[];
}

/** Points of one kind. */
export interface PlotLine {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** Writes a plot into a directory, and its points beside it; the x axis is logarithmic, y begins at 0. */
export async function writePlot(directory: string, plot: Plot): Promise<void> {
  const { id, title, x, y, lines } = plot;
  const path = `${directory}/${id}`;
  // One block of points for each line, two empty lines between them.
  const blocks = lines.map(({ name, points }) =>
    [`# ${name}: ${x}, ${y}`, ...points.map((point) => point.join(" "))].join("\n")
  );
  await Deno.writeTextFile(`${path}.dat`, blocks.join("\n\n\n") + "\n");
  const parts = lines.map(({ name }, i) =>
    `${quoted(`${path}.dat`)} index ${i} with linespoints pointtype 7 title ${quoted(name)}`
  );
  const script = [
    "set terminal svg size 720,420 background 'white'",
    `set output ${quoted(`${path}.svg`)}`,
    `set title ${quoted(title)}`,
    `set xlabel ${quoted(x)}`,
    `set ylabel ${quoted(y)}`,
    "set logscale x",
    "set yrange [0:*]",
    "set grid",
    "set key bottom right",
    `plot ${parts.join(", ")}`,
  ].join("; ");
  await must([pathOf("gnuplot")!, "-e", script]);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
