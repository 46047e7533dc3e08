/**
 * Running volcast: the compiled binary where there is one, else the source.
 *
 * @module
 */

import { resolve } from "node:path";
import { volcastCommand } from "../../tests/e2e/harness.ts";
import { must } from "./process.ts";

const ROOT = resolve(import.meta.dirname!, "../..");
const BINARY = `${ROOT}/dist/volcast`;

/** Chooses what is measured. @returns What that is, for the reader of the table. */
export function chooseBinary(): string {
  const named = Deno.env.get("VOLCAST_BIN");
  if (named !== undefined && named !== "") return `the binary ${named}`;
  const made = modified(BINARY);
  if (made === undefined) return "the source, by deno run (there is no dist/volcast)";
  Deno.env.set("VOLCAST_BIN", BINARY);
  const isOld = newest(`${ROOT}/src`) > made;
  return `the binary dist/volcast${isOld ? ", which is OLDER than the source" : ""}`;
}

function modified(path: string): number | undefined {
  try {
    return Deno.statSync(path).mtime?.getTime();
  } catch {
    return undefined;
  }
}

function newest(directory: string): number {
  let time = 0;
  for (const { name, isDirectory } of Deno.readDirSync(directory)) {
    const path = `${directory}/${name}`;
    time = Math.max(time, isDirectory ? newest(path) : modified(path) ?? 0);
  }
  return time;
}

/** A command line. */
export function volcast(...args: string[]): string[] {
  return [...volcastCommand(), ...args];
}

/** What a command says as JSON. */
export async function json<T>(...args: string[]): Promise<T> {
  return JSON.parse(await must(volcast(...args))) as T;
}

/** What `pull --json` says. */
export interface Pulled {
  readonly kind: "full" | "increment" | "current";
  readonly name: string;
  readonly bytes: number;
}

/** Pulls once. */
export async function pull(volume: string, parent: string): Promise<Pulled> {
  const command = volcast("pull", volume, "--site", "site", "--parent", parent, "--json");
  // 3: there was nothing to do.
  return JSON.parse(await must(command, { codes: [0, 3] }));
}

/** @throws {Error} when a pull did not do what it was asked to. */
export function assertPulled(pulled: Pulled | undefined, expected: Partial<Pulled>): void {
  for (const [key, value] of Object.entries(expected)) {
    const found = pulled?.[key as keyof Pulled];
    if (found !== value) throw new Error(`the pull's '${key}' is ${found}, it should be ${value}`);
  }
}

/** Moves a pointer of a server. */
export async function setPointer(url: string, pointer: string, snapshot: string): Promise<void> {
  const response = await fetch(`${url}/pointers/${pointer}`, {
    method: "PUT",
    body: JSON.stringify({ snapshot }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`Cannot move '${pointer}': ${response.status} ${text}`);
}
