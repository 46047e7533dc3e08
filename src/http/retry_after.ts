/**
 * `Retry-After`: for how long a server asks to be left alone (RFC 9110, 10.2.3).
 *
 * @module
 */

/**
 * The time in ms, `undefined` where the header is not there or is none. A date is compared with the
 * server's own (`Date`): what the clock here says, and when it is set anew, is of no matter.
 */
export function retryAfterMsOf(headers: Headers): number | undefined {
  const text = headers.get("retry-after")?.trim();
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const at = dateOf(text);
  if (at === undefined) return undefined;
  const now = dateOf(headers.get("date") ?? "") ?? Date.now();
  return Math.max(0, at - now);
}

/** An HTTP date in ms since 1970. */
function dateOf(text: string): number | undefined {
  if (!/^[A-Z][a-z]{2,8},? .*\d\d:\d\d:\d\d/.test(text)) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}
