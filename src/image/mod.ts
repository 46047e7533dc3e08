/**
 * Images: planning, producing and applying them.
 *
 * @module
 */

export * from "./adopt.ts";
export * from "./apply.ts";
export * from "./byte_reader.ts";
export { membership } from "./checksums.ts";
export * from "./frame_reader.ts";
export * from "./frames.ts";
export * from "./image.ts";
export * from "./image_store.ts";
export * from "./inspect.ts";
export * from "./lent_plane.ts";
export * from "./piece.ts";
export * from "./pieces.ts";
export * from "./plan.ts";
export * from "./plane_sums.ts";
export * from "./repair.ts";
export * from "./segments.ts";
export * from "./shadow_base.ts";
export * from "./storage_image.ts";
export * from "./stream_map.ts";
export { checkFits, checkRestorable } from "./verify.ts";
export { readIndex, type StreamFront, type StreamIndex } from "./stream_index.ts";
