/**
 * TLS at listeners: a certificate and its key in files, which are taken anew when they change.
 *
 * The runtime gives a listener its certificate once. So where the files have changed the listener is
 * closed and opened again at the same port, for some milliseconds during which a new connection is
 * refused; answers under way end on their old connections. The new pair is tried before that, and one
 * that does not fit leaves the old one in use.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { WatchedFiles, type WatchOptions } from "./watched_files.ts";

/** Files in PEM. */
export interface TlsFiles {
  /** The certificate, and those between it and the authority. */
  readonly cert: string;
  readonly key: string;
}

/** What a listener is given. */
export interface TlsPair {
  readonly cert: string;
  readonly key: string;
}

/** Looks at the files now and then. */
export interface TlsWatch {
  /** Looks now. */
  readonly look: () => void;
  readonly end: () => void;
}

/** Time between two looks at the files, ms. */
const LOOK_MS = 2_000;

/** A pair in files. */
export class TlsIdentity {
  readonly #files: WatchedFiles<TlsPair>;

  /** @throws {VolcastError} `usage` when the files are no certificate with its key. */
  constructor(files: TlsFiles, options: Pick<WatchOptions, "log">) {
    const parse = (cert: string, key: string): TlsPair => {
      tryPair({ cert, key });
      return { cert, key };
    };
    this.#files = new WatchedFiles([files.cert, files.key], parse, {
      what: "the certificate and its key",
      log: options.log,
      everyMs: 0,
    });
    if (((Deno.statSync(files.key).mode ?? 0) & 0o004) !== 0) {
      options.log(`Everybody on this host can read the key ${files.key}: chmod 600 it`);
    }
  }

  /** The pair as it is now, or as it was when it was good last. */
  get pair(): TlsPair {
    return this.#files.value;
  }

  /** Calls `changed` after the pair did. */
  watch(changed: () => void): TlsWatch {
    let last = this.pair;
    const look = () => {
      const { pair } = this;
      if (pair.cert === last.cert && pair.key === last.key) return;
      last = pair;
      changed();
    };
    const timer = setInterval(look, LOOK_MS);
    return { look, end: () => clearInterval(timer) };
  }
}

/** Whether the runtime takes a pair: it looks at it only when it listens. @throws {VolcastError} `usage`. */
function tryPair(pair: TlsPair): void {
  try {
    Deno.listenTls({ hostname: "127.0.0.1", port: 0, ...pair }).close();
  } catch (error) {
    const reason = messageOf(error);
    throw new VolcastError(
      "usage",
      /KeyMismatch/.test(reason) ? "the key is not that of the certificate" : reason,
      "Both are files in PEM: the certificate with those of its issuers behind it, and its private key",
    );
  }
}
