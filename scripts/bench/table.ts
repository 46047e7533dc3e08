/**
 * The table.
 *
 * @module
 */

import { isMet, type LeftOut, type Line, ratioOf, type Target, type Unit } from "./row.ts";

const HEAD = ["what", "volcast", "against", "", "ratio", "target", ""];
/** Columns that hold figures: these end at their right. */
const RIGHT = [1, 3, 4, 5];

/** The lines as text, columns below each other. */
export function tableText(lines: readonly Line[]): string {
  const rows = [HEAD, ...lines.map(cellsOf)];
  const widths = HEAD.map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const text = (row: readonly string[]) =>
    row.map((cell, i) => RIGHT.includes(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))
      .join("  ").trimEnd();
  const [head, ...body] = rows.map(text);
  return [head, widths.map((width) => "-".repeat(width)).join("  "), ...body].join("\n");
}

function cellsOf(line: Line): string[] {
  const met = isMet(line);
  return [
    line.what,
    figureText(line.figure, line.unit),
    line.against,
    line.target?.is === "none" ? "" : figureText(line.other, line.unit),
    line.target?.is === "none" ? "" : ratioText(line),
    targetText(line.target),
    met === undefined ? "" : met ? "ok" : "MISSED",
  ];
}

/** What was said about lines and about what is not among them. */
export function remarksText(lines: readonly Line[], leftOut: readonly LeftOut[]): string {
  return [
    ...lines.filter(({ note }) => note !== undefined).map(({ what, note }) => `${what}: ${note}`),
    ...leftOut.map(({ what, why }) => `Left out: ${what}: ${why}`),
  ].join("\n");
}

/** A figure with its unit, three digits. */
export function figureText(value: number, unit: Unit): string {
  if (unit === "B") return bytesText(value);
  if (unit === "failures") return String(value);
  if (unit === "s" && value < 1) return figureText(value * 1000, "ms");
  return `${digits(value)} ${unit}`;
}

function bytesText(value: number): string {
  if (value < 2 ** 20) return `${digits(value / 1024)} KiB`;
  return `${digits(value / 2 ** 20)} MiB`;
}

function digits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

function ratioText(line: Line): string {
  return `${digits(ratioOf(line))}x`;
}

function targetText(target: Target | undefined): string {
  if (target === undefined) return "";
  if (target.is === "none") return "none";
  return `${target.is === "faster" ? ">=" : "<="} ${target.value}x`;
}
