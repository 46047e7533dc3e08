/**
 * Results as text: aligned columns, safe names, times.
 *
 * @module
 */

import { typeOfMode } from "../format/mod.ts";
import type { TreeChange } from "../volume/mod.ts";

/** A column of a table: what its head says, and to which side its values lean. */
export interface Column {
  readonly head: string;
  readonly align?: "left" | "right";
}

/** Rows under heads, columns two blanks apart, nothing behind the last value of a line. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: { heads?: boolean } = {},
): string {
  const lines = options.heads === false ? rows : [columns.map(({ head }) => head), ...rows];
  const widths = columns.map((_, i) =>
    lines.reduce((most, row) => Math.max(most, row[i].length), 0)
  );
  return lines.map((row) =>
    row.map((value, i) =>
      columns[i].align === "right" ? value.padStart(widths[i]) : value.padEnd(widths[i])
    ).join("  ").trimEnd()
  ).join("\n");
}

/** Names and values, one a line; those without a value are left out. */
export function fields(
  rows: readonly (readonly [name: string, value: string | undefined])[],
): string {
  const present = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...present.map(([name]) => name.length));
  return present.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd()).join("\n");
}

/** A number with its noun: `1 block`, `2 blocks`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A path that differs: `created  /a/b`. */
export function changeLine({ kind, path }: TreeChange): string {
  return `${kind.padEnd("snapshot".length)}  ${showName(path)}`;
}

// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** A name from a volume for a terminal: what would steer the terminal is shown in its place. */
export function showName(name: string): string {
  return name.replace(
    CONTROL,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** Nanoseconds since 1970 as ISO 8601, all digits that are not zero. */
export function showTime(ns: bigint): string {
  const seconds = ns / 1_000_000_000n - (ns % 1_000_000_000n < 0n ? 1n : 0n);
  const fraction = String(ns - seconds * 1_000_000_000n).padStart(9, "0").replace(/0+$/, "");
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return `${ns} ns since 1970`;
  const whole = date.toISOString().slice(0, -".000Z".length);
  return `${whole}${fraction === "" ? "" : `.${fraction}`}Z`;
}

/** A mode as `ls` shows it: `drwxr-xr-x`. */
export function showMode(mode: number): string {
  const letters = { directory: "d", symlink: "l", charDevice: "c", blockDevice: "b" } as const;
  const type = typeOfMode(mode);
  const first = type === "file"
    ? "-"
    : type === "fifo"
    ? "p"
    : type === "socket"
    ? "s"
    : letters[type];
  const bits = ["r", "w", "x", "r", "w", "x", "r", "w", "x"]
    .map((letter, i) => (mode >> (8 - i)) & 1 ? letter : "-");
  for (const [i, bit, letter] of [[2, 0o4000, "s"], [5, 0o2000, "s"], [8, 0o1000, "t"]] as const) {
    if ((mode & bit) !== 0) bits[i] = bits[i] === "x" ? letter : letter.toUpperCase();
  }
  return first + bits.join("");
}
