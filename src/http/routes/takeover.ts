/**
 * `POST /promote`: takeover. `GET /diff`: what differs between two snapshots.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { diffTrees, type FileSystem, type View } from "../../volume/mod.ts";
import { volumeStatus } from "../describe.ts";
import type { Env } from "../env.ts";
import { linesResponse } from "../lines_response.ts";
import { readQuery, REF } from "../validate.ts";

/** See the module. */
export const takeoverRoutes = new Hono<Env>();

takeoverRoutes.post("/promote", async (c) => {
  const node = c.get("node");
  await node.promote();
  return c.json(volumeStatus(node.volume));
});

takeoverRoutes.get("/diff", (c) => {
  const { from, to } = readQuery(c, z.strictObject({ from: REF, to: REF }));
  const { volume } = c.get("node");
  const views: View[] = [];
  try {
    for (const ref of [from, to]) views.push(volume.view(ref));
    return linesResponse(c, diffLines(views[0].fs, views[1].fs), views);
  } catch (error) {
    for (const view of views) view.release();
    throw error;
  }
});

function* diffLines(before: FileSystem, after: FileSystem): Generator<string> {
  for (const change of diffTrees(before, after)) yield JSON.stringify(change) + "\n";
}
