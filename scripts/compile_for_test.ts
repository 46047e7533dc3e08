/**
 * Compiles a binary to test with where Deno's download host is out of reach.
 * It differs from a release in its runtime (see `denort_from_npm.ts`), and
 * therefore in the Deno that compiles it; sources and permissions are the same.
 *
 *     deno run -A scripts/compile_for_test.ts [--output dist/volcast]
 *
 * @module
 */

import { DENO_VERSION, denortFromNpm } from "./denort_from_npm.ts";

console.error(`A test build, with denort ${DENO_VERSION} from npm: not for use`);
const { code } = await new Deno.Command("npx", {
  args: [
    "--yes",
    `deno@${DENO_VERSION}`,
    "run",
    "-A",
    new URL("compile.ts", import.meta.url).pathname,
    ...Deno.args,
  ],
  env: {
    DENORT_BIN: await denortFromNpm(),
    // This version does not look there by itself, and a sealed network often
    // has a certificate authority of its own.
    DENO_TLS_CA_STORE: "system",
  },
}).spawn().status;
Deno.exit(code);
