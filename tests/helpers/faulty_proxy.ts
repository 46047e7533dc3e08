/**
 * A real HTTP/1.1 proxy that does to requests what proxies, portals, lines and tired servers do.
 *
 * One connection carries one request. Bodies are gathered, except where a server sends events.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { assert } from "../../src/core/mod.ts";

/** What goes wrong. */
export const FAULTS = [
  // Nothing, or not all, comes.
  "stall before the head",
  "stall in the head",
  "stall in the body",
  "cut before the head",
  "cut in the head",
  "cut in the body",
  "answer lost",
  "short body",
  "short body without a length",
  "length too large",
  "length too small",
  // Somebody says no, or not now.
  "408",
  "425",
  "429",
  "429 with seconds",
  "429 with a date",
  "500",
  "502",
  "503 with seconds",
  "504",
  "403 page",
  "404 page",
  "405 page",
  "410 page",
  "login page",
  "redirections without an end",
  // Something else comes.
  "whole instead of a part",
  "another tag",
  "another range",
  "gzip",
  "a bit turned",
  "bytes twice",
  "old answer",
  "headers lost",
] as const;
export type Fault = typeof FAULTS[number];

/** A request as the proxy saw it. */
export interface Seen {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly range: string | undefined;
  readonly fault: Fault | undefined;
  /** Bytes of the answer's body that went to the client. */
  sent: number;
}

interface Answer {
  status: string;
  headers: [name: string, value: string][];
  body: Uint8Array;
}

/** See the module. */
export class FaultyProxy implements AsyncDisposable {
  readonly url: string;
  /** Every request since {@linkcode FaultyProxy.begin}. */
  seen: Seen[] = [];
  /** Chooses the fault of a request, by its number and what it is. */
  script: (index: number, request: { method: string; path: string }) => Fault | undefined = () =>
    undefined;
  /** Told that a client waits in vain, and that it has gone. */
  stalled: (isStalled: boolean) => void = () => {};
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  /** URL of the server behind it. */
  upstream: string;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #work = new Set<Promise<void>>();
  /** First answers, by method and path, as a cache keeps them that should not. */
  readonly #old = new Map<string, Answer>();

  /** @param upstream URL of the server behind it. */
  constructor(upstream: string) {
    this.upstream = upstream;
    this.url = `http://127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}`;
    this.#track(this.#accept());
  }

  /** Forgets what was seen, and does from now on what `script` says. */
  begin(script: FaultyProxy["script"] = () => undefined): void {
    this.seen = [];
    this.script = script;
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) this.#track(this.#serve(client));
  }

  async #serve(client: Deno.TcpConn): Promise<void> {
    this.#open.add(client);
    try {
      const reader = new Reader(client);
      const head = await reader.head();
      if (head !== undefined) await this.#answer(client, reader, head);
    } catch {
      // One of the two went.
    } finally {
      this.#close(client);
    }
  }

  async #answer(client: Deno.TcpConn, reader: Reader, head: Head): Promise<void> {
    const [method, path] = head.first.split(" ");
    const fault = this.script(this.seen.length, { method, path });
    const range = valueOf(head.headers, "range");
    const seen: Seen = { method, path, range, fault, sent: 0 };
    this.seen.push(seen);
    const body = await reader.body(head.headers);
    if (fault === "stall before the head") return await this.#stall(client, reader);
    if (fault === "cut before the head") return;
    const page = fault === undefined ? undefined : pageOf(fault, this.url + path);
    if (page !== undefined) return await send(client, page, seen);
    const isPart = fault !== "whole instead of a part";
    const server = await this.#forward(head, { body, range: isPart });
    try {
      const incoming = new Reader(server);
      const told = await incoming.head();
      assert(told !== undefined, "the server answers");
      if (valueOf(told.headers, "content-type")?.startsWith("text/event-stream") && !fault) {
        return await this.#pass(client, incoming, told);
      }
      const isEvents = valueOf(told.headers, "content-type")?.startsWith("text/event-stream");
      const answer: Answer = {
        status: told.first.slice("HTTP/1.1 ".length),
        headers: told.headers,
        body: method === "HEAD"
          ? new Uint8Array(0)
          : isEvents
          ? new TextEncoder().encode(": volcast\n\n")
          : await incoming.body(told.headers, true),
      };
      const key = `${method} ${path}`;
      if (!this.#old.has(key)) this.#old.set(key, structuredClone(answer));
      await this.#give(client, reader, { answer, fault, seen, old: this.#old.get(key)! });
    } finally {
      this.#close(server);
    }
  }

  async #forward(
    head: Head,
    { body, range }: { body: Uint8Array; range: boolean },
  ): Promise<Deno.TcpConn> {
    const { hostname, port } = new URL(this.upstream);
    const server = await Deno.connect({ hostname, port: Number(port) });
    this.#open.add(server);
    const dropped = ["connection", "transfer-encoding", "content-length"];
    if (!range) dropped.push("range", "if-range");
    const headers = head.headers.filter(([name]) => !dropped.includes(name.toLowerCase()));
    headers.push(["connection", "close"]);
    if (body.length > 0 || head.first.startsWith("P")) {
      headers.push(["content-length", String(body.length)]);
    }
    await writeAll(server, headOf(head.first, headers));
    await writeAll(server, body);
    return server;
  }

  /** Gives an answer, or what is left of it. */
  async #give(
    client: Deno.TcpConn,
    reader: Reader,
    { answer, fault, seen, old }: {
      answer: Answer;
      fault: Fault | undefined;
      seen: Seen;
      old: Answer;
    },
  ): Promise<void> {
    const { body } = answer;
    const half = body.subarray(0, Math.floor(body.length / 2));
    const head = encodeHead(answer);
    switch (fault) {
      case "answer lost":
        return;
      case "cut in the head":
      case "stall in the head":
        await writeAll(client, head.subarray(0, Math.floor(head.length / 2)));
        return fault === "cut in the head" ? undefined : await this.#stall(client, reader);
      case "cut in the body":
      case "short body":
      case "stall in the body":
        await writeAll(client, head);
        await writeAll(client, half);
        seen.sent = half.length;
        return fault === "stall in the body" ? await this.#stall(client, reader) : undefined;
      case "short body without a length":
        return await send(client, { ...answer, body: half }, seen, { length: null });
      case "length too large":
        return await send(client, answer, seen, { length: body.length + 1000 });
      case "length too small":
        return await send(client, { ...answer, body: half }, seen, { length: half.length });
      case "old answer":
        return await send(client, old, seen);
      default:
        return await send(client, fault === undefined ? answer : changed(answer, fault), seen);
    }
  }

  /** Says nothing more until the client goes. */
  async #stall(client: Deno.TcpConn, reader: Reader): Promise<void> {
    this.stalled(true);
    try {
      while (await reader.more());
    } catch {
      // It went.
    } finally {
      this.stalled(false);
      this.#close(client);
    }
  }

  async #pass(client: Deno.TcpConn, server: Reader, head: Head): Promise<void> {
    const headers = head.headers.filter(([name]) => name.toLowerCase() !== "connection");
    await writeAll(client, headOf(head.first, [...headers, ["connection", "close"]]));
    do await writeAll(client, server.take()); while (await server.more());
  }

  #close(connection: Deno.TcpConn): void {
    if (this.#open.delete(connection)) connection.close();
  }

  #track(work: Promise<void>): void {
    this.#work.add(work);
    void work.finally(() => this.#work.delete(work));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of [...this.#open]) this.#close(connection);
    await Promise.all(this.#work);
  }
}

/** What somebody between here and there says by itself; `undefined` where the server is asked. */
function pageOf(fault: Fault, url: string): Answer | undefined {
  const page = (status: string, ...more: [string, string][]): Answer => ({
    status,
    headers: [["content-type", "text/html"], ...more],
    body: new TextEncoder().encode(`<html><h1>${status}</h1><p>A page of a proxy</html>`),
  });
  const now = new Date("2026-06-05T12:00:00Z").getTime();
  const date = (ms: number) => new Date(ms).toUTCString();
  switch (fault) {
    case "408":
      return page("408 Request Timeout");
    case "425":
      return page("425 Too Early");
    case "429":
      return page("429 Too Many Requests");
    case "429 with seconds":
      return page("429 Too Many Requests", ["retry-after", "7"]);
    case "429 with a date":
      // Its clock is not that of this host: what counts is the difference.
      return page("429 Too Many Requests", ["date", date(now)], [
        "retry-after",
        date(now + 7_000),
      ]);
    case "500":
      return page("500 Internal Server Error");
    case "502":
      return page("502 Bad Gateway");
    case "503 with seconds":
      return page("503 Service Unavailable", ["retry-after", "7"]);
    case "504":
      return page("504 Gateway Timeout");
    case "403 page":
      return page("403 Forbidden");
    case "404 page":
      return page("404 Not Found");
    case "405 page":
      return page("405 Method Not Allowed");
    case "410 page":
      return page("410 Gone");
    case "login page":
      return page("200 OK");
    case "redirections without an end":
      return page("302 Found", ["location", url]);
    default:
      return undefined;
  }
}

/** An answer as it should not be. */
function changed(answer: Answer, fault: Fault): Answer {
  const { headers, body } = answer;
  const replaced = (name: string, change: (value: string) => string): Answer => ({
    ...answer,
    headers: headers.map((
      [one, value],
    ) => [one, one.toLowerCase() === name ? change(value) : value]),
  });
  switch (fault) {
    case "another tag":
      return replaced("etag", (tag) => tag.replace(/^"./, '"z'));
    case "another range":
      return replaced(
        "content-range",
        (range) => range.replace(/\d+/, (first) => String(Number(first) + 1)),
      );
    case "gzip":
      return {
        ...answer,
        headers: [...headers, ["content-encoding", "gzip"]],
        body: body.length === 0 ? body : gzipSync(body),
      };
    case "a bit turned": {
      const copy = body.slice();
      if (copy.length > 0) copy[Math.floor(copy.length / 2)] ^= 4;
      return { ...answer, body: copy };
    }
    case "bytes twice": {
      const at = Math.floor(body.length / 2);
      const part = body.subarray(at, at + 100);
      return { ...answer, body: joined([body.subarray(0, at), part, body.subarray(at)]) };
    }
    case "headers lost":
      return {
        ...answer,
        headers: headers.filter(([name]) => !/^volcast-(base|image)/i.test(name)),
      };
    default:
      return answer;
  }
}

async function send(
  client: Deno.TcpConn,
  answer: Answer,
  seen: Seen,
  options: { length?: number | null } = {},
): Promise<void> {
  await writeAll(client, encodeHead(answer, seen.method === "HEAD" ? undefined : options));
  if (seen.method === "HEAD") return;
  await writeAll(client, answer.body);
  seen.sent = answer.body.length;
}

/** @param options Absent for an answer to HEAD, which keeps the length it tells. */
function encodeHead(answer: Answer, options?: { length?: number | null }): Uint8Array {
  const dropped = ["connection", "transfer-encoding"];
  if (options !== undefined || answer.body.length > 0) dropped.push("content-length");
  const headers = answer.headers.filter(([name]) => !dropped.includes(name.toLowerCase()));
  const length = options?.length === undefined ? answer.body.length : options.length;
  if (dropped.includes("content-length") && length !== null) {
    headers.push(["content-length", String(length)]);
  }
  headers.push(["connection", "close"]);
  return headOf(`HTTP/1.1 ${answer.status}`, headers);
}

interface Head {
  readonly first: string;
  readonly headers: [name: string, value: string][];
}

function headOf(first: string, headers: readonly (readonly [string, string])[]): Uint8Array {
  const lines = headers.map(([name, value]) => `${name}: ${value}`);
  return new TextEncoder().encode([first, ...lines, "", ""].join("\r\n"));
}

function valueOf(headers: Head["headers"], name: string): string | undefined {
  return headers.find(([one]) => one.toLowerCase() === name)?.[1];
}

/** What comes on a connection, in pieces that mean something. */
class Reader {
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #connection: Deno.TcpConn;

  constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  /** Waits for more bytes. @returns Whether there are any. */
  async more(): Promise<boolean> {
    const buffer = new Uint8Array(65_536);
    const count = await this.#connection.read(buffer);
    if (count === null) return false;
    this.#bytes = joined([this.#bytes, buffer.subarray(0, count)]);
    return true;
  }

  /** All bytes that are here. */
  take(count: number = this.#bytes.length): Uint8Array {
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  async head(): Promise<Head | undefined> {
    const text = await this.#until("\r\n\r\n");
    if (text === undefined) return undefined;
    const [first, ...lines] = text.split("\r\n");
    return {
      first,
      headers: lines.map((line) => {
        const at = line.indexOf(":");
        return [line.slice(0, at), line.slice(at + 1).trim()];
      }),
    };
  }

  /** @param toEnd Whether a body without a length ends with the connection. */
  async body(headers: Head["headers"], toEnd = false): Promise<Uint8Array> {
    if (/chunked/i.test(valueOf(headers, "transfer-encoding") ?? "")) return await this.#chunked();
    const length = valueOf(headers, "content-length");
    if (length !== undefined) return await this.#exactly(Number(length));
    if (!toEnd) return new Uint8Array(0);
    while (await this.more());
    return this.take();
  }

  async #chunked(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (;;) {
      const size = parseInt(await this.#until("\r\n") ?? "0", 16);
      if (size > 0) parts.push((await this.#exactly(size)).slice());
      await this.#exactly(2);
      if (size === 0) return joined(parts);
    }
  }

  async #exactly(count: number): Promise<Uint8Array> {
    while (this.#bytes.length < count && await this.more());
    return this.take(count);
  }

  async #until(end: string): Promise<string | undefined> {
    for (let from = 0;;) {
      const at = indexOf(this.#bytes, end, from);
      if (at >= 0) {
        const text = new TextDecoder().decode(this.take(at));
        this.take(end.length);
        return text;
      }
      from = Math.max(0, this.#bytes.length - end.length);
      if (!(await this.more())) return undefined;
    }
  }
}

function indexOf(bytes: Uint8Array, text: string, from: number): number {
  const wanted = new TextEncoder().encode(text);
  for (let at = from; at + wanted.length <= bytes.length; at++) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

async function writeAll(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}
