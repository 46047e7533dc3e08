/**
 * The command line in this process, with what it says kept, and as a process of its own.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { main, Terminal } from "../../src/cli/mod.ts";
import { Random } from "./random.ts";

/** What a command line did. */
export interface Outcome {
  readonly code: number;
  /** Standard output as text. */
  readonly out: string;
  /** Standard output as it is. */
  readonly bytes: Uint8Array;
  /** Standard error. */
  readonly err: string;
}

/** A terminal that keeps what it is told. */
class KeepingTerminal extends Terminal {
  readonly #out: Uint8Array[] = [];
  err = "";

  override print(text: string): void {
    this.#out.push(new TextEncoder().encode(text + "\n"));
  }
  override note(text: string): void {
    this.err += text + "\n";
  }
  override write(bytes: Uint8Array): void {
    this.#out.push(bytes.slice());
  }
  get bytes(): Uint8Array {
    return new Uint8Array(this.#out.flatMap((part) => [...part]));
  }
}

/** Runs a command line in this process. */
export async function volcast(...args: string[]): Promise<Outcome> {
  const terminal = new KeepingTerminal();
  const code = await main(args, terminal);
  const { bytes, err } = terminal;
  return { code, bytes, out: new TextDecoder().decode(bytes), err };
}

/** Runs a command line that must succeed. @returns Its standard output. */
export async function ok(...args: string[]): Promise<string> {
  const { code, out, err } = await volcast(...args);
  assertEquals(code, 0, `volcast ${args.join(" ")}: ${err}`);
  return out;
}

/** Runs a command line that must succeed and print JSON. */
// deno-lint-ignore no-explicit-any
export async function json(...args: string[]): Promise<any> {
  return JSON.parse(await ok(...args, "--json"));
}

/** Runs a command line that must fail with a code, saying something that matches. */
export async function fails(code: number, says: RegExp, ...args: string[]): Promise<Outcome> {
  const outcome = await volcast(...args);
  assertEquals(outcome.code, code, `volcast ${args.join(" ")}: ${outcome.err || outcome.out}`);
  assert(says.test(outcome.err), `volcast ${args.join(" ")} said: ${outcome.err}`);
  return outcome;
}

/** Runs `work` in a directory of its own, which is gone afterwards. */
export async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "volcast-cli-" });
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Makes files in a directory: paths and contents. */
export async function makeTree(
  directory: string,
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const file = `${directory}/${path}`;
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await Deno.writeFile(file, bytes);
  }
}

/** Makes `site.vol` in a directory, with the releases june3 and june5 of `tree` beside it. */
export async function makeSite(directory: string): Promise<string> {
  const site = `${directory}/site.vol`;
  const tree = `${directory}/tree`;
  await ok("init", site, "--size", "16MiB");
  await makeTree(tree, { a: "one\n", "docs/large": new Random(1).bytes(3_000_000) });
  await ok("publish", site, tree, "--as", "june3");
  await makeTree(tree, { a: "two, longer\n", "docs/more": new Uint8Array(200_000).fill(9) });
  await ok("publish", site, tree, "--as", "june5");
  return site;
}

/** `volcast` as a process of its own. */
export function command(
  args: readonly string[],
  options: { stdin?: "piped" | "null" } = {},
): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--frozen", "-A", new URL("../../main.ts", import.meta.url).pathname, ...args],
    stdin: options.stdin ?? "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** A server in a process of its own, stopped when `work` ends. */
export async function serving(
  args: readonly string[],
  work: (url: string) => Promise<void>,
): Promise<void> {
  const child = command(["serve", ...args, "--listen", "127.0.0.1:0"]).spawn();
  const reader = child.stdout.getReader();
  const errors = new Response(child.stderr).text();
  let said = "";
  try {
    while (!/ at http:\S+\n/.test(said)) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`The server did not start: ${said}${await errors}`);
      said += new TextDecoder().decode(value);
    }
    await work(/ at (http:\S+)\n/.exec(said)![1]);
  } finally {
    child.kill("SIGTERM");
    await reader.cancel();
    await child.status;
    await errors;
  }
}
