/**
 * How the scrub is going, for `/metrics`.
 *
 * @module
 */

import type { ScrubStatus } from "../replication/mod.ts";

/** Lines of `/metrics`; none where nothing is scrubbed. */
export function scrubMetrics(status: ScrubStatus | undefined): string[] {
  if (status === undefined) return [];
  const metric = (name: string, kind: "counter" | "gauge", help: string, value: number) => [
    `# HELP volcast_scrub_${name} ${help}`,
    `# TYPE volcast_scrub_${name} ${kind}`,
    `volcast_scrub_${name} ${value}`,
  ];
  const { checkedBlocks, foundBlocks, healedBlocks, badBlocks, completedAt } = status;
  return [
    ...metric("checked_blocks_total", "counter", "Blocks looked at.", checkedBlocks),
    ...metric("found_blocks_total", "counter", "Blocks found bad.", foundBlocks),
    ...metric("healed_blocks_total", "counter", "Blocks healed from other nodes.", healedBlocks),
    ...metric("bad_blocks", "gauge", "Blocks that are bad now.", badBlocks),
    ...metric(
      "completed_timestamp_seconds",
      "gauge",
      "When every block was looked at last, 0: never.",
      completedAt === null ? 0 : Date.parse(completedAt) / 1000,
    ),
  ];
}
