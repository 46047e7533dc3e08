/**
 * HTTP: the routes of a node, its listeners, and parents reached over HTTP.
 *
 * @module
 */

export * from "./access.ts";
export * from "./app.ts";
export * from "./client.ts";
export * from "./env.ts";
export * from "./peer.ts";
export * from "./problem.ts";
export * from "./server.ts";
export * from "./standby.ts";
export { imageOfExpression } from "./routes/images.ts";
export { type SnapshotInfo, snapshotJson, type VolumeStatus, volumeStatus } from "./describe.ts";
