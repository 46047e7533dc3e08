/**
 * Images: planning, producing and applying them.
 *
 * @module
 */

export * from "./apply.ts";
export * from "./byte_reader.ts";
export * from "./image.ts";
export * from "./plan.ts";
