/**
 * A site that is served and follows its parent, and tells when a pull is done.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { currentOf, Server } from "../../tests/e2e/harness.ts";
import { until } from "../../tests/helpers/until.ts";

interface Waiting {
  readonly release: string;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/** See the module. */
export class Site implements AsyncDisposable {
  readonly server: Server;
  readonly #waiting = new Set<Waiting>();
  #reading: Promise<void> = Promise.resolve();

  private constructor(server: Server) {
    this.server = server;
  }

  /** Starts one, and waits until it has `release` and hears its own events. */
  static async start(
    volume: string,
    options: { name: string; parent: string; release: string; args?: readonly string[] },
  ): Promise<Site> {
    const { name, parent, release, args = [] } = options;
    // What the parent announces is pulled at once; the clock shall not come between turns.
    const follow = ["--site", name, "--parent", parent, "--every", "1h"];
    const site = new Site(await Server.start([volume, ...follow, ...args]));
    try {
      const response = await fetch(`${site.server.url}/events`);
      site.#reading = site.#read(response.body!).catch((error) => site.#fail(error));
      await until(
        `${name} has '${release}'`,
        async () => await currentOf(site.server.url) === release,
      );
      return site;
    } catch (error) {
      await site[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Fulfils when this site has pulled a release. Call it before that is set going. */
  pulled(release: string): Promise<void> {
    return new Promise((resolve, reject) => this.#waiting.add({ release, resolve, reject }));
  }

  /** @throws {Error} when a release is not the one that this site serves. */
  async assertHas(release: string): Promise<void> {
    const current = await currentOf(this.server.url);
    if (current !== release) throw new Error(`a site is at '${current}', not at '${release}'`);
  }

  async #read(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const lines = body.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream() as TransformStream<string, string>);
    for await (const line of lines) {
      if (!line.startsWith('data: {"type":"pull"')) continue;
      const { result, message } = JSON.parse(line.slice("data: ".length));
      if (result === "failed") this.#fail(new Error(message));
      for (const waiting of this.#waiting) {
        if (!message.includes(`'${waiting.release}'`)) continue;
        this.#waiting.delete(waiting);
        waiting.resolve();
      }
    }
  }

  #fail(reason: Error): void {
    for (const { reject } of this.#waiting) reject(reason);
    this.#waiting.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // That ends the stream of events, too.
    await this.server.stop();
    await this.#reading;
  }
}
