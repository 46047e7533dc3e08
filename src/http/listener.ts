/**
 * A listener that can be opened anew at its port, for what the runtime takes only at the start.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";

/** Pause before the port is tried again, ms: it is free a moment after the old listener was closed. */
const PAUSE_MS = 2;
/** Attempts before the log says that it takes long. */
const QUIET_ATTEMPTS = 500;

type Server = Deno.HttpServer<Deno.NetAddr>;

/** See the module. */
export class Listener {
  readonly #open: (at: { hostname: string; port: number }) => Server;
  readonly #hostname: string;
  #server: Server;
  /** Those before, as long as their answers last. */
  readonly #ending = new Set<Promise<void>>();
  #renewing: Promise<void> = Promise.resolve();
  #stopped = false;

  /** @throws {VolcastError} What `open` throws. */
  constructor(
    at: { hostname: string; port: number },
    open: (at: { hostname: string; port: number }) => Server,
  ) {
    this.#open = open;
    this.#hostname = at.hostname;
    this.#server = open(at);
  }

  /** Where it listens. */
  get addr(): Deno.NetAddr {
    return this.#server.addr;
  }

  /** Opens it anew; answers under way end on the old one. */
  renew(log: (text: string) => void): void {
    this.#renewing = this.#renewing.then(() => this.#renew(log));
  }

  /** Stops listening. @returns When the last answer has ended. */
  async shutdown(): Promise<void> {
    this.#stopped = true;
    await this.#renewing;
    await Promise.all([this.#server.shutdown(), ...this.#ending]);
  }

  async #renew(log: (text: string) => void): Promise<void> {
    if (this.#stopped) return;
    const { port } = this.#server.addr;
    const ending = this.#server.shutdown().catch(() => {});
    this.#ending.add(ending);
    void ending.then(() => this.#ending.delete(ending));
    for (let attempt = 1; !this.#stopped; attempt++) {
      try {
        this.#server = this.#open({ hostname: this.#hostname, port });
        return;
      } catch (error) {
        if (!(error instanceof VolcastError)) throw error;
        if (attempt === QUIET_ATTEMPTS) log(`${messageOf(error)}; trying on`);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }
}
