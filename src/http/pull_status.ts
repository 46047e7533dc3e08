/**
 * How pulling goes, in `/status` and `/metrics`.
 *
 * @module
 */

import type { Node, PullStatus } from "../replication/mod.ts";

/** A node's pulls as JSON shows them. */
export interface PullInfo extends Omit<PullStatus, "parent" | "since" | "succeededAt" | "error"> {
  readonly parent: string | null;
  /** ISO 8601. */
  readonly since: string;
  readonly succeededAt: string | null;
  readonly error: string | null;
}

/** `null` at a node that follows nobody. */
export function pullJson(node: Node): PullInfo | null {
  if (node.upstream === undefined) return null;
  const { parent, since, succeededAt, error, ...rest } = node.watch.status;
  return {
    ...rest,
    parent: parent ?? null,
    since: new Date(since).toISOString(),
    succeededAt: succeededAt === undefined ? null : new Date(succeededAt).toISOString(),
    error: error ?? null,
  };
}

/** Lines of `/metrics`; none at a node that follows nobody. */
export function pullMetrics(node: Node): string[] {
  if (node.upstream === undefined) return [];
  const { phase, since, succeededAt, failures, failuresInAll } = node.watch.status;
  const metric = (
    name: string,
    kind: "counter" | "gauge",
    help: string,
    { value, labels = "" }: { value: number; labels?: string },
  ) => [
    `# HELP volcast_pull_${name} ${help}`,
    `# TYPE volcast_pull_${name} ${kind}`,
    `volcast_pull_${name}${labels} ${value}`,
  ];
  return [
    ...metric("last_success_timestamp_seconds", "gauge", "When a pull went well last, 0: never.", {
      value: (succeededAt ?? 0) / 1000,
    }),
    ...metric("failing", "gauge", "Pulls that failed since the last success.", { value: failures }),
    ...metric("failures_total", "counter", "Pulls that failed.", { value: failuresInAll }),
    ...metric("phase_timestamp_seconds", "gauge", "What a pull does, and since when.", {
      value: since / 1000,
      labels: `{phase="${phase}"}`,
    }),
  ];
}
