/**
 * `/seals`: what an origin has said of its pointers under its signature, as far as it is known here.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { Hono } from "hono";
import { VolcastError } from "../../core/mod.ts";
import { sealedId } from "../../format/mod.ts";
import { publicText, sealOf } from "../../replication/mod.ts";
import type { Env } from "../env.ts";
import { readParam, REF } from "../validate.ts";

/** See the module. */
export const sealRoutes = new Hono<Env>();

sealRoutes.get("/", (c) => {
  const seals = c.get("node").volumeIfAny?.local.seals ?? {};
  return c.json({ seals: Object.values(seals).map(describe) });
});

sealRoutes.get("/:pointer", async (c) => {
  const pointer = readParam(c.req.param("pointer"), REF, "pointer");
  const node = c.get("node");
  while (node.sealing !== undefined) await node.sealing;
  const { seals } = node.volume.local;
  if (seals !== undefined && Object.hasOwn(seals, pointer)) return c.json(describe(seals[pointer]));
  throw new VolcastError(
    "not-found",
    `Cannot find a seal for '${pointer}'`,
    "The origin seals what its pointers name: volcast serve --sign KEY",
  );
});

function describe(text: string): Record<string, unknown> {
  const seal = sealOf(text);
  const time = (ns: bigint) => new Date(Number(ns / 1_000_000n)).toISOString();
  return {
    pointer: seal.pointer,
    snapshot: sealedId(seal),
    name: seal.snapshot.name,
    volume: seal.volumeId,
    sequence: seal.sequence,
    sealedAt: time(seal.sealedAt),
    expiresAt: time(seal.expiresAt),
    digest: Buffer.from(seal.digest).toString("hex"),
    key: publicText(seal.publicKey).trim(),
    seal: text,
  };
}
