/**
 * A listener that can be opened anew at its port: for what the runtime takes only at the start, and because
 * it gives up accepting connections for good when the process has no file descriptor left. Anybody who
 * opens enough connections could end a server so; here it listens again as soon as it can.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";

/** Pause before the port is tried again, ms: it is free a moment after the old listener was closed. */
const PAUSE_MS = 2;
/** Pauses after accepting failed, ms: the first one, and the longest. */
const FAILED_MS = { first: 250, most: 8000 } as const;
/** A listener that accepted for so long (ms) begins with the first pause again. */
const LASTED_MS = 30_000;
/** Attempts before the log says that it takes long. */
const QUIET_ATTEMPTS = 500;

type Server = Deno.HttpServer<Deno.NetAddr>;

/** See the module. */
export class Listener {
  readonly #open: (at: { hostname: string; port: number }) => Server;
  readonly #hostname: string;
  readonly #log: (text: string) => void;
  #server: Server;
  /** Those before, as long as their answers last. */
  readonly #ending = new Set<Promise<void>>();
  #renewing: Promise<void> = Promise.resolve();
  #stopped = false;
  #stop = (): void => {};
  /** Fires when nothing is waited for any more. */
  readonly #stopping = new Promise<void>((resolve) => this.#stop = resolve);
  #failedMs: number = FAILED_MS.first;

  /** @throws {VolcastError} What `open` throws. */
  constructor(
    at: { hostname: string; port: number },
    open: (at: { hostname: string; port: number }) => Server,
    log: (text: string) => void,
  ) {
    this.#open = open;
    this.#hostname = at.hostname;
    this.#log = log;
    this.#server = this.#begin(at);
  }

  /** Where it listens. */
  get addr(): Deno.NetAddr {
    return this.#server.addr;
  }

  /** Opens it anew; answers under way end on the old one. */
  renew(): void {
    this.#renewing = this.#renewing.then(() => this.#renew());
  }

  /** Stops listening. @returns When the last answer has ended. */
  async shutdown(): Promise<void> {
    this.#stopped = true;
    this.#stop();
    await this.#renewing;
    await Promise.all([this.#server.shutdown().catch(() => {}), ...this.#ending]);
  }

  /** Opens it, and looks after it. */
  #begin(at: { hostname: string; port: number }): Server {
    const server = this.#open(at);
    const begin = performance.now();
    server.finished.catch((error) => {
      if (this.#stopped || server !== this.#server) return;
      this.#log(`Cannot accept connections: ${messageOf(error)}. Listening again`);
      if (performance.now() - begin > LASTED_MS) this.#failedMs = FAILED_MS.first;
      const waitMs = this.#failedMs;
      this.#failedMs = Math.min(FAILED_MS.most, waitMs * 2);
      this.#renewing = this.#renewing.then(() => this.#pause(waitMs)).then(() => this.#renew());
    });
    return server;
  }

  /** Waits, or until it is stopped. */
  async #pause(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([new Promise((resolve) => timer = setTimeout(resolve, ms)), this.#stopping]);
    clearTimeout(timer);
  }

  async #renew(): Promise<void> {
    if (this.#stopped) return;
    const { port } = this.#server.addr;
    const ending = this.#server.shutdown().catch(() => {});
    this.#ending.add(ending);
    void ending.then(() => this.#ending.delete(ending));
    for (let attempt = 1; !this.#stopped; attempt++) {
      try {
        this.#server = this.#begin({ hostname: this.#hostname, port });
        return;
      } catch (error) {
        if (!(error instanceof VolcastError)) throw error;
        if (attempt === QUIET_ATTEMPTS) this.#log(`${messageOf(error)}; trying on`);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }
}
