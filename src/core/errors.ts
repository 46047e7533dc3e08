import { withoutSecrets } from "./redact.ts";

/**
 * Why an operation was refused. One word a case, shared by exit codes, HTTP status codes and
 * tests; the tables that translate them are `EXIT_CODES` in the CLI and `STATUS` in HTTP.
 */
export type ErrorKind =
  /** The caller asked for something malformed. */
  | "usage"
  /** A named thing does not exist. */
  | "not-found"
  /** A named thing exists already. */
  | "exists"
  /** Bytes on a disk or in a stream are not what their checksum or grammar says. */
  | "damaged"
  /** Nobody who is trusted says that this is what it should be. */
  | "untrusted"
  /** Another process or request owns what is needed now. */
  | "busy"
  /** A snapshot cannot go because somebody stands on it. */
  | "held"
  /** No space left in the volume, or in what lies under it. */
  | "full"
  /** The two ends do not share the history the operation needs. */
  | "diverged"
  /** The base of an increment is not known here any more. */
  | "unknown-base"
  /** The target may be read only. */
  | "read-only"
  /** The caller may not do this. */
  | "denied"
  /** There is nothing to do, and that is worth telling. */
  | "nothing"
  /** The bytes are of a version or a make this program does not know. */
  | "unsupported"
  /** The host, a disk or a peer failed. */
  | "io";

/** What else there is to say of an error. */
export interface ErrorDetails extends ErrorOptions {
  /** For how long whoever refused asks to be left alone, ms. */
  readonly retryAfterMs?: number | undefined;
}

/** An error a user can act on: what could not be done and why, and what to do next. */
export class VolcastError extends Error {
  /** The case, for programs. */
  readonly kind: ErrorKind;
  /** What the user can do next; empty when there is nothing to add. */
  readonly hint: string;
  /** See {@linkcode ErrorDetails}. */
  readonly retryAfterMs: number | undefined;

  /** @param message Form: "Cannot <action>: <reason with value>", no period. Secrets are taken out. */
  constructor(kind: ErrorKind, message: string, hint = "", details: ErrorDetails = {}) {
    super(withoutSecrets(message), details);
    this.name = "VolcastError";
    this.kind = kind;
    this.hint = withoutSecrets(hint);
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** What there is to say of an {@linkcode UnansweredError}. */
export interface UnansweredDetails extends ErrorDetails {
  /** Whether the same question may get an answer a moment later. */
  readonly isPassing: boolean;
  /** Whether what was asked for may have been done: the question went out, its answer is not known. */
  readonly mayBeDone?: boolean;
  /** Status of an answer that came from somebody between here and there. */
  readonly status?: number;
}

/**
 * Whoever was asked did not answer: it could not be reached, was silent for too long, or something between
 * here and there answered in its place. Nothing is known then, least of all that it is a "no".
 */
export class UnansweredError extends VolcastError {
  readonly isPassing: boolean;
  readonly mayBeDone: boolean;
  readonly status: number | undefined;

  /** @param message As of {@linkcode VolcastError}. */
  constructor(message: string, hint: string, details: UnansweredDetails) {
    super("io", message, hint, details);
    this.isPassing = details.isPassing;
    this.mayBeDone = details.mayBeDone ?? true;
    this.status = details.status;
  }
}

/** A {@linkcode VolcastError} of kind `damaged`. */
export function damaged(message: string, hint = ""): VolcastError {
  return new VolcastError("damaged", message, hint);
}

/** The text of anything that was thrown, without secrets. */
export function messageOf(error: unknown): string {
  return withoutSecrets(error instanceof Error ? error.message : String(error));
}
