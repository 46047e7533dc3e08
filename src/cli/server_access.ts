/**
 * Who may ask a server, and over what, as the options of `serve` say.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import {
  isLoopback,
  type Listen,
  openTokenFile,
  type RunningServer,
  type ServerOptions,
  TlsIdentity,
} from "../http/mod.ts";
import { siteTokensFromEnvironment, tokenFromEnvironment } from "./environment.ts";

/** Options of `serve`. */
export interface AccessOptions {
  readonly listen: Listen;
  readonly tokens?: string | undefined;
  readonly private?: boolean | undefined;
  readonly "tls-cert"?: string | undefined;
  readonly "tls-key"?: string | undefined;
}

/**
 * The settings that they mean.
 * @throws {VolcastError} `usage` for a file that is not as it should be.
 */
export function accessOf(
  options: AccessOptions,
  log: (text: string) => void,
): Pick<ServerOptions, "tokens" | "isPrivate" | "tls"> {
  const { tokens: path, "tls-cert": cert, "tls-key": key } = options;
  const admin = tokenFromEnvironment();
  const sites = siteTokensFromEnvironment();
  const tokens = {
    ...(admin === undefined ? {} : { admin }),
    sites,
    ...(path === undefined ? {} : { file: openTokenFile(path, { log }) }),
  };
  if ((cert === undefined) !== (key === undefined)) {
    throw new VolcastError(
      "usage",
      `Cannot use ${
        cert === undefined ? "--tls-key without --tls-cert" : "--tls-cert without --tls-key"
      }`,
      "A certificate and its private key go together",
    );
  }
  const tls = cert === undefined ? undefined : new TlsIdentity({ cert, key: key! }, { log });
  const hasTokens = admin !== undefined || sites.size > 0 || path !== undefined;
  if (hasTokens && tls === undefined && !isLoopback(options.listen.hostname)) {
    log(
      `Tokens travel in the clear: ${options.listen.hostname} is reached by others, and there is no ` +
        "TLS; use --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that has it",
    );
  }
  return { tokens, isPrivate: options.private ?? false, ...(tls === undefined ? {} : { tls }) };
}

/**
 * Lets SIGHUP read tokens and certificates again. A server that has none in files ends by it, as
 * programs do.
 *
 * @returns Takes that back.
 */
export function rereadOnHangup(options: AccessOptions, server: RunningServer): () => void {
  if (options.tokens === undefined && options["tls-cert"] === undefined) return () => {};
  const reread = () => server.reread();
  Deno.addSignalListener("SIGHUP", reread);
  return () => Deno.removeSignalListener("SIGHUP", reread);
}
