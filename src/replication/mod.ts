/**
 * Replication: choosing images, pulling them from parents, knowing the sites below. Knows a
 * {@linkcode Peer}, not what carries it.
 *
 * @module
 */

export * from "./events.ts";
export * from "./follow.ts";
export * from "./healer.ts";
export * from "./mirror.ts";
export * from "./mirror_loop.ts";
export { isMirrorSnapshot } from "./mirror_sites.ts";
export * from "./mirror_status.ts";
export * from "./node.ts";
export * from "./peer.ts";
export * from "./pin_budget.ts";
export * from "./pull.ts";
export * from "./pull_status.ts";
export * from "./pushed_stream.ts";
export * from "./receive.ts";
export * from "./receiver.ts";
export * from "./recovery.ts";
export * from "./resync.ts";
export * from "./seal_keys.ts";
export * from "./scrub.ts";
export * from "./sealer.ts";
export * from "./select.ts";
export * from "./standby.ts";
export * from "./trust.ts";
export * from "./watchdog.ts";
