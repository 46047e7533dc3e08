/**
 * Asking another server: with its token, not for ever, again where that may help, and with refusals as the
 * errors they mean. Whatever asks a server does it through here.
 *
 * Invariants:
 * 1. An answer counts as a server's own only if it says so in a header that servers set. Anything else
 *    (silence, a broken line, a page of a proxy, whatever its status) is an {@linkcode UnansweredError}: it
 *    is never a "no".
 * 2. GET and HEAD are repeated where a failure may pass. Whatever changes something is repeated only when
 *    it is known that nothing was done; where that is not known, the error says so.
 * 3. Waiting ends: for the head of an answer, and between two chunks of its body.
 *
 * @module
 */

import { z } from "zod";
import {
  type ErrorKind,
  isPassing,
  messageOf,
  PATIENCE,
  type Patience,
  retrying,
  UnansweredError,
  VolcastError,
} from "../core/mod.ts";
import type { ServerOptionsOfClient } from "./credentials.ts";
import { watched } from "./patience.ts";
import { STATUS } from "./problem.ts";
import { retryAfterMsOf } from "./retry_after.ts";
import { HEADERS } from "./state_headers.ts";

/** A server that is asked. */
export interface RemoteServer {
  /** Its URL, without a slash at the end. */
  readonly name: string;
  /** Bearer token. */
  readonly token: string | undefined;
  /** Whose certificates are believed; absent: those that the system does. */
  readonly client?: Deno.HttpClient | undefined;
  /** How long it is waited for; {@linkcode PATIENCE} by default. */
  readonly patience?: Patience | undefined;
  /** How it is reached: `fetch` by default. */
  readonly fetch?: typeof fetch | undefined;
}

/** A server by its URL: what those that stand for it here have in common. */
export class AskedServer implements RemoteServer {
  readonly name: string;
  readonly patience: Patience;
  readonly fetch: typeof fetch | undefined;
  readonly #options: ServerOptionsOfClient;

  /** @param url Where it listens. */
  constructor(url: string, options: ServerOptionsOfClient) {
    this.name = nameOf(url);
    this.patience = options.patience ?? PATIENCE;
    this.fetch = options.fetch;
    this.#options = options;
  }

  /** What it is shown. Credentials may change while this lives. */
  get token(): string | undefined {
    return this.#options.token ?? this.#options.credentials?.tokenFor(this.name);
  }

  /** Whose certificates are believed. */
  get client(): Deno.HttpClient | undefined {
    return this.#options.credentials?.client;
  }
}

/** What is asked. */
export interface RequestOptions {
  readonly method?: string;
  readonly body?: BodyInit;
  readonly headers?: Readonly<Record<string, string>>;
  /** How the answer may be encoded; whoever asks decodes it. As it is, by default. */
  readonly encoding?: "zstd" | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * Longest wait for the head of the answer, ms; what the server's patience says by default. Of a body that
   * is a stream, the longest time in which nothing of it is taken.
   */
  readonly answerMs?: number;
  /** Asked once: whoever asks knows better when to ask again, or whom else. */
  readonly once?: boolean;
  /** Whoever answers need not be a volcast server. */
  readonly anybody?: boolean;
  /** What to do when it is not known whether something was done. */
  readonly ifUnknown?: string;
}

/** For answers that tell how things are now: no cache may give an old one. */
export const FRESH = { "cache-control": "no-cache" } as const;

/** A query that was never asked before: for what must not be an old answer, whatever a cache does. */
export function fresh(): string {
  return `now=${crypto.randomUUID()}`;
}

const NOT_VOLCAST =
  "Check that the URL is that of a volcast server: a proxy or a login page may answer in its place";
/** Bytes of a refusal that are read. */
const REFUSAL_BYTES = 64 * 1024;

/** A server's URL as it is used and shown. @throws {VolcastError} `usage` for one with a password. */
export function nameOf(url: string): string {
  if (/^https?:/i.test(url) && URL.canParse(url)) {
    const { username, password, host } = new URL(url);
    if (username !== "" || password !== "") {
      throw new VolcastError(
        "usage",
        `Cannot use the URL of ${host}: it has a name or a password, which would be shown with it`,
        "Put a token into a file: --token-file FILE",
      );
    }
  }
  return url.replace(/\/+$/, "");
}

/**
 * Sends a request, and follows redirections. Whoever reads the answer's body has to watch it
 * ({@linkcode bodyOf}).
 *
 * @param path Of the server, beginning with a slash; a URL is used as it is.
 * @throws {VolcastError} {@linkcode UnansweredError}; the refusal that it answers.
 */
export function requestFrom(
  server: RemoteServer,
  path: string | URL,
  options: RequestOptions = {},
): Promise<Response> {
  return exchange(server, path, options, (response) => Promise.resolve(response));
}

/**
 * The answer of a request as JSON.
 * @throws {VolcastError} As {@linkcode requestFrom}; also when it is not what was expected.
 */
export function requestJson<T>(
  server: RemoteServer,
  path: string | URL,
  schema: z.ZodType<T>,
  options: RequestOptions = {},
): Promise<T> {
  const { name, patience } = server;
  const { signal } = options;
  const headers = { ...FRESH, ...options.headers };
  return exchange(server, path, { ...options, headers }, async (response) => {
    let value: unknown;
    try {
      const body = bodyOf(response, name, { signal, patience });
      value = await new Response(body as BodyInit).json();
    } catch (error) {
      signal?.throwIfAborted();
      const text = `Cannot read the answer of ${name}: ${messageOf(error)}`;
      throw new UnansweredError(text, "", { isPassing: true, cause: error });
    }
    return understood(schema, value, name);
  });
}

/** Asks, as often as may be, and reads what is answered. */
async function exchange<T>(
  server: RemoteServer,
  path: string | URL,
  options: RequestOptions,
  read: (response: Response) => Promise<T>,
): Promise<T> {
  const { signal, once, method = "GET", body } = options;
  const isReading = method === "GET" || method === "HEAD";
  const ask = async (): Promise<T> => {
    const response = await answerFrom(server, path, options);
    await refuseEncoded(response, server.name, options.encoding);
    if (response.ok && (options.anybody || response.headers.has(HEADERS.mark))) {
      return await read(response);
    }
    throw await errorOf(response, server, options);
  };
  if (once) return await ask();
  if (isReading) return await retrying(ask, { patience: server.patience, signal });
  let isUnknown = false;
  try {
    return await retrying(ask, {
      patience: server.patience,
      signal,
      when: (error) => {
        isUnknown = error instanceof UnansweredError && error.mayBeDone;
        return isPassing(error) && !isUnknown && !(body instanceof ReadableStream);
      },
    });
  } catch (error) {
    if (!(error instanceof UnansweredError && error.mayBeDone)) throw error;
    const shown = path instanceof URL ? path.pathname : path;
    throw new UnansweredError(
      `Cannot tell whether it was done, ${method} ${shown.slice(0, 200)}: ${error.message}`,
      options.ifUnknown ?? `Look at what ${server.name} has before it is done again`,
      { isPassing: false, cause: error },
    );
  }
}

/**
 * Sends a request, once. @returns Whatever is answered, by whomever. The one place from which requests go
 * out.
 * @throws {UnansweredError} When nothing is.
 */
export async function answerFrom(
  server: RemoteServer,
  path: string | URL,
  options: RequestOptions = {},
): Promise<Response> {
  const { signal, headers, body, method, encoding } = options;
  const { client } = server;
  const { answerMs, timer } = server.patience ?? PATIENCE;
  const limitMs = options.answerMs ?? answerMs;
  signal?.throwIfAborted();
  // A controller of its own: a signal made of others may be collected, and then never fires.
  const ending = new AbortController();
  const abort = () => ending.abort(signal?.reason);
  signal?.addEventListener("abort", abort);
  let callOff = () => {};
  let hasEnded = false;
  const forStream = () => callOff();
  const forServer = () => {
    callOff();
    if (hasEnded) return;
    callOff = timer(limitMs, () => ending.abort(new Error(`no answer within ${limitMs / 1000} s`)));
  };
  forServer();
  try {
    return await (server.fetch ?? fetch)(path instanceof URL ? path : server.name + path, {
      ...(method === undefined ? {} : { method }),
      ...(body === undefined
        ? {}
        : { body: body instanceof ReadableStream ? sent(body, { forStream, forServer }) : body }),
      headers: {
        // What is compressed on the way has no ranges, and another length than was told.
        "accept-encoding": encoding ?? "identity",
        ...headers,
        ...authorizationOf(server.token),
      },
      signal: ending.signal,
      ...(client === undefined ? {} : { client }),
    });
  } catch (error) {
    signal?.throwIfAborted();
    const cause = causeOf(error);
    throw new UnansweredError(
      `Cannot reach ${server.name}: ${cause}`,
      unreachableHint(cause, "Check that it runs and that the URL is right"),
      {
        isPassing: !cause.includes("redirect"),
        mayBeDone: !cause.includes("client error (Connect)"),
        cause: error,
      },
    );
  } finally {
    hasEnded = true;
    callOff();
    signal?.removeEventListener("abort", abort);
  }
}

/** What to do about a server that cannot be reached. @param otherwise Where the reason says nothing. */
function unreachableHint(reason: string, otherwise: string): string {
  return /UnknownIssuer|CaUsedAsEndEntity/.test(reason)
    ? "Nobody that is believed here issued its certificate. Name who did: --ca-file FILE"
    : otherwise;
}

/** The header that shows a token. */
function authorizationOf(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

/** An answer that was compressed on the way is another than the one that was asked for. */
async function refuseEncoded(
  { headers, body, ok }: Response,
  name: string,
  wanted: RequestOptions["encoding"],
): Promise<void> {
  const encoding = headers.get("content-encoding") ?? "identity";
  if (encoding === "identity" || (ok && encoding === wanted)) return;
  await body?.cancel();
  throw new UnansweredError(
    `Cannot use the answer of ${name}: it is compressed on the way (${encoding.slice(0, 40)})`,
    "Let the proxy in between give answers as they are",
    { isPassing: false },
  );
}

/** The same stream; says when the other end waits for it, and when it waits for the other end. */
function sent(
  stream: ReadableStream<Uint8Array>,
  waits: { readonly forStream: () => void; readonly forServer: () => void },
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  return new ReadableStream({
    async pull(controller): Promise<void> {
      waits.forStream();
      const { value, done } = await reader.read();
      waits.forServer();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** The body of an answer, which ends with an error when nothing comes for too long. */
export function bodyOf(
  response: Response,
  name: string,
  options: { signal?: AbortSignal | undefined; patience?: Patience | undefined } = {},
): ReadableStream<Uint8Array> {
  const body = response.body ?? new Blob([]).stream();
  return watched(body, name, options.signal, options.patience);
}

/** What a server answered, if it has the shape it should. @throws {UnansweredError}. */
export function understood<T>(schema: z.ZodType<T>, value: unknown, name: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UnansweredError(
    `Cannot understand ${name}: ${z.prettifyError(parsed.error)}`,
    "Check that the URL is that of a volcast server, of about this version",
    { isPassing: false },
  );
}

/** A kind of error as another server tells it. */
export const ERROR_KIND = z.custom<ErrorKind>((kind) =>
  typeof kind === "string" && Object.hasOwn(STATUS, kind)
);

const PROBLEM = z.object({ title: z.string(), hint: z.string().default("") });

/** The error that an answer means which is not what was asked for. */
async function errorOf(
  response: Response,
  server: RemoteServer,
  { signal, anybody = false }: RequestOptions,
): Promise<VolcastError> {
  // Where a server says back what it was shown, the error must not.
  const { token } = server;
  const hidden = (text: string) => token === undefined ? text : text.replaceAll(token, "(token)");
  const text = hidden(await startOf(response, server, signal));
  const retryAfterMs = retryAfterMsOf(response.headers);
  const kind = ERROR_KIND.safeParse(response.headers.get(HEADERS.problem));
  if (!kind.success || response.ok) {
    return foreign(response, server.name, { text, retryAfterMs, anybody });
  }
  const problem = PROBLEM.safeParse(parseJson(text) ?? problemInHeaders(response.headers));
  const { title, hint } = problem.success ? problem.data : { title: kind.data, hint: "" };
  return new VolcastError(kind.data, hidden(`${title} (says ${server.name})`), hidden(hint), {
    retryAfterMs,
  });
}

/** Somebody between here and there answered, or a server that is none of volcast's. */
function foreign(
  response: Response,
  name: string,
  { text, retryAfterMs, anybody }: {
    text: string;
    retryAfterMs: number | undefined;
    anybody: boolean;
  },
): UnansweredError {
  const { status, headers } = response;
  const type = (headers.get("content-type") ?? "").split(";")[0].slice(0, 80);
  const shown = text.replaceAll(/<(style|script)[^]*?<\/\1>|<[^>]*>|[^ -~]+/gi, " ")
    .replaceAll(/ +/g, " ").trim().slice(0, 160);
  const what = [`status ${status}`, type, shown].filter((part) => part !== "").join(", ");
  return new UnansweredError(
    `Cannot use the answer of ${name}: ${
      anybody ? what : `it is not one of a volcast server (${what})`
    }`,
    anybody ? "Check the URL" : NOT_VOLCAST,
    {
      status,
      retryAfterMs,
      isPassing: [408, 425, 429].includes(status) ||
        (status >= 500 && ![501, 505, 511].includes(status)),
      // Whoever stands between and says that the request is wrong did not pass it on.
      mayBeDone: status === 408 || status < 400 || status >= 500,
    },
  );
}

/** How the body of a refusal begins; empty where it does not come. */
async function startOf(
  response: Response,
  { name, patience }: RemoteServer,
  signal: AbortSignal | undefined,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of bodyOf(response, name, { signal, patience })) {
      text += decoder.decode(chunk, { stream: true });
      if (text.length >= REFUSAL_BYTES) break;
    }
  } catch {
    signal?.throwIfAborted();
    // Its status says enough.
  }
  return text;
}

/** An answer to HEAD has no body to say it in. */
function problemInHeaders(headers: Headers): unknown {
  const [title, hint] = [HEADERS.problemTitle, HEADERS.problemHint].map((name) => {
    try {
      return decodeURIComponent(headers.get(name) ?? "");
    } catch {
      return "";
    }
  });
  return title === "" ? undefined : { title, hint };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function causeOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error ? cause.message : messageOf(error);
}
