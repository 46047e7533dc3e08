/**
 * Files of tokens.
 *
 * @module
 */

import { digestOf, type Scope, tokenLine } from "../../src/http/mod.ts";

/** A file that is removed at the end. */
export interface TokenFileFixture extends Disposable {
  readonly path: string;
  /** Puts other text in its place, as an editor does: with a new file. */
  write(text: string): void;
}

/** A token as a test knows it. */
export interface TestToken {
  readonly token: string;
  readonly scopes: readonly Scope[];
  readonly site?: string | undefined;
  /** By default made of the token. */
  readonly name?: string;
}

/** The text of a file with these tokens. */
export function tokenText(tokens: readonly TestToken[]): string {
  const lines = tokens.map(({ token, scopes, site, name }, index) =>
    tokenLine({
      name: name ?? `token${index}`,
      scopes,
      ...(site === undefined ? {} : { site }),
      digest: digestOf(token),
    }) + "\n"
  );
  return ["# tokens\n", ...lines].join("");
}

/** Makes a file with these tokens. */
export function makeTokenFile(tokens: readonly TestToken[]): TokenFileFixture {
  const directory = Deno.makeTempDirSync({ prefix: "volcast-tokens-" });
  const path = `${directory}/tokens`;
  Deno.writeTextFileSync(path, tokenText(tokens));
  return {
    path,
    write(text): void {
      Deno.writeTextFileSync(`${path}.new`, text);
      Deno.renameSync(`${path}.new`, path);
    },
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}
