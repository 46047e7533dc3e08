/**
 * Validating what comes in: queries, parameters, JSON bodies.
 *
 * @module
 */

import { toBytes } from "@std/streams/to-bytes";
import type { Context } from "hono";
import { z } from "zod";
import { VolcastError } from "../core/mod.ts";
import { LABEL_PATTERN } from "../format/mod.ts";
import { bodyOf } from "./body.ts";
import type { RouteContext } from "./env.ts";

/** Most bytes of a JSON body. */
const MAX_JSON_BYTES = 64 * 1024;

/** A snapshot's name or id, or a pointer. */
export const REF = z.string().min(1).max(255).regex(
  LABEL_PATTERN,
  "it is not the name of a snapshot or a pointer",
);

/** Name of a site. */
export const SITE = z.string().min(1).max(255).regex(LABEL_PATTERN, "it is not the name of a site")
  .refine((name) => name !== "__proto__", "this name cannot be used");

/** An expression of snapshots. */
export const SELECT = z.string().min(1).max(32_768);

/** `all`, or names of snapshots with commas between. */
export const SNAPSHOTS = z.string().min(1).max(65_536).regex(
  /^[^,\s]+(,[^,\s]+)*$/,
  "it is neither 'all' nor names with commas between",
);

/** `1`, `true` or nothing for yes. */
export const FLAG = z.enum(["", "1", "true", "0", "false"]).transform((text) =>
  text !== "0" && text !== "false"
);

/**
 * The query of a request. Use a strict schema: a misspelt parameter must not be ignored in silence.
 *
 * @throws {VolcastError} `usage`, naming parameter and value.
 */
export function readQuery<T>(c: Context, schema: z.ZodType<T>): T {
  return check(schema, c.req.query(), "the query");
}

/** A path parameter. @throws {VolcastError} `usage`. */
export function readParam<T>(value: string | undefined, schema: z.ZodType<T>, name: string): T {
  return check(z.object({ [name]: schema }), { [name]: value }, "the path")[name] as T;
}

/** A JSON body of at most 64 KiB. @throws {VolcastError} `usage`; `Refusal`. */
export async function readJson<T>(c: RouteContext, schema: z.ZodType<T>): Promise<T> {
  const { jsonMs } = c.get("options").traffic.limits;
  let value: unknown;
  try {
    const body = bodyOf(c, { maxBytes: MAX_JSON_BYTES, totalMs: jsonMs });
    value = JSON.parse(new TextDecoder().decode(await toBytes(body)));
  } catch (error) {
    if (error instanceof VolcastError) throw error;
    throw new VolcastError("usage", "Cannot read the request's body: it is not JSON");
  }
  return check(schema, value, "the body");
}

function check<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue.path.join(".");
  const given = issue.path.reduce<unknown>(
    (part, key) => (part as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
  const shown = typeof given === "string" ? ` '${given.slice(0, 80)}'` : "";
  throw new VolcastError(
    "usage",
    `Cannot use ${where}${path === "" ? "" : `, ${path}${shown}`}: ${issue.message}`,
  );
}
