/**
 * How a command asks servers: with which token, and whose certificates it believes.
 *
 * A token file says for each server which token it gets. A token that says no server, of the file or of
 * VOLCAST_TOKEN, goes to the first server that the command names, and to no other.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import {
  type ClientTokens,
  type Credentials,
  parseClientTokens,
  WatchedFiles,
} from "../http/mod.ts";
import { type Environment, fileFromEnvironment, tokenFromEnvironment } from "./environment.ts";
import { isUrl } from "./local_volume.ts";

/** What options may say of it. */
export interface CredentialOptions {
  readonly "token-file"?: string | undefined;
  readonly "ca-file"?: string | undefined;
}

/** Options of a command with the credentials that were made of them. */
export interface WithCredentials {
  readonly credentials: CommandCredentials;
}

/** See the module. */
export class CommandCredentials implements Credentials, Disposable {
  readonly client: Deno.HttpClient | undefined;
  readonly #file: WatchedFiles<ClientTokens> | undefined;
  readonly #fromEnvironment: string | undefined;
  readonly #note: (text: string) => void;
  /** The server that a token without one goes to. */
  #meantFor: string | undefined;
  readonly #told = new Set<string>();

  /**
   * @param note Gets remarks.
   * @param get Reads variables; those of the process by default.
   * @throws {VolcastError} `usage` for files that are not as they should be.
   */
  constructor(options: CredentialOptions, note: (text: string) => void, get?: Environment) {
    this.#note = note;
    const path = options["token-file"] ?? fileFromEnvironment("VOLCAST_TOKEN_FILE", get);
    if (path === undefined) this.#fromEnvironment = tokenFromEnvironment(get);
    else {
      this.#file = new WatchedFiles([path], parseClientTokens, { what: "the token", log: note });
      if (((Deno.statSync(path).mode ?? 0) & 0o004) !== 0) {
        note(`Everybody on this host can read the token in ${path}: chmod 600 it`);
      }
    }
    const authority = options["ca-file"] ?? fileFromEnvironment("VOLCAST_CA_FILE", get);
    if (authority !== undefined) this.client = clientBelieving(authority);
  }

  /**
   * Notes which servers a command names, in order.
   * @throws {VolcastError} `usage` where a file's single token does not say for which of several it is.
   */
  nameServers(names: readonly string[]): void {
    for (const name of names) {
      if (!isUrl(name) || !URL.canParse(name)) continue;
      const { origin } = new URL(name);
      this.#meantFor ??= origin;
      if (origin === this.#meantFor || this.#told.has(origin)) continue;
      if (typeof this.#file?.value === "string") {
        throw new VolcastError(
          "usage",
          `Cannot use one token for ${this.#meantFor} and ${origin}: it does not say for which it is`,
          "Write lines 'URL TOKEN' into the token file, one for each server",
        );
      }
      this.#told.add(origin);
      if (this.#fromEnvironment === undefined) continue;
      this.#note(
        `VOLCAST_TOKEN goes to ${this.#meantFor} and not to ${origin}: for several servers use ` +
          "--token-file with lines 'URL TOKEN'",
      );
    }
  }

  /** See {@linkcode Credentials}. */
  tokenFor(url: string): string | undefined {
    if (!URL.canParse(url)) return undefined;
    const { origin } = new URL(url);
    const tokens = this.#file === undefined ? this.#fromEnvironment : this.#file.value;
    if (typeof tokens === "object") return tokens.get(origin);
    return origin === this.#meantFor ? tokens : undefined;
  }

  [Symbol.dispose](): void {
    this.client?.close();
  }
}

function clientBelieving(path: string): Deno.HttpClient {
  try {
    const text = Deno.readTextFileSync(path);
    if (!text.includes("-----BEGIN CERTIFICATE-----")) {
      throw new Error("it has no certificate in PEM");
    }
    return Deno.createHttpClient({ caCerts: [text] });
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      "usage",
      `Cannot use the certificates in ${path}: ${
        missing ? "there is no such file" : messageOf(error)
      }`,
    );
  }
}
