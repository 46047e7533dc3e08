/**
 * Byte ranges and preconditions (RFC 9110).
 *
 * @module
 */

/** A range of bytes, `end` excluded. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** What a `Range` header asks of a representation of `size` bytes. */
export type RangeResult = "whole" | "unsatisfiable" | ByteRange;

/**
 * Reads a `Range` header. Several ranges, other units and malformed headers get the whole, as the RFC
 * allows.
 */
export function parseRange(header: string | null | undefined, size: number): RangeResult {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return "whole";
  if (match[1] === "") {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? "unsatisfiable" : { start: size - length, end: size };
  }
  const start = Number(match[1]);
  const last = match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== "" && Number(match[2]) < start) return "whole";
  return start >= size ? "unsatisfiable" : { start, end: last + 1 };
}

/** Headers that make an answer depend on what the client has or wants. */
const CONDITIONS: ReadonlySet<string> = new Set([
  "range",
  "if-range",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
]);

/** Whether a request asks for all of a representation, whatever the client has: one look at its headers. */
export function isPlain({ method, headers }: Request): boolean {
  if (method !== "GET") return false;
  for (const [name] of headers) if (CONDITIONS.has(name)) return false;
  return true;
}

/** What a client knows of a representation, and what it is. */
export interface Validators {
  /** Strong entity tag with quotes. */
  readonly etag: string;
  /** ms since 1970; HTTP dates have whole seconds. */
  readonly lastModified?: number;
}

/** Status that preconditions lead to: 412, 304, or 200 to go on. */
export function checkPreconditions(request: Headers, validators: Validators): 200 | 304 | 412 {
  const ifMatch = request.get("if-match");
  if (ifMatch !== null && !listHas(ifMatch, validators.etag, false)) return 412;
  const unmodifiedSince = Date.parse(request.get("if-unmodified-since") ?? "");
  if (
    ifMatch === null && !Number.isNaN(unmodifiedSince) && validators.lastModified !== undefined &&
    Math.floor(validators.lastModified / 1000) * 1000 > unmodifiedSince
  ) return 412;
  const ifNoneMatch = request.get("if-none-match");
  if (ifNoneMatch !== null) return listHas(ifNoneMatch, validators.etag, true) ? 304 : 200;
  const since = Date.parse(request.get("if-modified-since") ?? "");
  if (Number.isNaN(since) || validators.lastModified === undefined) return 200;
  // Exactly equal: after a step back to an older release the date is earlier, and the content another.
  return Math.floor(validators.lastModified / 1000) * 1000 === since ? 304 : 200;
}

/** The range to send, with `If-Range` taken into account: a changed representation is sent whole. */
export function rangeOf(
  { method, headers: request }: Request,
  size: number,
  validators: Validators,
): RangeResult {
  // Ranges are for GET alone (RFC 9110, 14.2).
  if (method !== "GET") return "whole";
  const ifRange = request.get("if-range");
  if (ifRange !== null) {
    const matches = ifRange.startsWith('"')
      ? ifRange === validators.etag
      : validators.lastModified !== undefined &&
        Date.parse(ifRange) === Math.floor(validators.lastModified / 1000) * 1000;
    if (!matches) return "whole";
  }
  return parseRange(request.get("range"), size);
}

function listHas(list: string, etag: string, weak: boolean): boolean {
  return list.split(",").some((item) => {
    const tag = item.trim();
    return tag === "*" || tag === etag || (weak && tag === `W/${etag}`);
  });
}
