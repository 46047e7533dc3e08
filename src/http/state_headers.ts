/**
 * What every answer states: the current snapshot and its age, what the parent had when last heard, and
 * the chain of nodes above.
 *
 * @module
 */

import type { Node } from "../replication/mod.ts";
import { MASTER } from "../volume/mod.ts";
import { historyHeader } from "./history_header.ts";

/** Names of the headers. */
export const HEADERS = {
  /** By this alone an answer is told from one of a proxy. */
  mark: "volcast",
  snapshot: "volcast-snapshot",
  snapshotName: "volcast-snapshot-name",
  age: "volcast-snapshot-age",
  upstream: "volcast-upstream",
  upstreamAge: "volcast-upstream-age",
  chain: "volcast-chain",
  epoch: "volcast-epoch",
  volume: "volcast-volume",
  capacity: "volcast-capacity",
  image: "volcast-image",
  top: "volcast-top",
  topName: "volcast-top-name",
  base: "volcast-base",
  baseName: "volcast-base-name",
  blocks: "volcast-blocks",
  snapshots: "volcast-snapshots",
  imageEpoch: "volcast-image-epoch",
  wantsPlane: "volcast-wants-plane",
  seal: "volcast-seal",
  problem: "volcast-problem",
  problemTitle: "volcast-problem-title",
  problemHint: "volcast-problem-hint",
  moved: "volcast-moved",
} as const;

/** Sets the headers on an answer. */
export function setStateHeaders(headers: Headers, node: Node): void {
  headers.set(HEADERS.chain, [node.name, ...node.chain].map(encodeURIComponent).join(","));
  const volume = node.volumeIfAny;
  if (volume?.hasRoot) headers.set(HEADERS.epoch, historyHeader(volume.history));
  const master = volume?.find(MASTER);
  if (master !== undefined) {
    headers.set(HEADERS.snapshot, master.id);
    headers.set(HEADERS.snapshotName, encodeURIComponent(master.name));
    headers.set(HEADERS.age, seconds(node.clock.now() - Number(master.time / 1_000_000n)));
  }
  const { upstream } = node;
  if (upstream?.snapshot !== undefined && upstream.heardAt !== undefined) {
    headers.set(HEADERS.upstream, upstream.snapshot);
    headers.set(HEADERS.upstreamAge, seconds(node.clock.elapsed() - upstream.heardAt));
  }
}

function seconds(ms: number): string {
  return String(Math.max(0, Math.floor(ms / 1000)));
}
