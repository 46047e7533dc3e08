/**
 * What a process that fuzzes is told, and what it tells.
 *
 * @module
 */

import type { Input } from "./target.ts";

/** What to do. */
export interface Job {
  readonly target: string;
  readonly seed: number;
  /** Number of the first input. */
  readonly first: number;
  readonly count: number;
  /** Ends after about so long, whatever is left. */
  readonly minutes?: number;
  /** Ends with the first input that shows something. */
  readonly untilFound?: boolean;
  /** The kept cases come first. */
  readonly corpus?: boolean;
}

/** What happens. */
export type Line =
  | { readonly kind: "begin"; readonly number: number; readonly file?: string }
  | {
    readonly kind: "end";
    readonly number: number;
    readonly outcomes: readonly string[];
    /** Bytes of the process. */
    readonly rss: number;
  }
  | {
    readonly kind: "found";
    readonly number: number;
    readonly problems: readonly string[];
    readonly input: Input;
    /** Of a case of the corpus: its file. */
    readonly file?: string;
  };
