/**
 * `volcast token create`: makes a token.
 *
 * @module
 */

import { z } from "zod";
import { checkTokenName, digestOf, newToken, parseScopes, tokenLine } from "../../http/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { NODE_NAME } from "../schemas.ts";
import { addToken } from "../token_file.ts";

/** See the module. */
export const tokenCreateCommand = defineCommand({
  name: ["token", "create"],
  summary: "make a token that lets its bearer use a server",
  usage: "NAME --scope SCOPE[,SCOPE...]",
  positionals: [1, 1],
  details:
    `The token is 256 random bits. It is printed once, alone, on standard output; FILE, for serve --tokens,
gets its SHA-256 only. A server that runs takes it from then on. The scopes:

  read       files, archives and lists, where the server is private; elsewhere everybody may
  replicate  images and plans, likewise; and to say which release a site has
  write      import, publish, snapshots, pointers
  admin      everything: promote, scrub, forget sites, send images to a standby

Except for admin no scope includes another. With --site the token speaks in that site's name alone, and
/replicate?since=master means that site's master. To change a token, make another one, give it to its
user, then revoke the old one.`,
  examples: [
    "volcast token create paris --scope replicate --site paris --into site.tokens >paris.token",
    "volcast token create ci --scope read,write --into site.tokens",
  ],
  options: {
    scope: { value: "SCOPES", help: "what it is good for: read, replicate, write, admin" },
    site: { value: "NAME", help: "bind it to this site" },
    into: { value: "FILE", help: "add its digest here; without it the line is shown" },
    json: { help: "the token and its line as JSON" },
  },
  schema: z.object({
    scope: z.string(),
    site: NODE_NAME.optional(),
    into: z.string().min(1).optional(),
    json: z.boolean().optional(),
  }),
  run([name], { scope, site, into, json }, terminal): Promise<number> {
    checkTokenName(name, "token");
    const scopes = parseScopes(scope);
    const token = newToken();
    const known = {
      name,
      scopes,
      ...(site === undefined ? {} : { site }),
      digest: digestOf(token),
    };
    if (into !== undefined) addToken(into, known);
    const line = tokenLine(known);
    if (json) terminal.printJson({ name, scopes, site: site ?? null, token, line });
    else terminal.print(token);
    terminal.note(
      into === undefined
        ? `The token is shown this once. For the file of serve --tokens:\n${line}`
        : `Added '${name}' to ${into}. The token is shown this once`,
    );
    return Promise.resolve(EXIT_CODES.done);
  },
});
