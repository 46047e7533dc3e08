/**
 * What is fuzzed: a thing with inputs that are made from a seed, kept as JSON, and can be made smaller.
 *
 * @module
 */

import type { Random } from "../helpers/random.ts";
import type { Limits, Watch } from "./watch.ts";

/** One part of an input, as JSON keeps it. */
export type Step = Readonly<Record<string, string | number | boolean>>;

/** An input: what is done to something that was right before. Without steps nothing may be wrong. */
export type Input = readonly Step[];

/** Something to be fuzzed. */
export interface Target {
  readonly name: string;
  readonly limits: Limits;
  /** Makes what inputs are applied to. The same every time, so that an input is the same again. */
  prepare(): Promise<Prepared>;
}

/** A target that is ready. */
export interface Prepared {
  /** An input. */
  make(random: Random): Input;
  /** Applies an input and does all that can be done with the result. */
  run(input: Input, watch: Watch): Promise<void>;
  close?(): Promise<void>;
}
