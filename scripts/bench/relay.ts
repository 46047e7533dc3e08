/**
 * A line between a server and its clients that counts what the server sends.
 *
 * @module
 */

/** Passes connections on to a port of this host. */
export class Relay implements AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** Bytes that the server sent, headers and all. */
  sent = 0;
  /** Bytes that clients sent. */
  received = 0;
  readonly #listener: Deno.TcpListener;
  readonly #target: number;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #loops = new Set<Promise<void>>();

  /** @param target Port of the server. */
  constructor(target: number) {
    this.#target = target;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.port = this.#listener.addr.port;
    this.url = `http://127.0.0.1:${this.port}`;
    this.#track(this.#accept());
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) this.#track(this.#serve(client));
  }

  async #serve(client: Deno.TcpConn): Promise<void> {
    const server = await Deno.connect({ hostname: "127.0.0.1", port: this.#target });
    this.#open.add(client).add(server);
    await Promise.all([
      this.#pass(client, server, (count) => this.received += count),
      this.#pass(server, client, (count) => this.sent += count),
    ]);
    for (const connection of [client, server]) {
      if (this.#open.delete(connection)) connection.close();
    }
  }

  async #pass(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    note: (count: number) => void,
  ): Promise<void> {
    const buffer = new Uint8Array(256 * 1024);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        note(count);
        for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
      }
      await to.closeWrite();
    } catch {
      // One end went away: the other one learns of it below.
      for (const connection of [from, to]) if (this.#open.delete(connection)) connection.close();
    }
  }

  #track(loop: Promise<void>): void {
    this.#loops.add(loop);
    void loop.finally(() => this.#loops.delete(loop));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
    this.#open.clear();
    await Promise.allSettled(this.#loops);
  }
}
