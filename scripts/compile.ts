/**
 * Compiles `main.ts` into one self-contained binary, with the permissions it
 * will have for good: a compiled program cannot be granted more later.
 *
 *     deno task compile [--output dist/volcast]
 *
 * The compiler is the Deno that runs this script. It downloads the runtime
 * part (`denort`) of its own version unless DENORT_BIN names one; the variable
 * reaches it with the rest of the environment.
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";

/**
 * All that the binary may do. Volume paths and ports are the operator's choice,
 * so reading, writing and network stay unrestricted; there is no `run`, `ffi`
 * or `sys`, and only variables named here can be read. Flags and not a named
 * set of deno.json, so that a test binary of an older Deno gets the same list.
 */
const PERMISSIONS = [
  "--allow-read",
  "--allow-write",
  "--allow-net",
  "--allow-env=VOLCAST_TOKEN,VOLCAST_SITE_TOKENS,VOLCAST_TOKEN_FILE,VOLCAST_CA_FILE,NO_COLOR,TERM",
  "--no-prompt",
] as const;

const ROOT = resolve(import.meta.dirname!, "..");

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: { output: { type: "string", default: `${ROOT}/dist/volcast` } },
  });
  const output = resolve(values.output);
  await Deno.mkdir(dirname(output), { recursive: true });

  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      // What was tested is what gets compiled in.
      "--frozen",
      // `deno task check:static` checks types, once and with one compiler.
      "--no-check",
      // The cache would lie in the shared /tmp under a name anyone can guess.
      "--no-code-cache",
      ...PERMISSIONS,
      "--output",
      output,
      "main.ts",
    ],
    cwd: ROOT,
  }).spawn().status;
  return code;
}

if (import.meta.main) Deno.exit(await main());
