/**
 * Pure code: planes and their algebra, expressions, errors. No I/O, no knowledge of any other room.
 *
 * @module
 */

export * from "./assert.ts";
export * from "./chunks.ts";
export * from "./clock.ts";
export * from "./errors.ts";
export * from "./expression.ts";
export * from "./list.ts";
export * from "./pace.ts";
export * from "./plane.ts";
export * from "./plane_sum.ts";
export * from "./redact.ts";
export * from "./readers.ts";
export * from "./retry.ts";
