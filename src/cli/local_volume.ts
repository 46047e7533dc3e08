/**
 * VOLUME arguments that must be files of this host.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";

/** Whether a VOLUME argument is a server's URL. */
export function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

/**
 * Refuses a URL where a file is needed.
 *
 * @param options.action What cannot be done: `check`.
 * @param options.reason Why it cannot be done through a server.
 * @throws {VolcastError} `usage`.
 */
export function requirePath(
  volume: string,
  options: { action: string; reason: string; hint: string },
): void {
  if (!isUrl(volume)) return;
  throw new VolcastError(
    "usage",
    `Cannot ${options.action} ${volume}: ${options.reason}`,
    options.hint,
  );
}
