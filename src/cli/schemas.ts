/**
 * Shapes of option values that several commands share.
 *
 * @module
 */

import { z } from "zod";
import { type Run, VolcastError } from "../core/mod.ts";
import { LABEL_PATTERN } from "../format/mod.ts";

/** `HOST:PORT`, also `[::1]:8080` and `:8080` (all addresses). */
export const LISTEN = z.string().transform((text, context) => {
  const match = /^(\[[0-9a-fA-F:]+\]|[^:]*):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65535) {
    context.addIssue({ code: "custom", message: "it is not HOST:PORT, as in 127.0.0.1:8080" });
    return z.NEVER;
  }
  return { hostname: match[1].replace(/^\[|\]$/g, "") || "0.0.0.0", port };
});

/** Name of a node among sites. */
export const NODE_NAME = z.string().max(255).regex(
  LABEL_PATTERN,
  "use letters, digits and _ . : @ -, starting with a letter or digit",
);

/** Where a server listens. */
const SERVER_URL = z.url({
  protocol: /^https?$/,
  error: "it is not an http:// or https:// URL",
}).refine(
  (text) => {
    // What is no URL at all is told of already.
    if (!URL.canParse(text)) return true;
    const { username, password, search, hash } = new URL(text);
    return username + password + search + hash === "";
  },
  "it has a name, a password, a query or a fragment, which would be shown; tokens are in --token-file",
);

/** Where a parent listens. */
export const PARENT_URL = SERVER_URL;

/** Where a standby listens. */
export const STANDBY_URL = SERVER_URL;

/** Where standbys listen, with commas between. */
export const STANDBY_URLS = z.string().transform((text) => text.split(",")).pipe(
  z.array(STANDBY_URL),
);

/** A snapshot's name or id, or a pointer. */
export const REF = z.string().max(255).regex(
  LABEL_PATTERN,
  "it cannot be the name of a snapshot or a pointer",
);

/** Numbers and ranges of them: `5,7-9`. */
export const NUMBERS: z.ZodType<Run[], string> = z.string().transform((text, context) => {
  const runs = text.split(",").map((part): Run => {
    const [, first, last = first] = /^\s*(\d{1,10})(?:-(\d{1,10}))?\s*$/.exec(part) ?? [];
    return { start: Number(first), count: Number(last) - Number(first) + 1 };
  });
  if (runs.every(({ count }) => count >= 1)) return runs;
  context.addIssue({ code: "custom", message: "it is no list of numbers, as in 5,7-9" });
  return z.NEVER;
});

/** Checks a reference among the arguments. @throws {VolcastError} `usage`. */
export function parseRef(text: string): string {
  const result = REF.safeParse(text);
  if (result.success) return result.data;
  throw new VolcastError("usage", `Cannot use '${text}': ${result.error.issues[0].message}`);
}

/** `all`, or names of snapshots with commas between. */
export const SNAPSHOT_LIST = z.string().transform((text) =>
  text.split(",").map((name) => name.trim()).join(",")
).refine(
  (text) => text.split(",").every((name) => REF.safeParse(name).success),
  "it is neither 'all' nor names of snapshots with commas between",
);
