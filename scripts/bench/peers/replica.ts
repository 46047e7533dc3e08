/**
 * Programs that keep a copy of a tree elsewhere, each in its own way: archives with a repository as the
 * replica, and file systems.
 *
 * @module
 */

import type { Extent } from "../digest.ts";
import { must } from "../process.ts";
import type { Program } from "../programs.ts";

/** A kind of replica. */
export interface ReplicaKind {
  readonly name: string;
  /** What has to be installed. */
  readonly programs: readonly Program[];
  /**
   * Makes an empty replica.
   * @param directory For all that it writes.
   * @param sources The releases of the tree that it will be asked for, by name.
   * @throws {Error} when this cannot be had here.
   */
  open(directory: string, sources: Readonly<Record<string, string>>): Promise<Replica>;
}

/** A replica of a tree. */
export interface Replica extends AsyncDisposable {
  /** How much of a tree it keeps; all of it by default. */
  readonly extent?: Extent;
  /** Brings it to a release; this is measured. @param source Where the tree lies, always the same path. */
  update(release: string, source: string): Promise<void>;
  /** A directory with what it holds now, below `target`. */
  restore(target: string): Promise<string>;
}

/** A command that runs in a directory. */
export function inside(directory: string, command: readonly string[]): string[] {
  return ["sh", "-c", 'cd "$0" && exec "$@"', directory, ...command];
}

/** Runs two commands, the output of the first going into the second. */
export async function pipe(from: readonly string[], to: readonly string[]): Promise<void> {
  const quoted = (command: readonly string[]) =>
    command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  await must(["bash", "-c", `set -o pipefail; ${quoted(from)} | ${quoted(to)}`]);
}
