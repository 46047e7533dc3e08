/**
 * `/replicate`: the way from what a caller has to what it wants.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { Hono } from "hono";
import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { sealFor, selectImage } from "../../replication/mod.ts";
import { MASTER, movedAt } from "../../volume/mod.ts";
import type { Env } from "../env.ts";
import { imageOf, imageWithHistory } from "../image_cache.ts";
import { canonicalPath, imageResponse } from "../image_response.ts";
import { problemResponse } from "../problem.ts";
import { HEADERS } from "../state_headers.ts";
import { readQuery, REF, SITE, SNAPSHOTS } from "../validate.ts";

const QUERY = z.strictObject({
  since: REF.optional(),
  to: REF.optional(),
  site: SITE.optional(),
  full: z.enum(["allow", "never"]).default("allow"),
  snapshots: SNAPSHOTS.optional(),
});

/** See the module. */
export const replicateRoutes = new Hono<Env>();

replicateRoutes.get("/", async (c) => {
  const query = readQuery(c, QUERY);
  const node = c.get("node");
  while (node.sealing !== undefined) await node.sealing;
  const { volume } = node;
  const site = query.site ?? c.get("tokenSite");
  const { top, base, fullBecause } = selectImage(volume, { ...query, site });
  const image = query.snapshots === undefined
    ? imageOf(volume, top, base)
    : imageWithHistory(volume, { snapshots: query.snapshots, top, base });
  if (fullBecause === "unknown-base" && query.full === "never") {
    return problemResponse(
      new VolcastError(
        "unknown-base",
        `Cannot make an increment since '${query.since}': that snapshot is not here any more`,
        `Take the full image: ${canonicalPath(image)}`,
      ),
      { link: `<${canonicalPath(image)}>; rel="alternate"` },
    );
  }
  const response = imageResponse(c.req.raw, image, {
    immutable: false,
    fullBecause,
    traffic: c.get("options").traffic,
  });
  const wanted = fullBecause === "unknown-base" ? volume.lent.missing(query.since!) : undefined;
  if (wanted !== undefined) response.headers.set(HEADERS.wantsPlane, wanted.id);
  const moved = movedAt(volume, query.to);
  if (moved?.snapshot === top.id) {
    response.headers.set(HEADERS.moved, `${moved.epoch}.${moved.cp}`);
  }
  const seal = sealFor(volume, top.id, query.to ?? MASTER);
  if (seal !== undefined) response.headers.set(HEADERS.seal, Buffer.from(seal).toString("base64"));
  return response;
});
