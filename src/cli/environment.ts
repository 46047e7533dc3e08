/**
 * What comes from the environment.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { LABEL_PATTERN } from "../format/mod.ts";

/** The bearer token of VOLCAST_TOKEN, for servers and clients alike. */
export function tokenFromEnvironment(): string | undefined {
  return Deno.env.get("VOLCAST_TOKEN") || undefined;
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
    tokens.set(site, token);
  }
  return tokens;
}
