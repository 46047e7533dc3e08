/**
 * `/images` and `/image`: images by their canonical names, and by expression.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { parseExpression, VolcastError } from "../../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../../format/mod.ts";
import { type Image, planExpression } from "../../image/mod.ts";
import type { Volume } from "../../volume/mod.ts";
import type { Env } from "../env.ts";
import { imageOf } from "../image_cache.ts";
import { imageResponse } from "../image_response.ts";
import { readParam, readQuery, SELECT } from "../validate.ts";

const VOLUME_ID = z.string().regex(/^[0-9a-f]{32}$/, "it is not the id of a volume");
const ID = z.string().regex(SNAPSHOT_ID_PATTERN, "it is not the id of a snapshot");
const BASE = z.union([z.literal("full"), ID]);
/** Shapes of what names an image in a path. */
export const IMAGE_PARAMS = { volume: VOLUME_ID, base: BASE, top: ID } as const;

/** `/images/{volume}/{base or "full"}/{top}`. */
export const imagesRoutes = new Hono<Env>();

imagesRoutes.get("/:volume/:base/:top", (c) => {
  const { volume } = c.get("node");
  const volumeId = readParam(c.req.param("volume"), VOLUME_ID, "volume");
  const base = readParam(c.req.param("base"), BASE, "base");
  const top = readParam(c.req.param("top"), ID, "top");
  if (volumeId !== volume.volumeId) {
    throw new VolcastError(
      "not-found",
      `Cannot find volume ${volumeId}: this is ${volume.volumeId}`,
    );
  }
  const image = imageOf(
    volume,
    volume.resolve(top),
    base === "full" ? undefined : volume.resolve(base),
  );
  return imageResponse(c.req.raw, image, { immutable: true });
});

/** `/image?select=EXPRESSION`. */
export const selectRoutes = new Hono<Env>();

selectRoutes.get("/image", (c) => {
  const { select } = readQuery(c, z.strictObject({ select: SELECT }));
  const { volume } = c.get("node");
  return imageResponse(c.req.raw, imageOfExpression(volume, select), { immutable: false });
});

selectRoutes.get("/plan", (c) => {
  const { select } = readQuery(c, z.strictObject({ select: SELECT }));
  return c.json(planExpression(c.get("node").volume, select));
});

/**
 * The image of `top` or `top - base`.
 * @throws {VolcastError} `unsupported` for other expressions, which can be planned only.
 */
export function imageOfExpression(volume: Volume, text: string): Image {
  const expression = parseExpression(text);
  if (expression.kind === "name") return imageOf(volume, volume.resolve(expression.name));
  const { kind, left, right } = expression;
  if (kind === "-" && left.kind === "name" && right.kind === "name") {
    return imageOf(volume, volume.resolve(left.name), volume.resolve(right.name));
  }
  throw new VolcastError(
    "unsupported",
    `Cannot make an image of '${text}': an image is 'top' or 'top - base'`,
    "Use GET /plan for other expressions",
  );
}
