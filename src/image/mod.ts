/**
 * Images: planning, producing and applying them.
 *
 * @module
 */

export * from "./apply.ts";
export * from "./byte_reader.ts";
export * from "./frames.ts";
export * from "./image.ts";
export * from "./plan.ts";
export * from "./storage_image.ts";
export { checkFits, checkRestorable } from "./verify.ts";
export { readIndex, type StreamFront, type StreamIndex } from "./stream_index.ts";
