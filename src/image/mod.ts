/**
 * Images: planning, producing and applying them.
 *
 * @module
 */

export * from "./apply.ts";
export * from "./byte_reader.ts";
export * from "./image.ts";
export * from "./image_store.ts";
export * from "./inspect.ts";
export * from "./piece.ts";
export * from "./pieces.ts";
export * from "./plan.ts";
export * from "./segments.ts";
export * from "./stream_map.ts";
