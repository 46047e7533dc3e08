/**
 * Bearer tokens: what they let one do, how they are made, and the file that lists them.
 *
 * The file never has a token, only its SHA-256. A token is 256 random bits, so its digest can be neither
 * reversed nor guessed, and may be read by anybody. A line is a token, a comment (`#`) or empty:
 *
 *     NAME SCOPE[,SCOPE...] [site=SITE] sha256:HEX
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import { damaged, VolcastError } from "../core/mod.ts";
import { LABEL_PATTERN } from "../format/mod.ts";

/** What a token can be good for, the least first. */
export const SCOPES = ["read", "replicate", "write", "admin"] as const;
/** See {@linkcode SCOPES}. `admin` includes the others; otherwise none includes another. */
export type Scope = typeof SCOPES[number];

/** A token as a server knows it. */
export interface KnownToken {
  /** What people call it; it may be shown. */
  readonly name: string;
  readonly scopes: readonly Scope[];
  /** The only site in whose name it may speak; absent: any. */
  readonly site?: string;
  /** SHA-256 of the token. */
  readonly digest: Uint8Array;
}

/** Most tokens in a file, and most characters of it. */
const MAX_TOKENS = 10_000;
const MAX_CHARACTERS = 4 * 2 ** 20;

/** A token of 256 random bits. The prefix lets people, and scanners for leaked secrets, see what it is. */
export function newToken(): string {
  return `volcast_${randomBytes(32).toString("base64url")}`;
}

/** The digest by which a token is known. */
export function digestOf(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}

/** Words of a digest. */
const WORDS = 8;

/** Tokens to be found by themselves. */
export class TokenSet {
  readonly #tokens: readonly KnownToken[];
  readonly #words: Uint32Array;

  constructor(tokens: readonly KnownToken[]) {
    this.#tokens = tokens;
    this.#words = new Uint32Array(WORDS * tokens.length);
    tokens.forEach(({ digest }, index) => this.#words.set(wordsOf(digest), WORDS * index));
  }

  /**
   * The token of which this is the secret. All of them are compared, every word of each, without a
   * branch: the time that it takes tells nothing.
   */
  find(secret: string): KnownToken | undefined {
    const digest = wordsOf(digestOf(secret));
    const words = this.#words;
    let found = -1;
    for (let index = 0; index < this.#tokens.length; index++) {
      let difference = 0;
      for (let word = 0; word < WORDS; word++) {
        difference |= words[WORDS * index + word] ^ digest[word];
      }
      const isSame = 1 - ((difference | -difference) >>> 31);
      found += isSame * (index - found);
    }
    return this.#tokens[found];
  }
}

function wordsOf(digest: Uint8Array): Uint32Array {
  return new Uint32Array(Uint8Array.from(digest).buffer);
}

/** Checks a name for a token or a site. @throws {VolcastError} `usage`. */
export function checkTokenName(name: string, what: "token" | "site"): void {
  if (name.length <= 255 && LABEL_PATTERN.test(name)) return;
  throw new VolcastError(
    "usage",
    `Cannot use '${name.slice(0, 80)}' as the name of a ${what}: it has other characters than ` +
      "letters, digits and _ . : @ -, or too many",
  );
}

/** Scopes with commas between. @throws {VolcastError} `usage`, naming what is no scope. */
export function parseScopes(text: string): Scope[] {
  const scopes = text.split(",");
  const wrong = scopes.find((scope) => !SCOPES.includes(scope as Scope));
  if (wrong !== undefined) {
    throw new VolcastError(
      "usage",
      `Cannot use the scope '${wrong.slice(0, 80)}': there is no such scope`,
      `Scopes: ${SCOPES.join(", ")}`,
    );
  }
  return SCOPES.filter((scope) => scopes.includes(scope));
}

/** The line of a token. */
export function tokenLine({ name, scopes, site, digest }: KnownToken): string {
  const bound = site === undefined ? "" : ` site=${site}`;
  return `${name} ${scopes.join(",")}${bound} sha256:${Buffer.from(digest).toString("hex")}`;
}

/** The name in a line of the file; `undefined` for a comment or an empty line. */
export function nameInLine(line: string): string | undefined {
  const [name] = line.trim().split(/\s+/);
  return name === "" || name.startsWith("#") ? undefined : name;
}

/**
 * The tokens of a file. One without any must have a comment at least: that of a file of no bytes
 * nobody meant.
 *
 * @throws {VolcastError} `damaged`, naming the line, and not what is in it: that may be a secret.
 */
export function parseTokens(text: string): KnownToken[] {
  if (text.length > MAX_CHARACTERS) {
    throw damaged(`it has ${text.length} characters, the limit is ${MAX_CHARACTERS}`);
  }
  if (text.trim() === "") throw damaged("it is empty");
  const tokens: KnownToken[] = [];
  const names = new Set<string>();
  const digests = new Set<string>();
  for (const [index, line] of text.split("\n").entries()) {
    if (nameInLine(line) === undefined) continue;
    const token = parseLine(line, index + 1);
    const hex = Buffer.from(token.digest).toString("hex");
    if (names.has(token.name)) {
      throw damaged(`line ${index + 1} has the name '${token.name}' again`);
    }
    if (digests.has(hex)) throw damaged(`line ${index + 1} has the digest of another line`);
    names.add(token.name);
    digests.add(hex);
    tokens.push(token);
    if (tokens.length > MAX_TOKENS) throw damaged(`it has more than ${MAX_TOKENS} tokens`);
  }
  return tokens;
}

function parseLine(line: string, number: number): KnownToken {
  const wrong = (reason: string) =>
    damaged(`line ${number} ${reason}`, "A line is: NAME SCOPE[,SCOPE...] [site=SITE] sha256:HEX");
  const words = line.trim().split(/\s+/);
  const [name, scopeList, ...rest] = words;
  const hex = /^sha256:([0-9a-f]{64})$/.exec(rest.at(-1) ?? "")?.[1];
  if (hex === undefined) throw wrong("does not end with sha256: and 64 hexadecimal digits");
  if (rest.length > 2) throw wrong(`has ${words.length} words`);
  const site = rest.length === 2 ? /^site=(.+)$/.exec(rest[0])?.[1] : undefined;
  if (rest.length === 2 && (site === undefined || !LABEL_PATTERN.test(site))) {
    throw wrong("has something else than site=SITE before its digest");
  }
  if (!LABEL_PATTERN.test(name)) throw wrong("does not begin with a name");
  const scopes = scopeList.split(",");
  if (!scopes.every((scope) => SCOPES.includes(scope as Scope))) {
    throw wrong(`has a word that is none of the scopes ${SCOPES.join(", ")}`);
  }
  return {
    name,
    scopes: SCOPES.filter((scope) => scopes.includes(scope)),
    ...(site === undefined ? {} : { site }),
    digest: Buffer.from(hex, "hex"),
  };
}
