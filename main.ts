/**
 * The program: `volcast COMMAND ...`.
 *
 * @module
 */

import { main } from "./src/cli/mod.ts";

if (import.meta.main) {
  // Everything was written when `main` returns: output is synchronous.
  Deno.exit(await main(Deno.args));
}
