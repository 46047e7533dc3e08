/**
 * `/snapshots` and `/pointers`.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { MASTER } from "../../volume/mod.ts";
import { snapshotJson, snapshotsJson } from "../describe.ts";
import type { Env } from "../env.ts";
import { readJson, readParam, REF } from "../validate.ts";

/** See the module. */
export const snapshotRoutes = new Hono<Env>();

snapshotRoutes.get("/snapshots", (c) => {
  const { volume } = c.get("node");
  const local = volume.localSnapshots();
  return c.json({
    snapshots: snapshotsJson(volume),
    ...(local.length === 0 ? {} : { local: local.map((one) => snapshotJson(volume, one)) }),
  });
});

snapshotRoutes.post("/snapshots", async (c) => {
  const body = await readJson(
    c,
    z.strictObject({ name: z.string(), pointers: z.array(z.string()).max(16).default([]) }),
  );
  const node = c.get("node");
  const { volume } = node;
  const snapshot = await volume.exclusive((writer) =>
    writer.takeSnapshot(body.name, { pointers: body.pointers })
  );
  if (body.pointers.includes(MASTER)) node.announceMaster();
  return c.json(snapshotJson(volume, snapshot), 201, {
    location: `/snapshots/${snapshot.id}`,
  });
});

snapshotRoutes.get("/snapshots/:ref", (c) => {
  const { volume } = c.get("node");
  const ref = readParam(c.req.param("ref"), REF, "ref");
  return c.json(snapshotJson(volume, volume.resolveBase(ref)));
});

snapshotRoutes.patch("/snapshots/:ref", async (c) => {
  const { volume } = c.get("node");
  const ref = readParam(c.req.param("ref"), REF, "ref");
  await readJson(c, z.strictObject({ kind: z.literal("shadow", "it can only become a shadow") }));
  const { shadow, released } = await volume.exclusive((writer) =>
    writer.shadowSnapshot(volume.resolveBase(ref).id)
  );
  return c.json({ ...snapshotJson(volume, shadow), releasedBlocks: released });
});

snapshotRoutes.delete("/snapshots/:ref", async (c) => {
  const { volume } = c.get("node");
  const ref = readParam(c.req.param("ref"), REF, "ref");
  await volume.exclusive((writer) => writer.deleteSnapshot(volume.resolveBase(ref).id));
  return c.body(null, 204);
});

snapshotRoutes.get("/pointers", (c) => {
  const { volume } = c.get("node");
  return c.json({
    pointers: volume.pointers().map(({ name, snapshot }) => ({
      name,
      snapshot,
      snapshotName: volume.resolve(snapshot).name,
    })),
  });
});

snapshotRoutes.put("/pointers/:name", async (c) => {
  const name = readParam(c.req.param("name"), REF, "name");
  const body = await readJson(c, z.strictObject({ snapshot: REF }));
  const node = c.get("node");
  const { volume } = node;
  const target = await volume.exclusive(async (writer) => {
    const snapshot = volume.resolve(body.snapshot);
    await writer.setPointer(name, snapshot.id);
    return snapshot;
  });
  if (name === MASTER) node.announceMaster();
  return c.json({ name, snapshot: target.id, snapshotName: target.name });
});
