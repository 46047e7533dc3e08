/**
 * HTTP as bytes over a connection: what no client would send, or would not wait for.
 *
 * @module
 */

/** A connection on which anything can be sent. */
export class RawConnection implements Disposable {
  readonly #connection: Deno.TcpConn;
  #text = "";

  private constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  /** Connects to the server at a URL. */
  static async to(url: string): Promise<RawConnection> {
    const { hostname, port } = new URL(url);
    return new RawConnection(await Deno.connect({ hostname, port: Number(port) }));
  }

  /** Sends all of it. */
  async send(text: string): Promise<void> {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  /** What came of the answer when it has that, or when the connection ended. */
  async until(isEnough: (text: string) => boolean): Promise<string> {
    const buffer = new Uint8Array(65_536);
    while (!isEnough(this.#text)) {
      const count = await this.#connection.read(buffer).catch(() => null);
      if (count === null) break;
      this.#text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
    }
    return this.#text;
  }

  /** The head of the answer. */
  async head(): Promise<string> {
    return (await this.until((text) => text.includes("\r\n\r\n"))).split("\r\n\r\n")[0];
  }

  /** The status of the answer. */
  async status(): Promise<number> {
    return Number((await this.head()).split(" ")[1]);
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch {
      // The other end did.
    }
  }
}

/** Sends one request. @returns The head of the answer. */
export async function rawHead(url: string, request: string): Promise<string> {
  using connection = await RawConnection.to(url);
  // What is refused may be answered before all of it was sent.
  await connection.send(request).catch(() => {});
  return await connection.head();
}
