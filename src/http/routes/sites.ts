/**
 * `/sites`: the destinations known here, and where they stand.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../../format/mod.ts";
import { receivePlane } from "../../image/mod.ts";
import { bodyOf } from "../body.ts";
import { sitesJson } from "../describe.ts";
import type { Env } from "../env.ts";
import { readJson, readParam, REF, SITE } from "../validate.ts";

const POSITION = z.strictObject({
  snapshot: REF,
  needs: z.array(z.string().regex(SNAPSHOT_ID_PATTERN)).max(1000).default([]),
});

/** See the module. */
export const siteRoutes = new Hono<Env>();

siteRoutes.get("/", (c) => c.json({ sites: sitesJson(c.get("node").volume) }));

siteRoutes.put("/:name", async (c) => {
  const name = readParam(c.req.param("name"), SITE, "name");
  const body = await readJson(c, POSITION);
  const node = c.get("node");
  const { id } = node.volume.resolveBase(body.snapshot);
  await node.confirm(name, { snapshot: id, needs: body.needs });
  return c.json(sitesJson(node.volume, [name])[0]);
});

siteRoutes.put("/:name/plane", async (c) => {
  readParam(c.req.param("name"), SITE, "name");
  const { volume } = c.get("node");
  const maxBytes = mostPlaneBytes(volume.zone.capacity);
  const { id } = await receivePlane(volume, bodyOf(c, { maxBytes })).catch((error) => {
    // What is wrong with it is the client's mistake, and says nothing of the volume here.
    if (!(error instanceof VolcastError) || error.kind !== "damaged") throw error;
    throw new VolcastError("usage", error.message, error.hint, { cause: error });
  });
  return c.json({ plane: id });
});

siteRoutes.delete("/:name", async (c) => {
  const name = readParam(c.req.param("name"), SITE, "name");
  await c.get("node").forget(name);
  return c.body(null, 204);
});

/** More than the image of a plane has: a bit a block, what leads to it, and the image's own bytes. */
function mostPlaneBytes(capacity: number): number {
  return 2 ** 20 + capacity;
}
