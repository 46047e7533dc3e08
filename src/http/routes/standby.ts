/**
 * The standby's side of a mirror: `GET /standby` says where it stands, `PUT /images/...` takes an image
 * that a source pushes, whole or in parts (`Content-Range`).
 *
 * @module
 */

import { toBytes } from "@std/streams/to-bytes";
import { Hono } from "hono";
import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import type { PushedBody, Receiver } from "../../replication/mod.ts";
import { bodyOf } from "../body.ts";
import type { Env, RouteContext } from "../env.ts";
import { HEADERS } from "../state_headers.ts";
import { readParam } from "../validate.ts";
import { IMAGE_PARAMS } from "./images.ts";

/** A part of this many bytes is read whole before it is used; a longer body is used while it comes. */
const PART_BYTES = 2 ** 25;

/** See the module. */
export const standbyRoutes = new Hono<Env>();

standbyRoutes.get("/standby", (c) => c.json(receiverOf(c).position()));

standbyRoutes.put("/images/:volume/:base/:top", async (c) => {
  const receiver = receiverOf(c);
  const { headers } = c.req.raw;
  const base = readParam(c.req.param("base"), IMAGE_PARAMS.base, "base");
  const epoch = headers.get(HEADERS.imageEpoch);
  const image = {
    volumeId: readParam(c.req.param("volume"), IMAGE_PARAMS.volume, "volume"),
    top: readParam(c.req.param("top"), IMAGE_PARAMS.top, "top"),
    ...(base === "full" ? {} : { base }),
    ...(epoch === null ? {} : { epoch: readParam(epoch, EPOCH, "epoch") }),
  };
  const outcome = await receiver.put(image, await partOf(c));
  return c.json(outcome, outcome.kind === "more" || outcome.kind === "working" ? 202 : 200);
});

const EPOCH = z.coerce.number().int().positive();

function receiverOf(c: RouteContext): Receiver {
  const { receiver } = c.get("node");
  if (receiver !== undefined) return receiver;
  throw new VolcastError(
    c.req.method === "PUT" ? "read-only" : "not-found",
    "Cannot take images: this server is no standby",
    "Start it with: volcast serve VOLUME --standby --site NAME",
  );
}

/** The body with its place in the stream; what is short is read whole. */
async function partOf(c: RouteContext): Promise<PushedBody & { isHere: boolean }> {
  const { headers } = c.req.raw;
  const start = startOf(headers.get("content-range"));
  // How long an image is, its header says, and the receiver holds it to that.
  const stream = bodyOf(c, { maxBytes: Infinity });
  const length = Number(headers.get("content-length") ?? NaN);
  if (!(length <= PART_BYTES)) return { start, stream, isHere: false };
  // A sender whose part is not read for a while becomes slow beyond measure: take it first.
  try {
    const bytes = await toBytes(stream) as Uint8Array<ArrayBuffer>;
    return { start, stream: new Response(bytes).body!, isHere: true };
  } catch (error) {
    if (error instanceof VolcastError) throw error;
    throw new VolcastError("usage", `Cannot read the request's body: ${messageOf(error)}`);
  }
}

function startOf(range: string | null): number {
  if (range === null) return 0;
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range);
  if (match !== null) return Number(match[1]);
  throw new VolcastError(
    "usage",
    `Cannot use the header Content-Range '${range.slice(0, 80)}'`,
    "Its form is: bytes FIRST-LAST/TOTAL",
  );
}
