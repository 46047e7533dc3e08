/**
 * Asking another server: with its token, not for ever, and with refusals as the errors they mean.
 *
 * @module
 */

import { z } from "zod";
import { type ErrorKind, messageOf, VolcastError } from "../core/mod.ts";
import { PATIENCE_MS, watched } from "./patience.ts";
import { STATUS } from "./problem.ts";

/** A server that is asked. */
export interface RemoteServer {
  /** Its URL, without a slash at the end. */
  readonly name: string;
  /** Bearer token. */
  readonly token: string | undefined;
  /** Whose certificates are believed; absent: those that the system does. */
  readonly client?: Deno.HttpClient | undefined;
}

/** What is asked. */
export interface RequestOptions {
  readonly method?: string;
  readonly body?: string | Uint8Array<ArrayBuffer>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Longest wait for the head of the answer, ms; {@linkcode PATIENCE_MS} by default. */
  readonly patienceMs?: number;
}

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
 * Sends a request. Whoever reads the answer's body has to watch the signal.
 * @throws {VolcastError} `io` when it cannot be reached; the refusal that it answers.
 */
export async function requestFrom(
  server: RemoteServer,
  path: string,
  init: RequestOptions = {},
): Promise<Response> {
  const { signal, headers = {}, patienceMs = PATIENCE_MS, ...rest } = init;
  signal?.throwIfAborted();
  // A controller of its own: a signal made of others may be collected, and then never fires.
  const ending = new AbortController();
  const abort = () => ending.abort(signal?.reason);
  signal?.addEventListener("abort", abort);
  const timer = setTimeout(
    () => ending.abort(new Error(`no answer within ${patienceMs / 1000} s`)),
    patienceMs,
  );
  const { token, client } = server;
  let response: Response;
  try {
    response = await fetch(server.name + path, {
      ...rest,
      headers: { ...headers, ...authorizationOf(token) },
      signal: ending.signal,
      ...(client === undefined ? {} : { client }),
    });
  } catch (error) {
    signal?.throwIfAborted();
    const cause = causeOf(error);
    throw new VolcastError(
      "io",
      `Cannot reach ${server.name}: ${cause}`,
      unreachableHint(cause, "Check that it runs and that the URL is right"),
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
  if (response.ok) return response;
  throw await errorOf(response, server.name, token);
}

/** What to do about a server that cannot be reached. @param otherwise Where the reason says nothing. */
export function unreachableHint(reason: string, otherwise: string): string {
  return /UnknownIssuer|CaUsedAsEndEntity/.test(reason)
    ? "Nobody that is believed here issued its certificate. Name who did: --ca-file FILE"
    : otherwise;
}

/** The header that shows a token. */
export function authorizationOf(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

/**
 * The answer of a request as JSON.
 * @throws {VolcastError} As {@linkcode requestFrom}; `io` when it is not what was expected.
 */
export async function requestJson<T>(
  server: RemoteServer,
  path: string,
  schema: z.ZodType<T>,
  options: RequestOptions = {},
): Promise<T> {
  const response = await requestFrom(server, path, options);
  let value: unknown;
  try {
    const body = response.body ?? new Blob([]).stream();
    value = await new Response(watched(body, server.name, options.signal) as BodyInit).json();
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new VolcastError("io", `Cannot read the answer of ${server.name}: ${messageOf(error)}`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new VolcastError(
    "io",
    `Cannot understand ${server.name}: ${z.prettifyError(parsed.error)}`,
    "Check that the URL is that of a volcast server",
  );
}

/** A kind of error as another server tells it. */
export const ERROR_KIND = z.custom<ErrorKind>((kind) =>
  typeof kind === "string" && Object.hasOwn(STATUS, kind)
);

const PROBLEM = z.object({
  title: z.string(),
  kind: ERROR_KIND,
  hint: z.string().default(""),
});

/**
 * The error that a refusal means.
 *
 * @param name Whose refusal it is.
 * @param token What was shown: where a server says it back, the error must not.
 */
export async function errorOf(
  response: Response,
  name: string,
  token?: string,
): Promise<VolcastError> {
  const hidden = (text: string) => token === undefined ? text : text.replaceAll(token, "(token)");
  const text = hidden(await response.text());
  const header = (name: string) => hidden(response.headers.get(`volcast-problem${name}`) ?? "");
  const [title, hint] = ["-title", "-hint"].map((name) => decodeURIComponent(header(name)));
  const problem = PROBLEM.safeParse(
    text === "" ? { kind: header(""), title, hint } : parseJson(text),
  );
  if (problem.success) {
    const { title, hint } = problem.data;
    return new VolcastError(problem.data.kind, `${title} (says ${name})`, hint, {
      retryAfterMs: retryAfterOf(response),
    });
  }
  const shown = text === "" ? "" : `, ${text.slice(0, 200).trim()}`;
  return new VolcastError(
    response.status === 404 ? "not-found" : "io",
    `Cannot use the answer of ${name}: status ${response.status}${shown}`,
    "Check that the URL is that of a volcast server",
  );
}

/** When a server wants to be asked again, if it says so in seconds. */
function retryAfterOf({ headers }: Response): number | undefined {
  const match = /^\d{1,5}$/.exec(headers.get("retry-after") ?? "");
  return match === null ? undefined : Number(match[0]) * 1000;
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
