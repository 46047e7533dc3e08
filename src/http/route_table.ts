/**
 * Every route and what it needs: the one place where that is said. `app.ts` lets nobody past who has
 * not got it, and nobody at all to a route that is not listed here.
 *
 * @module
 */

import type { Scope } from "./tokens.ts";

/** What a route needs. */
export interface RouteRule {
  /** Any one of them is enough, and `admin` always is. Empty: open to everybody, whatever else is set. */
  readonly scopes: readonly Scope[];
  /** Whether it changes something; if not it needs no token, unless the server is private. */
  readonly changes: boolean;
  /** Where the request says in which site's name it speaks. */
  readonly site?: "path" | "query";
}

const open: RouteRule = { scopes: [], changes: false };
const reads = (...scopes: Scope[]): RouteRule => ({ scopes, changes: false });
const changes = (...scopes: Scope[]): RouteRule => ({ scopes, changes: true });

/** By method and path, as hono names them. HEAD is GET. */
export const ROUTE_TABLE: Readonly<Record<string, RouteRule>> = {
  "GET /healthz": open,
  "GET /readyz": open,

  "GET /": reads("read"),
  "GET /files/*": reads("read"),
  "GET /archive": reads("read"),
  "GET /diff": reads("read"),
  // Whoever publishes asks first what is there.
  "GET /tree": reads("read", "write"),

  "GET /replicate": { ...reads("replicate"), site: "query" },
  "GET /images/:volume/:base/:top": reads("replicate"),
  "GET /images/:volume": reads("replicate"),
  "GET /image": reads("replicate"),
  "GET /plan": reads("replicate"),

  "GET /snapshots": reads("read", "replicate"),
  "GET /snapshots/:ref": reads("read", "replicate"),
  "GET /pointers": reads("read", "replicate"),
  "GET /seals": reads("read", "replicate"),
  "GET /seals/:pointer": reads("read", "replicate"),
  "GET /sites": reads("read", "replicate"),
  "GET /standby": reads("read", "replicate"),
  "GET /status": reads("read", "replicate"),
  "GET /metrics": reads("read", "replicate"),
  "GET /events": reads("read", "replicate"),

  "PUT /sites/:name": { ...changes("replicate"), site: "path" },
  "PUT /sites/:name/plane": { ...changes("replicate"), site: "path" },

  "POST /import": changes("write"),
  "POST /publish": changes("write"),
  "POST /snapshots": changes("write"),
  "PATCH /snapshots/:ref": changes("write"),
  "DELETE /snapshots/:ref": changes("write"),
  "PUT /pointers/:name": changes("write"),

  "DELETE /sites/:name": changes("admin"),
  "PUT /images/:volume/:base/:top": changes("admin"),
  "POST /promote": changes("admin"),
  "POST /scrub": changes("admin"),
};

/** The sites in whose name a request speaks, by its route. */
export function sitesNamed(
  rule: RouteRule,
  route: string,
  { path, query }: { path: string; query: readonly string[] },
): readonly string[] {
  if (rule.site === "query") return query;
  if (rule.site === undefined) return [];
  const place = route.split(" ")[1].split("/").indexOf(":name");
  const part = path.split("/")[place] ?? "";
  try {
    return [decodeURIComponent(part)];
  } catch {
    return [part];
  }
}
