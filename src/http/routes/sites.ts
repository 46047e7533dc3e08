/**
 * `/sites`: the destinations known here, and where they stand.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { SNAPSHOT_ID_PATTERN } from "../../format/mod.ts";
import type { SiteState } from "../../volume/mod.ts";
import type { Env, RouteContext } from "../env.ts";
import { readJson, readParam, REF, SITE } from "../validate.ts";

const POSITION = z.strictObject({
  snapshot: REF,
  needs: z.array(z.string().regex(SNAPSHOT_ID_PATTERN)).max(1000).default([]),
});

/** See the module. */
export const siteRoutes = new Hono<Env>();

siteRoutes.get("/", (c) => {
  const { sites } = c.get("node").volume.local;
  return c.json({
    sites: Object.entries(sites).map(([name, state]) => siteJson(c, name, state)),
  });
});

siteRoutes.put("/:name", async (c) => {
  const name = readParam(c.req.param("name"), SITE, "name");
  c.get("options").access.requireSite(c.req.raw.headers, name);
  const body = await readJson(c, POSITION);
  const node = c.get("node");
  const { id } = node.volume.resolve(body.snapshot);
  const state = await node.confirm(name, { snapshot: id, needs: body.needs });
  return c.json(siteJson(c, name, state));
});

siteRoutes.delete("/:name", async (c) => {
  const name = readParam(c.req.param("name"), SITE, "name");
  c.get("options").access.requireAdmin(c.req.raw.headers);
  await c.get("node").forget(name);
  return c.body(null, 204);
});

function siteJson(c: RouteContext, name: string, state: SiteState): Record<string, unknown> {
  const { volume } = c.get("node");
  const snapshot = state.snapshot === undefined ? undefined : volume.find(state.snapshot);
  return {
    name,
    snapshot: state.snapshot ?? null,
    snapshotName: snapshot?.name ?? null,
    needs: state.needs,
    confirmedAt: state.confirmedAt === undefined ? null : new Date(state.confirmedAt).toISOString(),
  };
}
