/**
 * Who may do what. A request shows a bearer token; `ROUTE_TABLE` says what its route needs.
 *
 * 1. What changes something is never done without a token that is good for it, except by this machine's
 *    own programs at a server that listens on loopback and has never had a token.
 * 2. What reads is open to everybody, unless the server is private.
 * 3. A token that nobody here knows opens nothing, not even what is open without one: who shows it is
 *    mistaken, and should hear of it.
 * 4. A token of a site speaks in no other site's name.
 * 5. A token file that is damaged, or has no token left, never makes a server open.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import type { RouteRule } from "./route_table.ts";
import { digestOf, type KnownToken, parseTokens, type Scope, TokenSet } from "./tokens.ts";
import { WatchedFiles, type WatchOptions } from "./watched_files.ts";

/** The tokens of a server. */
export interface Tokens {
  /** May do everything. */
  readonly admin?: string;
  /** By site: may replicate, in the name of this site. */
  readonly sites?: ReadonlyMap<string, string>;
  /** Those of a file, whatever it has now. */
  readonly file?: WatchedFiles<readonly KnownToken[]>;
}

/** What a request may do. */
export interface Grant {
  /** The site that the token names. */
  readonly site: string | undefined;
  /** Whether it may be told which snapshot is here: of a private server not everybody. */
  readonly seesState: boolean;
}

/** A refusal for want of a token that is known here: status 401, where others of its kind are 403. */
export class TokenNeeded extends VolcastError {
  /** What `www-authenticate` says. */
  readonly challenge: string;

  /** @param challenge Parameters after the realm. */
  constructor(message: string, hint: string, challenge = "") {
    super("denied", message, hint);
    this.challenge = `Bearer realm="volcast"${challenge}`;
  }
}

/** A refusal of a token that is known and not good for this. */
export class ScopeNeeded extends VolcastError {
  /** Any one of them would be enough. */
  readonly scopes: readonly Scope[];

  /** @param scopes Which would be. */
  constructor(message: string, hint: string, scopes: readonly Scope[]) {
    super("denied", message, hint);
    this.scopes = scopes;
  }
}

/**
 * The tokens in a file, read again when it changes.
 * @throws {VolcastError} `usage` when it is missing, damaged, or has no token.
 */
export function openTokenFile(
  path: string,
  options: Pick<WatchOptions, "log" | "everyMs">,
): WatchedFiles<readonly KnownToken[]> {
  const file = new WatchedFiles<readonly KnownToken[]>([path], parseTokens, {
    ...options,
    what: "the tokens",
    guarded: true,
  });
  if (file.value.length > 0) return file;
  throw new VolcastError(
    "usage",
    `Cannot use the tokens in ${path}: there is none`,
    `Make one: volcast token create NAME --scope write --into ${path}`,
  );
}

/** See the module. */
export class Access {
  readonly #fixed: readonly KnownToken[];
  readonly #file: Tokens["file"];
  /** All tokens, made anew when the file has others. */
  #known: TokenSet | undefined;
  #knownInFile: readonly KnownToken[] | undefined;
  readonly #openToAll: boolean;
  readonly #isPrivate: boolean;

  /**
   * @param options.loopback Whether the listener is bound to loopback.
   * @param options.isPrivate Whether reading needs a token too.
   * @throws {VolcastError} `usage` for a private server that knows no token.
   */
  constructor(options: { tokens: Tokens; loopback: boolean; isPrivate?: boolean }) {
    const { admin, sites = new Map<string, string>(), file } = options.tokens;
    this.#fixed = [
      ...(admin === undefined
        ? []
        : [{ name: "VOLCAST_TOKEN", scopes: ["admin"] as const, digest: digestOf(admin) }]),
      ...[...sites].map(([site, token]) => ({
        name: site,
        scopes: ["replicate"] as const,
        site,
        digest: digestOf(token),
      })),
    ];
    this.#file = file;
    const hasTokens = this.#fixed.length > 0 || file !== undefined;
    this.#isPrivate = options.isPrivate ?? false;
    this.#openToAll = options.loopback && !hasTokens && !this.#isPrivate;
    if (hasTokens || !this.#isPrivate) return;
    throw new VolcastError(
      "usage",
      "Cannot be private without tokens: nobody could be let in",
      "Add --tokens FILE, made by: volcast token create NAME --scope read --into FILE",
    );
  }

  /** Whether reading needs a token too. */
  get isPrivate(): boolean {
    return this.#isPrivate;
  }

  /** What `GET /status` says of it. */
  get status(): { private: boolean; tokenFile: string | null } {
    const problem = this.#file?.problem;
    return {
      private: this.#isPrivate,
      // Its path is nobody's business; the log has it.
      tokenFile: this.#file === undefined
        ? null
        : problem === undefined
        ? "good"
        : "cannot be read: the tokens read before are in use",
    };
  }

  /** What somebody without a token may do, at routes that ask for none. */
  get stranger(): Grant {
    return { site: undefined, seesState: !this.#isPrivate };
  }

  /** Reads the token file again. */
  reread(): void {
    this.#file?.reread();
  }

  /**
   * Lets a request pass.
   *
   * @param rule What its route needs.
   * @param sites In whose names it speaks.
   * @throws {VolcastError} `denied`.
   */
  admit(request: Request, rule: RouteRule, sites: readonly string[]): Grant {
    if (rule.scopes.length === 0) return this.stranger;
    const header = request.headers.get("authorization");
    if (this.#openToAll) {
      if (rule.changes) refuseForeignPages(request);
      return this.stranger;
    }
    const isOpen = !rule.changes && !this.#isPrivate;
    if (header === null) {
      if (isOpen) return this.stranger;
      throw this.#needed(request, rule);
    }
    const token = this.#find(/^Bearer ([^\s]+)$/i.exec(header)?.[1] ?? "");
    if (token === undefined) {
      throw new TokenNeeded(
        `Cannot ${named(request)}: the token is not known here`,
        "Check that it is the one for this server, and that it was not revoked",
        ', error="invalid_token"',
      );
    }
    if (!isOpen) requireScope(request, rule, token);
    const other = token.site === undefined ? undefined : sites.find((site) => site !== token.site);
    if (other === undefined) return { site: token.site, seesState: true };
    throw new VolcastError(
      "denied",
      `Cannot ${named(request)} in the name of the site '${other.slice(0, 100)}': ` +
        `the token '${token.name}' is of '${token.site}'`,
      "Use a token of that site, or the site's own name (--site)",
    );
  }

  #find(text: string): KnownToken | undefined {
    const inFile = this.#file?.value;
    if (this.#known === undefined || inFile !== this.#knownInFile) {
      this.#known = new TokenSet([...this.#fixed, ...inFile ?? []]);
      this.#knownInFile = inFile;
    }
    return this.#known.find(text);
  }

  #needed(request: Request, rule: RouteRule): VolcastError {
    if (this.#fixed.length === 0 && this.#file === undefined) {
      return new VolcastError(
        "denied",
        `Cannot ${named(request)}: it needs a bearer token, and this server has none`,
        "Start it with --tokens FILE or VOLCAST_TOKEN, or let it listen on 127.0.0.1",
      );
    }
    return new TokenNeeded(
      `Cannot ${named(request)}: it needs a bearer token with the scope ${shown(rule.scopes)}`,
      `${howToGet(rule)}; give it by --token-file FILE or VOLCAST_TOKEN`,
    );
  }
}

function requireScope(request: Request, rule: RouteRule, { name, scopes }: KnownToken): void {
  if (scopes.some((scope) => scope === "admin" || rule.scopes.includes(scope))) return;
  throw new ScopeNeeded(
    `Cannot ${named(request)}: it needs the scope ${shown(rule.scopes)}, ` +
      `the token '${name}' has ${shown(scopes, "and")}`,
    howToGet(rule),
    rule.scopes,
  );
}

function howToGet(rule: RouteRule): string {
  return `Make a token at the server: volcast token create NAME --scope ${
    rule.scopes[0]
  } --into FILE`;
}

/** Method and path, without the query: names in it may be long, and are not needed. */
function named({ method, url }: Request): string {
  return `${method} ${new URL(url).pathname.slice(0, 200)}`;
}

function shown(scopes: readonly Scope[], word = "or"): string {
  return scopes.map((scope) => `'${scope}'`).join(` ${word} `);
}

/** Headers by which proxies say for whom they ask. */
const PROXY_HEADERS = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/**
 * A page in a browser on this machine must not reach a server without tokens: neither one of another
 * origin, nor one whose name was made to mean this machine.
 */
function refuseForeignPages({ headers, url }: Request): void {
  // HTTP/2 has no such header: the name is in the URL then.
  const host = headers.get("host") ?? new URL(url).host;
  if (!isLoopback(host.replace(/:\d+$/, ""))) {
    throw new VolcastError(
      "denied",
      `Cannot do this for the host name '${host.slice(0, 100)}' without a token`,
      "Use 127.0.0.1 or localhost, or set VOLCAST_TOKEN at the server and at the client",
    );
  }
  // Whoever comes by way of a proxy is not on this machine, though the proxy is.
  const proxy = PROXY_HEADERS.find((name) => headers.has(name));
  if (proxy !== undefined) {
    throw new VolcastError(
      "denied",
      `Cannot do this through a proxy (it sent '${proxy}') without a token`,
      "Start the server with --tokens FILE or VOLCAST_TOKEN",
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
