/**
 * Sizes and durations as people write them: reading and showing.
 *
 * @module
 */

import { format as formatBytes } from "@std/fmt/bytes";
import { z } from "zod";

/** Bytes of a unit; `k` and `KiB` are the same, as everywhere in this program. */
const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  m: 2 ** 20,
  mib: 2 ** 20,
  g: 2 ** 30,
  gib: 2 ** 30,
  t: 2 ** 40,
  tib: 2 ** 40,
};

const TIME_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Timers take 31 bits of ms. */
const LONGEST_MS = 2 ** 31 - 1;

/** A size in bytes: `4GiB`, `512K`, `1048576`. */
export const BYTE_SIZE: z.ZodType<number, string> = z.string().transform((text, context) => {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = SIZE_UNITS[match?.[2].toLowerCase() ?? "?"];
  const size = Math.round(Number(match?.[1]) * (unit ?? NaN));
  if (Number.isSafeInteger(size)) return size;
  context.addIssue({
    code: "custom",
    message: "it is not a size; write for example 4GiB, 512MiB, 64K or a number of bytes",
  });
  return z.NEVER;
});

/** A duration in ms: `500ms`, `30s`, `10min`, `24h`, `7d`. */
export const DURATION_MS: z.ZodType<number, string> = z.string().transform((text, context) => {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]+)$/.exec(text.trim());
  const unit = TIME_UNITS_MS[match?.[2] ?? "?"];
  const duration = Math.round(Number(match?.[1]) * (unit ?? NaN));
  if (duration >= 0 && duration <= LONGEST_MS) return duration;
  context.addIssue({
    code: "custom",
    message: Number.isNaN(duration)
      ? "it is not a duration; write for example 500ms, 30s, 10min, 24h or 7d"
      : "it is too long; the limit is 24d",
  });
  return z.NEVER;
});

/** A number of bytes for reading by people: `4 GiB`, `1.5 MiB`, `17 B`. */
export function showBytes(byteCount: number): string {
  return formatBytes(byteCount, { binary: true, maximumFractionDigits: 2 }).replace("k", "K");
}

/** Both: `1572864 bytes (1.5 MiB)`; small ones exactly only. */
export function showExactBytes(byteCount: number): string {
  return byteCount < 1024 ? `${byteCount} bytes` : `${byteCount} bytes (${showBytes(byteCount)})`;
}
