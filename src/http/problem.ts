/**
 * Errors as `application/problem+json` (RFC 9457): what could not be done and what to do next.
 *
 * @module
 */

import { ScopeNeeded, TokenNeeded } from "./access.ts";
import { type ErrorKind, messageOf, VolcastError } from "../core/mod.ts";
import { Refusal } from "./refusal.ts";
import { HEADERS } from "./state_headers.ts";

/** Status codes by kind of error: the one place where they are said. */
export const STATUS: Readonly<Record<ErrorKind, number>> = {
  "usage": 400,
  "not-found": 404,
  "exists": 409,
  "damaged": 500,
  "untrusted": 502,
  "busy": 503,
  "held": 409,
  "full": 507,
  "diverged": 409,
  "unknown-base": 410,
  "read-only": 409,
  "denied": 403,
  "nothing": 409,
  "unsupported": 400,
  "io": 500,
};

/** The answer for anything that was thrown. */
export function problemResponse(error: unknown, headers: HeadersInit = {}): Response {
  const known = error instanceof VolcastError;
  const kind: ErrorKind = known ? error.kind : "io";
  const refusal = error instanceof Refusal ? error : undefined;
  const status = error instanceof TokenNeeded ? 401 : refusal?.status ?? STATUS[kind];
  const result = new Headers(headers);
  result.set("content-type", "application/problem+json");
  result.set("cache-control", "no-store");
  // HEAD has no body: what is wrong is said here too.
  result.set(HEADERS.problem, kind);
  if (known) {
    const encoded = (text: string) => encodeURIComponent(text.slice(0, 600).toWellFormed());
    result.set(HEADERS.problemTitle, encoded(messageOf(error)));
    if (error.hint !== "") result.set(HEADERS.problemHint, encoded(error.hint));
  }
  // RFC 6750: who may try again with a token, and with which.
  if (error instanceof TokenNeeded) result.set("www-authenticate", error.challenge);
  if (error instanceof ScopeNeeded) {
    result.set(
      "www-authenticate",
      `Bearer realm="volcast", error="insufficient_scope", scope="${error.scopes[0]}"`,
    );
  }
  const retryAfter = refusal?.retryAfter ?? (status === 503 ? 2 : undefined);
  if (retryAfter !== undefined) result.set("retry-after", String(retryAfter));
  const body = {
    // What an unknown error says may hold paths of the host; it goes to the log, not to strangers.
    title: known ? messageOf(error) : "Cannot answer: an internal error, see the server's log",
    status,
    kind,
    ...(error instanceof ScopeNeeded ? { scopes: error.scopes } : {}),
    ...(known && error.hint !== "" ? { hint: error.hint } : {}),
    ...(refusal === undefined ? {} : { limit: refusal.limit }),
  };
  return new Response(JSON.stringify(body) + "\n", { status, headers: result });
}
