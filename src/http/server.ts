/**
 * Listening, and ending in order.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import type { Node } from "../replication/mod.ts";
import { Access, isLoopback, type Tokens } from "./access.ts";
import { createApp } from "./app.ts";
import { Listener } from "./listener.ts";
import type { TlsIdentity, TlsPair } from "./tls.ts";
import { serveContent } from "./www.ts";

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
  const endings = new Set<() => void>();
  const access = new Access({
    tokens: options.tokens,
    loopback: isLoopback(options.listen.hostname),
    isPrivate: options.isPrivate ?? false,
  });
  const app = createApp(node, {
    access,
    version: options.version,
    onShutdown: (end) => {
      endings.add(end);
      return () => void endings.delete(end);
    },
    ...(options.maxLagMs === undefined ? {} : { maxLagMs: options.maxLagMs }),
  }, options.log);
  const { tls } = options;
  const listeners: Listener[] = [];
  const listen = (at: Listen, handler: (request: Request) => Response | Promise<Response>) => {
    const listener = new Listener(at, (place) => bind(place, handler, options.log, tls?.pair));
    listeners.push(listener);
    return urlOf(listener.addr, tls === undefined ? "http" : "https");
  };
  const url = listen(options.listen, (request) => app.fetch(request));
  const wwwUrl = options.www === undefined
    ? undefined
    : listen(options.www, (request) => serveContent(node, request));
  const renewal = tls?.watch(() => {
    for (const listener of listeners) listener.renew(options.log);
  });
  return {
    url,
    ...(wwwUrl === undefined ? {} : { wwwUrl }),
    reread(): void {
      access.reread();
      renewal?.look();
    },
    async stop(): Promise<void> {
      renewal?.end();
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
  handler: (request: Request) => Response | Promise<Response>,
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
