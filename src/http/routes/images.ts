/**
 * `/images`, `/image` and `/plan`: images by their canonical names, and by expression.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { parseExpression, signsOf, VolcastError } from "../../core/mod.ts";
import { SNAPSHOT_ID_PATTERN } from "../../format/mod.ts";
import {
  type Base,
  blocksOfList,
  imageOfBlocks,
  planDelete,
  planOf,
  resolveBase,
} from "../../image/mod.ts";
import type { Snapshot, Volume } from "../../volume/mod.ts";
import type { Env, RouteContext } from "../env.ts";
import { imageOf, imageOfExpression, imageOfRanges, imageWithHistory } from "../image_cache.ts";
import { imageResponse } from "../image_response.ts";
import { readParam, readQuery, SELECT, SNAPSHOTS } from "../validate.ts";

const VOLUME_ID = z.string().regex(/^[0-9a-f]{32}$/, "it is not the id of a volume");
const ID = z.string().regex(SNAPSHOT_ID_PATTERN, "it is not the id of a snapshot");
/** A snapshot's id, and of a shadow that of its state too. */
const isBaseName = (text: string) => {
  const ids = text.split("~");
  return ids.length <= 2 && ids.every((id) => SNAPSHOT_ID_PATTERN.test(id));
};
const BASE = z.string().refine(
  (text) => text === "full" || isBaseName(text),
  "it is neither 'full' nor the id of a snapshot, or of a shadow with its state",
);
const RANGES = z.string().max(65_536).regex(
  /^\d{1,16}(\.\.\d{1,16})?(,\d{1,16}(\.\.\d{1,16})?)*$/,
  "it is no list of consistency points such as 4..9,12",
);
const BLOCKS = z.string().max(8192).regex(
  /^\d{1,10}(-\d{1,10})?(,\d{1,10}(-\d{1,10})?)*$/,
  "it is no list of blocks such as 5,7-9",
);
const OFFSET = z.string().regex(/^\d{1,15}$/, "it is no number of bytes").transform(Number);
/** Shapes of what names an image in a path. */
export const IMAGE_PARAMS = { volume: VOLUME_ID, base: BASE, top: ID } as const;

/** `/images/{volume}/{base or "full"}/{top}`, and `/images/{volume}?select=` with ids for names. */
export const imagesRoutes = new Hono<Env>();

imagesRoutes.get("/:volume/:base/:top", (c) => {
  const volume = volumeOf(c);
  const base = readParam(c.req.param("base"), BASE, "base");
  const top = volume.resolve(readParam(c.req.param("top"), ID, "top"));
  const { snapshots: ranges, blocks, from } = readQuery(
    c,
    z.strictObject({
      snapshots: RANGES.optional(),
      blocks: BLOCKS.optional(),
      from: OFFSET.optional(),
    }),
  );
  const options = { immutable: true, from, traffic: c.get("options").traffic };
  if (blocks !== undefined) {
    const image = imageOfBlocks(volume, top, blocksOfList(volume, top, blocks), blocks);
    return imageResponse(c.req.raw, image, options);
  }
  const since = base === "full" ? undefined : baseOf(volume, base, top);
  const image = ranges === undefined
    ? imageOf(volume, top, since?.base, since?.state)
    : imageOfRanges(volume, { ranges, top, ...since });
  return imageResponse(c.req.raw, image, options);
});

imagesRoutes.get("/:volume", (c) => {
  const volume = volumeOf(c);
  const { select } = readQuery(c, z.strictObject({ select: SELECT }));
  const { positive, negative } = signsOf(parseExpression(select));
  const name = [...positive, ...negative].find((name) => !isBaseName(name));
  if (name !== undefined) {
    throw new VolcastError(
      "usage",
      `Cannot use '${name}' here: what it means may change, and this URL means one image for ever`,
      "Use ids, or GET /image?select=",
    );
  }
  return imageResponse(c.req.raw, imageOfExpression(volume, select), {
    immutable: true,
    traffic: c.get("options").traffic,
  });
});

/** The base that a canonical name means. A shadow is named with its state: its images differ by it. */
function baseOf(volume: Volume, name: string, top: Snapshot): Base {
  return name.includes("~")
    ? resolveBase(volume, name, top)
    : { base: volume.lent.base(name) ?? volume.resolve(name) };
}

/** The volume, which must be the one that the path names. */
function volumeOf(c: RouteContext): Volume {
  const { volume } = c.get("node");
  const volumeId = readParam(c.req.param("volume"), VOLUME_ID, "volume");
  if (volumeId === volume.volumeId) return volume;
  throw new VolcastError("not-found", `Cannot find volume ${volumeId}: this is ${volume.volumeId}`);
}

/** `/image?select=EXPRESSION`, `/image?snapshots=all`, `/plan?select=`, `/plan?delete=`. */
export const selectRoutes = new Hono<Env>();

selectRoutes.get("/image", (c) => {
  const query = z.strictObject({ select: SELECT.optional(), snapshots: SNAPSHOTS.optional() });
  const { select, snapshots } = readQuery(c, query);
  const { volume } = c.get("node");
  const image = select !== undefined && snapshots === undefined
    ? imageOfExpression(volume, select)
    : imageWithHistory(volume, { snapshots: onlyOne("snapshots", snapshots, select) });
  return imageResponse(c.req.raw, image, { immutable: false, traffic: c.get("options").traffic });
});

selectRoutes.get("/plan", (c) => {
  const query = z.strictObject({ select: SELECT.optional(), delete: SNAPSHOTS.optional() });
  const { select, delete: gone } = readQuery(c, query);
  const { volume } = c.get("node");
  return select !== undefined && gone === undefined
    ? c.json(planOf(imageOfExpression(volume, select)))
    : c.json(planDelete(volume, onlyOne("delete", gone, select).split(",")));
});

/** The value of the other parameter. @throws {VolcastError} `usage` when both are there, or none. */
function onlyOne(name: string, value: string | undefined, select: string | undefined): string {
  if (value !== undefined && select === undefined) return value;
  throw new VolcastError(
    "usage",
    `Cannot use the query: it has ${select === undefined ? "neither" : "both"} 'select' ${
      select === undefined ? "nor" : "and"
    } '${name}'`,
    "Give one of them",
  );
}
