/**
 * What comes from the environment.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { LABEL_PATTERN } from "../format/mod.ts";
import { checkToken } from "../http/mod.ts";

/** What a variable has. */
export type Environment = (name: string) => string | undefined;

const ENVIRONMENT: Environment = (name) => Deno.env.get(name);

/**
 * The bearer token of VOLCAST_TOKEN, for servers and clients alike.
 * @throws {VolcastError} `usage` for one that no request could show.
 */
export function tokenFromEnvironment(get = ENVIRONMENT): string | undefined {
  const token = get("VOLCAST_TOKEN") || undefined;
  return token === undefined ? undefined : checkToken(token, "VOLCAST_TOKEN");
}

/** The path in a variable. */
export function fileFromEnvironment(
  name: "VOLCAST_TOKEN_FILE" | "VOLCAST_CA_FILE",
  get = ENVIRONMENT,
): string | undefined {
  return get(name) || undefined;
}

/** Tokens by site from VOLCAST_SITE_TOKENS: `paris=TOKEN,rome=TOKEN`. */
export function siteTokensFromEnvironment(): Map<string, string> {
  const tokens = new Map<string, string>();
  for (const part of (Deno.env.get("VOLCAST_SITE_TOKENS") ?? "").split(",")) {
    if (part.trim() === "") continue;
    const [site, token] = part.trim().split(/=(.*)/s);
    if (!LABEL_PATTERN.test(site) || !token) {
      // The value is a secret and is not shown.
      throw new VolcastError(
        "usage",
        "Cannot read VOLCAST_SITE_TOKENS: an entry is not of the form site=token",
      );
    }
    tokens.set(site, checkToken(token, "VOLCAST_SITE_TOKENS"));
  }
  return tokens;
}
