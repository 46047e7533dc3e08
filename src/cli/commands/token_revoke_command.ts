/**
 * `volcast token revoke`: takes a token away.
 *
 * @module
 */

import { z } from "zod";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { removeToken } from "../token_file.ts";

/** See the module. */
export const tokenRevokeCommand = defineCommand({
  name: ["token", "revoke"],
  summary: "take a token away from its bearer",
  usage: "NAME --from FILE",
  positionals: [1, 1],
  details:
    `A server that runs refuses the token within a second, and ends what it listens to. Another answer that is
under way is not cut off.`,
  examples: ["volcast token revoke ci --from site.tokens"],
  options: { from: { value: "FILE", help: "the file of serve --tokens" } },
  schema: z.object({ from: z.string().min(1) }),
  run([name], { from }, terminal): Promise<number> {
    removeToken(from, name);
    terminal.print(`Revoked '${name}' in ${from}`);
    return Promise.resolve(EXIT_CODES.done);
  },
});
