/**
 * Who may change things. Reading is open; what changes state needs a bearer token, unless the server
 * has none at all and listens on loopback only. A site's own token lets it do what a site does, and names it.
 *
 * @module
 */

import { createHash, timingSafeEqual } from "node:crypto";
import { VolcastError } from "../core/mod.ts";

/** The tokens of a server. */
export interface Tokens {
  /** May change everything. */
  readonly admin?: string;
  /** By site. */
  readonly sites?: ReadonlyMap<string, string>;
}

/** What a request may do. */
export interface Grant {
  readonly admin: boolean;
  /** The site that the token names. */
  readonly site: string | undefined;
}

/** See the module. */
export class Access {
  readonly #admin: Uint8Array | undefined;
  readonly #sites: readonly { site: string; digest: Uint8Array }[];
  readonly #openToAll: boolean;

  /** @param options.loopback Whether the listener is bound to loopback. */
  constructor(options: { tokens: Tokens; loopback: boolean }) {
    const { admin, sites = new Map() } = options.tokens;
    this.#admin = admin === undefined ? undefined : digestOf(admin);
    this.#sites = [...sites].map(([site, token]) => ({ site, digest: digestOf(token) }));
    this.#openToAll = options.loopback && admin === undefined && this.#sites.length === 0;
  }

  /** What the bearer of a request's headers may do. @throws {VolcastError} `denied` for a wrong token. */
  grant(headers: Headers): Grant {
    const header = headers.get("authorization");
    if (header === null) return { admin: this.#openToAll, site: undefined };
    const token = /^Bearer ([^\s]+)$/i.exec(header)?.[1];
    const digest = digestOf(token ?? "");
    if (this.#admin !== undefined && timingSafeEqual(digest, this.#admin)) {
      return { admin: true, site: undefined };
    }
    for (const known of this.#sites) {
      if (timingSafeEqual(digest, known.digest)) {
        return { admin: this.#openToAll, site: known.site };
      }
    }
    if (this.#openToAll) return { admin: true, site: undefined };
    throw new VolcastError("denied", "Cannot do this: the token is not known here");
  }

  /** Lets administrators pass. @throws {VolcastError} `denied` unless the request may change everything. */
  requireAdmin(headers: Headers): void {
    if (this.grant(headers).admin) {
      if (this.#openToAll) refuseForeignPages(headers);
      return;
    }
    throw new VolcastError(
      "denied",
      "Cannot do this: it needs a bearer token",
      "Set VOLCAST_TOKEN at the server and at the client, or listen on 127.0.0.1",
    );
  }

  /** Lets a site pass. @throws {VolcastError} `denied` unless the request comes from this site, or may change everything. */
  requireSite(headers: Headers, site: string): void {
    if (this.grant(headers).site === site) return;
    this.requireAdmin(headers);
  }
}

/**
 * A page in a browser on this machine must not reach a server without tokens: neither one of another
 * origin, nor one whose name was made to mean this machine.
 */
function refuseForeignPages(headers: Headers): void {
  const host = headers.get("host");
  if (host !== null && !isLoopback(host.replace(/:\d+$/, ""))) {
    throw new VolcastError(
      "denied",
      `Cannot do this for the host name '${host.slice(0, 100)}' without a token`,
      "Use 127.0.0.1 or localhost, or set VOLCAST_TOKEN at the server and at the client",
    );
  }
  const origin = headers.get("origin");
  if (origin === null) return;
  if (URL.canParse(origin) && new URL(origin).host === host) return;
  throw new VolcastError("denied", `Cannot do this for a page of another origin (${origin})`);
}

/** Whether an address is reachable from this machine only. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || hostname === "[::1]" ||
    /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

function digestOf(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
