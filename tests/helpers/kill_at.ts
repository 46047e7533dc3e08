/**
 * A command line in a process of its own that is killed at a chosen moment: when a file whose name ends
 * in a given way is written to, or before or after a file gets such a name. As a program:
 * `kill_at.ts MOMENT ENDING ARGUMENT...`.
 *
 * @module
 */

import { assertEquals } from "@std/assert";

/** When the process is killed. */
export type Moment = "writing" | "before" | "after";

/** Runs a command line up to a moment that it must come to. */
export async function killAt(
  [moment, ending]: readonly [Moment, string],
  args: readonly string[],
): Promise<void> {
  const { signal, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--frozen", "--no-check", "-A", import.meta.filename!, moment, ending, ...args],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  assertEquals(signal, "SIGKILL", `not ${moment} ${ending}: ${new TextDecoder().decode(stderr)}`);
}

function die(): never {
  Deno.kill(Deno.pid, "SIGKILL");
  throw new Error("this process was killed");
}

function install(moment: Moment, ending: string): void {
  const isIt = (name: unknown) => String(name).endsWith(ending);
  const dieIf = (now: Moment, name: unknown) => void (now === moment && isIt(name) && die());
  const { open, rename, renameSync } = Deno;
  Deno.rename = async (from, to) => {
    dieIf("before", to);
    await rename(from, to);
    dieIf("after", to);
  };
  Deno.renameSync = (from, to) => {
    dieIf("before", to);
    renameSync(from, to);
    dieIf("after", to);
  };
  if (moment !== "writing") return;
  Deno.open = async (name, options) => {
    const file = await open(name, options);
    // While it is written it has a name that goes on.
    if (!String(name).includes(`${ending}.`)) return file;
    const write = file.write.bind(file);
    file.write = (bytes) => write(bytes.subarray(0, 1000)).then(die);
    return file;
  };
}

if (import.meta.main) {
  const [moment, ending, ...args] = Deno.args;
  const { main } = await import("../../src/cli/mod.ts");
  install(moment as Moment, ending);
  Deno.exit(await main(args));
}
