/**
 * A line between two processes that counts what goes over it, and can be cut.
 *
 * @module
 */

/** Passes TCP connections on to a port of this host. */
export class Proxy implements AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** Bytes that the server sent, headers and all. */
  sent = 0;
  /** Bytes that clients sent. */
  received = 0;
  /** Connections that were cut. */
  cuts = 0;
  /** While it is, connections end at once. */
  isDown = false;
  readonly #counts: "client" | "server";
  /** Bytes after which the connection they come on is cut. */
  #limit: () => number = () => Infinity;
  #left = Infinity;
  readonly #listener: Deno.TcpListener;
  readonly #server: number;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #loops = new Set<Promise<void>>();

  /**
   * @param port Where the server listens.
   * @param options.counts Whose bytes count for {@linkcode cutEvery}; the client's by default.
   */
  constructor(port: number, { counts = "client" }: { counts?: "client" | "server" } = {}) {
    this.#server = port;
    this.#counts = counts;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.port = this.#listener.addr.port;
    this.url = `http://127.0.0.1:${this.port}`;
    this.#track(this.#accept());
  }

  /** From now on a connection is cut each time that `limit()` bytes have come. */
  cutEvery(limit: () => number): void {
    this.#limit = limit;
    this.#left = limit();
  }

  /** Cuts every connection now. */
  cut(): void {
    for (const connection of this.#open) {
      this.#open.delete(connection);
      connection.close();
    }
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) this.#track(this.#serve(client));
  }

  async #serve(client: Deno.TcpConn): Promise<void> {
    if (this.isDown) return client.close();
    let server: Deno.TcpConn;
    try {
      server = await Deno.connect({ hostname: "127.0.0.1", port: this.#server });
    } catch {
      return client.close();
    }
    const both = [client, server];
    for (const connection of both) this.#open.add(connection);
    await Promise.all([
      this.#pass(client, server, "client"),
      this.#pass(server, client, "server"),
    ]);
    for (const connection of both) {
      if (this.#open.delete(connection)) connection.close();
    }
  }

  async #pass(from: Deno.TcpConn, to: Deno.TcpConn, sender: "client" | "server"): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (;;) {
        const count = await from.read(buffer);
        if (count === null) return await to.closeWrite();
        // Before whoever gets them can say that all has come.
        if (sender === "server") this.sent += count;
        else this.received += count;
        for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
        if (sender !== this.#counts || (this.#left -= count) > 0) continue;
        this.#left = this.#limit();
        this.cuts++;
        break;
      }
    } catch {
      // One of the two went; so does the other.
    }
    for (const connection of [from, to]) if (this.#open.delete(connection)) connection.close();
  }

  #track(loop: Promise<void>): void {
    this.#loops.add(loop);
    void loop.finally(() => this.#loops.delete(loop));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await Promise.all(this.#loops);
  }
}
