/**
 * What a row of the table is: something that is measured, and what it is held against.
 *
 * @module
 */

import type { Lab } from "./lab.ts";
import { type Figures, median } from "./measure.ts";
import { type Program, whyMissing } from "./programs.ts";

/** Units of figures. Of bytes and seconds, and of what is a limit, less is better. */
export type Unit = "s" | "ms" | "B" | "MiB/s" | "requests/s" | "failures";

/** What a ratio must be. */
export interface Target {
  /**
   * `faster`: volcast is at least so many times as good as what it is held against; below 1 it may be
   * slower. `cost`: it takes at most so many times as much. `none`: its figure is 0.
   */
  readonly is: "faster" | "cost" | "none";
  readonly value: number;
}

/** One line of the table. */
export interface Line {
  readonly what: string;
  readonly unit: Unit;
  /** Median of volcast's figures. */
  readonly figure: number;
  /** What it is held against: a peer, or a limit. */
  readonly against: string;
  /** Median of its figures. */
  readonly other: number;
  readonly target?: Target;
  /** All figures, in the order in which they were taken. */
  readonly figures?: readonly number[];
  readonly others?: readonly number[];
  readonly note?: string;
}

/** What was not measured, and why. */
export interface LeftOut {
  readonly what: string;
  readonly why: string;
}

/** What a row gives. */
export interface Outcome {
  readonly lines: readonly Line[];
  readonly leftOut?: readonly LeftOut[];
}

/** Something that can be measured by itself (`--only`). */
export interface Row {
  readonly id: string;
  readonly title: string;
  /**
   * Measures.
   * @throws {Error} when what was measured did not do its work: then there is no figure.
   */
  measure(lab: Lab): Promise<Outcome>;
}

/** The line of two that took turns. @param names Whose figures are volcast's, and whose the other ones. */
export function lineOf(
  figures: Figures,
  names: { readonly own: string; readonly against: string },
  rest: Pick<Line, "what" | "unit" | "target" | "note">,
): Line {
  const own = figures.get(names.own)!;
  const others = figures.get(names.against)!;
  return {
    ...rest,
    against: names.against,
    figure: median(own),
    other: median(others),
    figures: own,
    others,
  };
}

/** The line of a figure that has a limit. */
export function lineOfLimit(
  what: string,
  { unit, figure, limit, note }: { unit: Unit; figure: number; limit: number; note: string },
): Line {
  return { what, unit, figure, against: "limit", other: limit, target: cost(1), note };
}

/** The line of failures, of which there must be none. */
export function lineOfFailures(what: string, count: number): Line {
  const target = { is: "none", value: 0 } as const;
  return { what, unit: "failures", figure: count, against: "", other: 0, target };
}

/** What a row gives where programs are missing. */
export function without(what: string, programs: readonly Program[]): Outcome {
  return { lines: [], leftOut: [{ what, why: whyMissing(programs) }] };
}

/** How many times as good volcast's figure is, or how many times as much it takes, as its target asks. */
export function ratioOf({ unit, figure, other, target }: Line): number {
  const isMoreBetter = unit.endsWith("/s");
  const faster = isMoreBetter ? figure / other : other / figure;
  return target?.is === "cost" ? 1 / faster : faster;
}

/** Whether a line is as its target asks; `undefined` without one. */
export function isMet(line: Line): boolean | undefined {
  const { target, figure } = line;
  if (target === undefined) return undefined;
  if (target.is === "none") return figure === 0;
  return target.is === "faster" ? ratioOf(line) >= target.value : ratioOf(line) <= target.value;
}

/** At least so many times as good. */
export function faster(value: number): Target {
  return { is: "faster", value };
}

/** At most so many times as much. */
export function cost(value: number): Target {
  return { is: "cost", value };
}
