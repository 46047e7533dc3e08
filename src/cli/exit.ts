/**
 * Exit codes: the one place where they are said.
 *
 * @module
 */

import { type ErrorKind, VolcastError } from "../core/mod.ts";

/** Exit codes by meaning. */
export const EXIT_CODES = {
  done: 0,
  failed: 1,
  usage: 2,
  nothing: 3,
  damaged: 4,
  busy: 5,
} as const;

const MEANINGS: Readonly<Record<keyof typeof EXIT_CODES, string>> = {
  done: "done",
  failed: "failed: the message says why",
  usage: "the command line is not as it should be, or names what cannot be",
  nothing: "there was nothing to do",
  damaged: "a volume or an image is damaged, or its seal is not to be trusted",
  busy: "somebody else has what is needed: the volume is open elsewhere, a snapshot is held",
};

const KIND_CODES: Readonly<Record<ErrorKind, number>> = {
  "usage": EXIT_CODES.usage,
  "not-found": EXIT_CODES.failed,
  "exists": EXIT_CODES.failed,
  "damaged": EXIT_CODES.damaged,
  "untrusted": EXIT_CODES.damaged,
  "busy": EXIT_CODES.busy,
  "held": EXIT_CODES.busy,
  "full": EXIT_CODES.failed,
  "diverged": EXIT_CODES.failed,
  "unknown-base": EXIT_CODES.failed,
  "read-only": EXIT_CODES.failed,
  "denied": EXIT_CODES.failed,
  "nothing": EXIT_CODES.nothing,
  "unsupported": EXIT_CODES.failed,
  "io": EXIT_CODES.failed,
};

/** The exit code for anything that was thrown. */
export function exitCodeOf(error: unknown): number {
  return error instanceof VolcastError ? KIND_CODES[error.kind] : EXIT_CODES.failed;
}

/** Lines for the help. */
export function exitCodeTable(): string[] {
  return Object.entries(EXIT_CODES).map(([name, code]) =>
    `  ${code}  ${MEANINGS[name as keyof typeof EXIT_CODES]}`
  );
}
