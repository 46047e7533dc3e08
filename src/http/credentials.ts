/**
 * How other servers are asked: which token each of them gets, and whose certificates are believed.
 *
 * A token goes to the server it is meant for and to no other: servers are told apart by their origin
 * (scheme, host and port), and `fetch` drops the header when it is redirected to another.
 *
 * @module
 */

import { type Patience, VolcastError } from "../core/mod.ts";

/** See the module. */
export interface Credentials {
  /** The token meant for the server of a URL. */
  tokenFor(url: string): string | undefined;
  /** Believes an authority of one's own; absent: those of the system. */
  readonly client?: Deno.HttpClient | undefined;
}

/** A token, or credentials that may have one; and how long the server is waited for. */
export interface ServerOptionsOfClient {
  readonly token?: string | undefined;
  readonly credentials?: Credentials | undefined;
  readonly patience?: Patience | undefined;
  /** How it is reached: `fetch` by default. */
  readonly fetch?: typeof fetch | undefined;
}

/** What a token may consist of: what a header may have, without spaces. */
const TOKEN = /^[\x21-\x7e]{1,4096}$/;

/** Checks a token. @param where For the message, which does not show it. @throws {VolcastError} `usage`. */
export function checkToken(token: string, where: string): string {
  if (TOKEN.test(token)) return token;
  throw new VolcastError(
    "usage",
    `Cannot use the token in ${where}: it is empty, too long, or has spaces or other characters ` +
      "that a header cannot have",
  );
}

/** Tokens in a file: by server, or a single one that does not say for whom it is. */
export type ClientTokens = string | ReadonlyMap<string, string>;

/**
 * The tokens in a file: lines `URL TOKEN`, or one line `TOKEN`; `#` begins a comment.
 * @throws {VolcastError} `usage`, naming the line, and not what is in it.
 */
export function parseClientTokens(text: string): ClientTokens {
  const tokens = new Map<string, string>();
  let single: string | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "" || words[0].startsWith("#")) continue;
    const wrong = (reason: string) =>
      new VolcastError(
        "usage",
        `line ${index + 1} ${reason}`,
        "It has lines 'URL TOKEN', or one line with a token",
      );
    if (single !== undefined) throw wrong("follows a token that says no URL");
    if (words.length > 2) throw wrong(`has ${words.length} words`);
    const token = checkToken(words.at(-1)!, `line ${index + 1}`);
    if (words.length === 1) {
      if (tokens.size > 0) throw wrong("has no URL");
      single = token;
      continue;
    }
    const [url] = words;
    if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) throw wrong("does not begin with a URL");
    const { origin } = new URL(url);
    if (tokens.has(origin)) throw wrong(`has ${origin} again`);
    tokens.set(origin, token);
  }
  if (single !== undefined) return single;
  if (tokens.size === 0) throw new VolcastError("usage", "it has no token");
  return tokens;
}
