/**
 * Listening, and ending in order.
 *
 * @module
 */

import { beginServing, messageOf, VolcastError } from "../core/mod.ts";
import type { Node } from "../replication/mod.ts";
import { Access, isLoopback, type Tokens } from "./access.ts";
import { createApp } from "./app.ts";
import { pathAsSent, Traffic } from "./limits.ts";
import { Listener } from "./listener.ts";
import { problemResponse } from "./problem.ts";
import { Refusal } from "./refusal.ts";
import { type Face, setSafeHeaders } from "./safe_headers.ts";
import type { TlsIdentity, TlsPair } from "./tls.ts";
import { ContentServer } from "./www.ts";

/** An address to listen at. Port 0 takes any that is free. */
export interface Listen {
  readonly hostname: string;
  readonly port: number;
}

/** Settings of {@linkcode startServer}. */
export interface ServerOptions {
  readonly listen: Listen;
  /** Where to serve content only; absent: nowhere. */
  readonly www?: Listen;
  readonly tokens: Tokens;
  /** Whether reading needs a token too; what `www` serves is public always. */
  readonly isPrivate?: boolean;
  /** Serves everything over TLS. */
  readonly tls?: TlsIdentity;
  readonly maxLagMs?: number;
  readonly version: string;
  readonly log: (text: string) => void;
  /** Limits, and what they counted; the usual ones by default. */
  readonly traffic?: Traffic;
  /** Longest wait for answers under way when ending, ms; 10,000 by default. */
  readonly graceMs?: number;
}

/** A running server. */
export interface RunningServer {
  /** Where it listens: `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly wwwUrl?: string;
  /** Reads tokens and certificates again. */
  reread(): void;
  /** Stops listening and lets answers under way end, for a while. */
  stop(): Promise<void>;
}

/** Starts serving a node. @throws {VolcastError} `busy` or `io` when an address cannot be had. */
export function startServer(node: Node, options: ServerOptions): RunningServer {
  beginServing();
  const endings = new Set<() => void>();
  const { traffic = new Traffic() } = options;
  const access = new Access({
    tokens: options.tokens,
    loopback: isLoopback(options.listen.hostname),
    isPrivate: options.isPrivate ?? false,
  });
  const app = createApp(node, {
    access,
    traffic,
    version: options.version,
    onShutdown: (end) => {
      endings.add(end);
      return () => void endings.delete(end);
    },
    ...(options.maxLagMs === undefined ? {} : { maxLagMs: options.maxLagMs }),
  }, options.log);
  const { tls } = options;
  const listeners: Listener[] = [];
  const listen = (at: Listen, face: Face, answer: Answer) => {
    const handler = guarded(answer, traffic, face);
    const listener = new Listener(
      at,
      (place) => bind(place, handler, options.log, tls?.pair),
      options.log,
    );
    listeners.push(listener);
    return urlOf(listener.addr, tls === undefined ? "http" : "https");
  };
  const url = listen(options.listen, "api", async (request) => {
    const path = pathAsSent(request.url);
    const face = path.startsWith("/files/") ? "files" : "api";
    const response = await app.fetch(request);
    setSafeHeaders(response.headers, face);
    return face === "files" || path === "/archive" ? traffic.paced(response) : response;
  });
  const site = new ContentServer(node);
  const wwwUrl = options.www === undefined
    ? undefined
    : listen(options.www, "site", (request) => traffic.paced(site.answer(request)));
  const renewal = tls?.watch(() => {
    for (const listener of listeners) listener.renew();
  });
  const sweeping = sweep(node, traffic);
  return {
    url,
    ...(wwwUrl === undefined ? {} : { wwwUrl }),
    reread(): void {
      access.reread();
      renewal?.look();
    },
    async stop(): Promise<void> {
      renewal?.end();
      clearInterval(sweeping);
      for (const end of endings) end();
      // Aborting what is left makes the runtime throw where nobody can catch it; whoever called this
      // closes the volume, which ends every answer that still reads, and then the process.
      let timer: ReturnType<typeof setTimeout> | undefined;
      const grace = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, options.graceMs ?? 10_000);
      });
      await Promise.race([Promise.all(listeners.map((listener) => listener.shutdown())), grace]);
      clearTimeout(timer);
    },
  };
}

function bind(
  { hostname, port }: Listen,
  handler: Handler,
  log: (text: string) => void,
  tls?: TlsPair,
): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve({
      hostname,
      port,
      ...tls,
      onListen: () => {},
      onError: (error) => {
        log(`Cannot answer a request: ${messageOf(error)}`);
        return new Response("Internal error\n", { status: 500 });
      },
    }, handler);
  } catch (error) {
    const inUse = error instanceof Deno.errors.AddrInUse;
    throw new VolcastError(
      inUse ? "busy" : "io",
      `Cannot listen at ${hostname}:${port}: ${inUse ? "it is in use" : messageOf(error)}`,
      inUse ? "Choose another port with --listen HOST:PORT" : "",
    );
  }
}

function urlOf({ hostname, port }: Deno.NetAddr, scheme: "http" | "https"): string {
  return `${scheme}://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** Answers requests. */
type Handler = (
  request: Request,
  info: Deno.ServeHandlerInfo<Deno.NetAddr>,
) => Response | Promise<Response>;

/** Answers requests with headers that are safe for browsers. */
type Answer = (request: Request) => Response | Promise<Response>;

/** A handler within limits. @param face Whose its refusals are. */
function guarded(answer: Answer, traffic: Traffic, face: Face): Handler {
  const refused = (error: unknown): Response => {
    if (!(error instanceof Refusal)) throw error;
    const response = problemResponse(error);
    setSafeHeaders(response.headers, face);
    return response;
  };
  return (request, info) => {
    try {
      const end = traffic.admit(request, info.remoteAddr.hostname);
      info.completed.then(end, end);
      // Without a promise where there is no need for one: it costs, with tens of thousands a second.
      const response = answer(request);
      return response instanceof Response ? response : response.catch(refused);
    } catch (error) {
      return refused(error);
    }
  };
}

/** Looks for readers that stalled, as long as it is let. */
function sweep(node: Node, traffic: Traffic): ReturnType<typeof setInterval> {
  const { readerMs } = traffic.limits;
  return setInterval(() => {
    const count = node.volumeIfAny?.leases.endIdle(readerMs) ?? 0;
    for (let i = 0; i < count; i++) traffic.count("reader");
  }, Math.min(10_000, readerMs / 2));
}
