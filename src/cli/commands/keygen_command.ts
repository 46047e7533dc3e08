/**
 * `volcast keygen`: makes the keys of seals.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { generateKeys } from "../../replication/mod.ts";
import { hostError } from "../../store/mod.ts";
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
    try {
      write(`${path}.pub`, publicText, 0o644);
    } catch (error) {
      Deno.removeSync(path);
      throw error;
    }
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
    if (!(error instanceof Deno.errors.AlreadyExists)) {
      // Half a key would stand in the way of the next attempt.
      if (existsSync(path)) Deno.removeSync(path);
      throw hostError(`Cannot write ${path}`, error);
    }
    throw new VolcastError(
      "exists",
      `Cannot write ${path}: it exists already`,
      "Keys are never written over: choose another name",
    );
  }
}
