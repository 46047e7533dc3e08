/**
 * Mirrors in `/status` and `/metrics`.
 *
 * @module
 */

import { BLOCK_SIZE } from "../format/mod.ts";
import type { Mirror, MirrorStatus, Node } from "../replication/mod.ts";

/** A mirror as JSON shows it. */
export interface MirrorInfo
  extends Omit<MirrorStatus, "aliveAt" | "since" | "succeededAt" | "lagBlocks" | "standsOn"> {
  /** When the phase began, ISO 8601. */
  readonly since: string;
  /** ISO 8601. */
  readonly succeededAt: string | null;
  readonly standsOn: MirrorStatus["standsOn"] | null;
  /** `null` before the standby was heard. */
  readonly lagBlocks: number | null;
  readonly lagBytes: number | null;
}

/** What `/status` says of a node's mirroring, from either end. */
export function mirroringJson(node: Node): Record<string, unknown> {
  return {
    ...(node.receiver === undefined ? {} : { standby: node.receiver.position() }),
    ...(node.mirrors.length === 0 ? {} : { mirrors: node.mirrors.map(mirrorJson) }),
  };
}

function mirrorJson({ status }: Mirror): MirrorInfo {
  const { since, succeededAt, lagBlocks, standsOn, aliveAt: _, ...rest } = status;
  return {
    ...rest,
    since: new Date(since).toISOString(),
    standsOn: standsOn ?? null,
    succeededAt: succeededAt === undefined ? null : new Date(succeededAt).toISOString(),
    lagBlocks: lagBlocks ?? null,
    lagBytes: lagBlocks === undefined ? null : lagBlocks * BLOCK_SIZE,
  };
}

/** Lines for `/metrics`. */
export function mirroringMetrics(node: Node): string[] {
  const all = node.mirrors.map(({ status }) => status);
  if (all.length === 0) return [];
  const metric = (
    name: string,
    kind: "gauge" | "counter",
    help: string,
    value: (status: MirrorStatus) => number | undefined,
    more: (status: MirrorStatus) => string = () => "",
  ) => [
    `# HELP volcast_mirror_${name} ${help}`,
    `# TYPE volcast_mirror_${name} ${kind}`,
    ...all.flatMap((status) => {
      const shown = value(status);
      const label = `to="${status.to}"${more(status)}`;
      return shown === undefined ? [] : [`volcast_mirror_${name}{${label}} ${shown}`];
    }),
  ];
  return [
    ...metric(
      "success_timestamp_seconds",
      "gauge",
      "When the standby was found or made up to date last.",
      ({ succeededAt }) => succeededAt === undefined ? undefined : succeededAt / 1000,
    ),
    ...metric(
      "lag_blocks",
      "gauge",
      "Blocks that the next image would hold.",
      ({ lagBlocks }) => lagBlocks,
    ),
    ...metric(
      "phase_timestamp_seconds",
      "gauge",
      "What the mirror does, and since when.",
      ({ since }) => since / 1000,
      ({ phase }) => `,phase="${phase}"`,
    ),
    ...metric("failures_total", "counter", "Rounds that failed.", (status) => status.failuresInAll),
    ...metric(
      "failing",
      "gauge",
      "Rounds that failed since the last success.",
      (status) => status.failures,
    ),
  ];
}
