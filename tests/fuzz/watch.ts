/**
 * What a fuzzed input may do and what it may not: everything refused is refused with a `VolcastError`
 * of a kind that fits, after a bounded amount of work and of memory.
 *
 * Invariants:
 * 1. Work is counted, not timed: blocks read and written, names listed, bytes that came out. So what is
 *    too much here is too much on every machine.
 * 2. A problem stays a problem, whatever the code under test catches.
 *
 * @module
 */

import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";

/** Thrown into the code under test when it has done too much. */
export class TooMuch extends Error {
  constructor(what: string) {
    super(what);
    this.name = "TooMuch";
  }
}

/** Kinds of refusal that no input can be the reason for: the host failed, or a guard of the program did. */
const NOT_FOR_INPUTS: readonly ErrorKind[] = ["io", "denied"];

/** Limits of one input. */
export interface Limits {
  /** Units of work: see {@linkcode Watch.spend}. */
  readonly work: number;
  /** Bytes of the largest array that may be made. */
  readonly arrayBytes: number;
  /** Bytes of all arrays together. */
  readonly totalBytes: number;
}

/** See the module. */
export class Watch {
  readonly limits: Limits;
  /** What was wrong, the first of each place. */
  readonly problems: string[] = [];
  /** Names of what was done, and whether it was refused: shows that inputs get anywhere at all. */
  readonly outcomes = new Map<string, number>();
  #work = 0;
  #bytes = 0;

  constructor(limits: Limits) {
    this.limits = limits;
  }

  /** Work done so far. */
  get work(): number {
    return this.#work;
  }

  /** Bytes of arrays so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Counts work. @throws {TooMuch} */
  spend(count: number, what: string): void {
    this.#work += count;
    if (this.#work <= this.limits.work) return;
    this.#stop(`More than ${this.limits.work} units of work, the last one ${what}`);
  }

  /** Counts an array that is about to be made. @throws {TooMuch} */
  allocate(byteCount: number): void {
    this.#bytes += byteCount;
    if (byteCount > this.limits.arrayBytes) {
      this.#stop(`An array of ${byteCount} bytes, the limit is ${this.limits.arrayBytes}`);
    }
    if (this.#bytes > this.limits.totalBytes) {
      this.#stop(`Arrays of ${this.#bytes} bytes, the limit is ${this.limits.totalBytes}`);
    }
  }

  #stop(what: string): never {
    const error = new TooMuch(what);
    this.problem(`${what}\n${placeOf(error)}`);
    throw error;
  }

  /** Notes what must not be. */
  problem(text: string): void {
    if (this.problems.length < 20) this.problems.push(text);
  }

  /**
   * Runs one thing that may be refused.
   *
   * @param allowed Kinds that an input can be the reason for here, beside the usual ones.
   * @returns What it gave; `undefined` when it was refused.
   */
  async attempt<T>(
    what: string,
    work: () => T | Promise<T>,
    allowed: readonly ErrorKind[] = [],
  ): Promise<T | undefined> {
    try {
      const result = await work();
      this.#note(`${what}: done`);
      return result;
    } catch (error) {
      this.refused(what, error, allowed);
    }
  }

  /** Looks at what was thrown. @param allowed Kinds that an input can be the reason for here. */
  refused(what: string, error: unknown, allowed: readonly ErrorKind[] = []): void {
    if (error instanceof TooMuch) return;
    const fits = error instanceof VolcastError &&
      (allowed.includes(error.kind) || !NOT_FOR_INPUTS.includes(error.kind));
    if (fits) {
      // What was not foreseen may hide behind one that was.
      const cause = error.cause;
      const isMistake = /Assertion|TypeError|RangeError/.test(String(cause)) &&
        cause instanceof Error && !cause.stack?.includes("ext:deno_");
      if (isMistake) {
        this.problem(`${what}: ${error.message}\n${placeOf(cause)}`);
      }
      this.#note(`${what}: ${error.kind}`);
      return;
    }
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    this.problem(`${what}: ${text}\n${error instanceof Error ? placeOf(error) : ""}`);
  }

  #note(outcome: string): void {
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
  }
}

/** Where something was thrown: the first lines of its stack. */
function placeOf(error: Error): string {
  const lines = (error.stack ?? "").split("\n").filter((line) => line.trim().startsWith("at "));
  const own = lines.filter((line) => !line.includes("/tests/fuzz/w"));
  return own.slice(0, 6).map((line) => line.replace(/file:\S*?\/(src|tests)\//, "$1/")).join("\n");
}
