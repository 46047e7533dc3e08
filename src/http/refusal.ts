/**
 * Requests that are refused because of how much they ask, not of what.
 *
 * @module
 */

import { type ErrorKind, VolcastError } from "../core/mod.ts";

/** Limits by name, as `/metrics` and problems show them. */
export const LIMIT_NAMES = [
  "address",
  "headers",
  "body",
  "body-time",
  "rate",
  "requests",
  "transfers",
  "reader",
] as const;

/** The name of a limit. */
export type LimitName = typeof LIMIT_NAMES[number];

/** What a refusal says besides its message. */
export interface RefusalOptions {
  readonly limit: LimitName;
  /** Status of the answer. */
  readonly status: number;
  readonly kind: ErrorKind;
  readonly hint?: string;
  /** When to come again, s. */
  readonly retryAfter?: number;
}

/** A limit was met. */
export class Refusal extends VolcastError {
  readonly limit: LimitName;
  readonly status: number;
  readonly retryAfter: number | undefined;

  constructor(message: string, options: RefusalOptions) {
    super(options.kind, message, options.hint);
    this.limit = options.limit;
    this.status = options.status;
    this.retryAfter = options.retryAfter;
  }
}
