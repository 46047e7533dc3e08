/**
 * `volcast token list`: the tokens of a file.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { z } from "zod";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { table } from "../text.ts";
import { readTokenFile } from "../token_file.ts";

/** See the module. */
export const tokenListCommand = defineCommand({
  name: ["token", "list"],
  summary: "list the tokens of a server's file",
  usage: "FILE",
  positionals: [1, 1],
  details: "Digests are shown; from them no token can be had.",
  examples: ["volcast token list site.tokens"],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  run([path], options, terminal): Promise<number> {
    const tokens = readTokenFile(path).map(({ digest, ...token }) => ({
      ...token,
      sha256: Buffer.from(digest).toString("hex"),
    }));
    if (options.json) terminal.printJson({ tokens });
    else {
      const columns = ["NAME", "SCOPES", "SITE", "SHA-256"].map((head) => ({ head }));
      const rows = tokens.map(({ name, scopes, site = "", sha256 }) =>
        [name, scopes.join(","), site, `${sha256.slice(0, 16)}...`] as const
      );
      terminal.print(table(columns, rows));
    }
    return Promise.resolve(EXIT_CODES.done);
  },
});
