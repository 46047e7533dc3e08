/**
 * Options that say how much a server gives at once, and how fast bytes go out and come in.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../core/mod.ts";
import { Throttle, Traffic } from "../http/mod.ts";
import type { OptionSpec } from "./command.ts";
import { BYTE_SIZE } from "./units.ts";

/** Least bytes a second: below it, whoever waits for bytes gives up. */
const LEAST_RATE = 4096;

/** Bytes a second. */
export const BYTE_RATE = BYTE_SIZE.refine(
  (rate) => rate >= LEAST_RATE,
  `at least ${LEAST_RATE} bytes a second`,
);
const COUNT = z.string().regex(/^[1-9]\d{0,8}$/, "it is no number from 1 on").transform(Number);

/** The option of whoever pulls. */
export const PULL_RATE_OPTION: OptionSpec = {
  value: "SIZE",
  help: "most bytes a second of images that come in; no limit by default",
};

/** The same for lines that are slower than a processor. */
export const COMPRESS_OPTION: OptionSpec = {
  help: "let images come compressed (zstd): for slow lines",
};

/** Shapes of a server's limits. */
export const LIMIT_SHAPES = {
  "limit-rate": BYTE_RATE.optional(),
  "limit-files": z.boolean().optional(),
  "pull-rate": BYTE_RATE.optional(),
  "max-transfers": COUNT.optional(),
  "max-requests": COUNT.optional(),
  "max-body": BYTE_SIZE.optional(),
  "rate-limit": COUNT.optional(),
} as const;

/** The options themselves. */
export const LIMIT_OPTIONS: Readonly<Record<keyof typeof LIMIT_SHAPES, OptionSpec>> = {
  "limit-rate": {
    value: "SIZE",
    help: "most bytes a second of images that go out, in all; no limit by default",
  },
  "limit-files": { help: "with --limit-rate: it is for files too" },
  "pull-rate": PULL_RATE_OPTION,
  "max-transfers": { value: "N", help: "most images that are sent at once; 256 by default" },
  "max-requests": { value: "N", help: "most requests at once; 4096 by default" },
  "max-body": {
    value: "SIZE",
    help: "most bytes of an import or a publish over HTTP; no limit by default",
  },
  "rate-limit": {
    value: "N",
    help: "most requests a second of one client address; no limit by default",
  },
};

type Options = z.output<z.ZodObject<typeof LIMIT_SHAPES>>;

/** The traffic of a server under these options. @throws {VolcastError} `usage`. */
export function trafficOf(options: Options): Traffic {
  const { "max-transfers": transfers, "max-requests": requests } = options;
  const { "max-body": bodyBytes, "rate-limit": clientRate } = options;
  if (options["limit-files"] && options["limit-rate"] === undefined) {
    throw new VolcastError(
      "usage",
      "Cannot use --limit-files without --limit-rate: it says how fast they may go",
      "Add for example --limit-rate 10MiB",
    );
  }
  return new Traffic({
    ...(transfers === undefined ? {} : { transfers }),
    ...(requests === undefined ? {} : { requests }),
    ...(bodyBytes === undefined ? {} : { bodyBytes }),
    ...(clientRate === undefined ? {} : { clientRate }),
  }, { throttle: throttleOf(options["limit-rate"]), throttleFiles: options["limit-files"] });
}

/** A throttle of so many bytes a second, if there is to be one. */
export function throttleOf(bytesPerSecond: number | undefined): Throttle | undefined {
  return bytesPerSecond === undefined ? undefined : new Throttle(bytesPerSecond);
}
