/**
 * Replication: choosing images, pulling them from parents, knowing the sites below. Knows a
 * {@linkcode Peer}, not what carries it.
 *
 * @module
 */

export * from "./events.ts";
export * from "./follow.ts";
export * from "./node.ts";
export * from "./peer.ts";
export * from "./pull.ts";
export * from "./resync.ts";
export * from "./select.ts";
