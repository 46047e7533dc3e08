/**
 * HTTP: the routes of a node, its listeners, and parents reached over HTTP.
 *
 * @module
 */

export * from "./access.ts";
export * from "./app.ts";
export * from "./client.ts";
export * from "./credentials.ts";
export * from "./env.ts";
export * from "./limits.ts";
export * from "./peer.ts";
export * from "./problem.ts";
export * from "./refusal.ts";
export * from "./route_table.ts";
export * from "./server.ts";
export * from "./standby.ts";
export { Throttle, throttled } from "./throttle.ts";
export * from "./tls.ts";
export * from "./tokens.ts";
export * from "./watched_files.ts";
export { imageOfExpression, imageWithHistory } from "./image_cache.ts";
export {
  type SnapshotInfo,
  snapshotJson,
  snapshotsJson,
  type VolumeStatus,
  volumeStatus,
} from "./describe.ts";
