/**
 * What is under way and what was refused, for `/metrics`.
 *
 * @module
 */

import type { Traffic } from "./limits.ts";

/** Lines of `/metrics`. */
export function trafficMetrics(traffic: Traffic): string[] {
  const gauge = (name: string, help: string, value: number) => [
    `# HELP volcast_${name} ${help}`,
    `# TYPE volcast_${name} gauge`,
    `volcast_${name} ${value}`,
  ];
  return [
    ...gauge("requests", "Requests being answered.", traffic.requests),
    ...gauge("transfers", "Images being sent.", traffic.transfers),
    "# HELP volcast_refused_total What a limit refused or ended, by limit.",
    "# TYPE volcast_refused_total counter",
    ...[...traffic.refused].map(([limit, count]) =>
      `volcast_refused_total{limit="${limit}"} ${count}`
    ),
  ];
}
