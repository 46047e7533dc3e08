/**
 * Small files that are read again when they change: tokens, certificates.
 *
 * What was read last and was good stays in use while a file is missing, unreadable or damaged. That is
 * told once, and looked at again until it is good.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";

/** How files are watched. */
export interface WatchOptions {
  /** What the files are, for messages: `the tokens`. */
  readonly what: string;
  /** Gets what went wrong and that files were read again. */
  readonly log: (text: string) => void;
  /** Least time between two looks, ms; 1000 by default. */
  readonly everyMs?: number;
  /** Refuses files that everybody on this host may write. */
  readonly guarded?: boolean;
}

/** See the module. */
export class WatchedFiles<T> {
  readonly #paths: readonly string[];
  readonly #parse: (...texts: string[]) => T;
  readonly #options: WatchOptions;
  #value: T;
  #stamp: string;
  #lookedAt: number;
  #problem: string | undefined;

  /**
   * @param parse Makes the value of the files' texts. Says what is wrong by throwing; of a message for
   *   the log it must leave out secrets.
   * @throws {VolcastError} `usage`: files that are not good at the start.
   */
  constructor(
    paths: readonly string[],
    parse: (...texts: string[]) => T,
    options: WatchOptions,
  ) {
    this.#paths = paths;
    this.#parse = parse;
    this.#options = options;
    this.#stamp = this.#look();
    this.#lookedAt = performance.now();
    this.#value = this.#read();
  }

  /** The value, read again before if a file has changed. */
  get value(): T {
    const now = performance.now();
    if (now - this.#lookedAt >= (this.#options.everyMs ?? 1000)) this.#renew(false);
    return this.#value;
  }

  /** What is wrong with the files now; the value is that of before. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Reads the files again, changed or not. */
  reread(): void {
    this.#renew(true);
  }

  #renew(evenIfEqual: boolean): void {
    this.#lookedAt = performance.now();
    const stamp = this.#look();
    if (!evenIfEqual && stamp === this.#stamp && this.#problem === undefined) return;
    const { what, log } = this.#options;
    try {
      this.#value = this.#read();
      this.#stamp = stamp;
      this.#problem = undefined;
      log(`Read ${what} again`);
    } catch (error) {
      const problem = messageOf(error);
      if (problem === this.#problem) return;
      this.#problem = problem;
      log(`${problem}; going on with those read before`);
    }
  }

  /** What changes when a file does. Taken before reading: a change while it is read shows next time. */
  #look(): string {
    return this.#paths.map((path) => {
      try {
        const { mtime, size, ino, mode } = Deno.statSync(path);
        return `${mtime?.getTime()} ${size} ${ino} ${mode}`;
      } catch {
        return "none";
      }
    }).join(", ");
  }

  #read(): T {
    const { what, guarded } = this.#options;
    const fail = (reason: string, hint = "") =>
      new VolcastError(
        "usage",
        `Cannot read ${what} in ${this.#paths.join(", ")}: ${reason}`,
        hint,
      );
    const texts = this.#paths.map((path) => {
      try {
        const { mode } = Deno.statSync(path);
        if (guarded && ((mode ?? 0) & 0o002) !== 0) {
          throw fail("everybody on this host may write it", `chmod o-w ${path}`);
        }
        return Deno.readTextFileSync(path);
      } catch (error) {
        if (error instanceof VolcastError) throw error;
        const missing = error instanceof Deno.errors.NotFound;
        throw fail(missing ? "there is no such file" : messageOf(error));
      }
    });
    try {
      return this.#parse(...texts);
    } catch (error) {
      throw fail(messageOf(error), error instanceof VolcastError ? error.hint : "");
    }
  }
}
