/**
 * HTTP: the routes of a node, its listeners, and parents reached over HTTP.
 *
 * @module
 */

export * from "./access.ts";
export * from "./app.ts";
export * from "./env.ts";
export * from "./peer.ts";
export * from "./problem.ts";
export * from "./server.ts";
export { imageOfExpression, imageWithHistory } from "./image_cache.ts";
export { type SnapshotInfo, snapshotJson, type VolumeStatus, volumeStatus } from "./describe.ts";
