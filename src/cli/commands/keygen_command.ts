/**
 * `volcast keygen`: makes the keys of seals.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import { generateKeys } from "../../replication/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";

/** See the module. */
export const keygenCommand = defineCommand({
  name: ["keygen"],
  summary: "make a pair of keys to seal releases with",
  usage: "FILE",
  positionals: [1, 1],
  details:
    `FILE gets the private key (Ed25519, PEM), which only its owner may read; it stays with the origin.
FILE.pub gets the public key, a line of text, for every site: volcast serve --trust FILE.pub. Use a pair
for one volume. To change it, give sites both public keys, a line each, then sign with the new one.`,
  examples: ["volcast keygen site.key"],
  options: { json: { help: "say what was made as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  run([path], options, terminal): Promise<number> {
    const { privateText, publicText } = generateKeys();
    write(path, privateText, 0o600);
    write(`${path}.pub`, publicText, 0o644);
    const key = publicText.trim();
    if (options.json) terminal.printJson({ privateKey: path, publicKey: `${path}.pub`, key });
    else terminal.print(`Made ${path}, to be kept secret, and ${path}.pub:\n${key}`);
    return Promise.resolve(EXIT_CODES.done);
  },
});

function write(path: string, text: string, mode: number): void {
  try {
    Deno.writeTextFileSync(path, text, { createNew: true, mode });
  } catch (error) {
    const exists = error instanceof Deno.errors.AlreadyExists;
    throw new VolcastError(
      exists ? "exists" : "io",
      `Cannot write ${path}: ${exists ? "it exists already" : messageOf(error)}`,
      exists ? "Keys are never written over: choose another name" : "",
    );
  }
}
