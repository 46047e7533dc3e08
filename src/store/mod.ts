/**
 * Block stores: what a volume lies on. The only room that uses `Deno.FsFile`.
 *
 * @module
 */

export * from "./block_store.ts";
export * from "./file_store.ts";
export * from "./gathering_store.ts";
export * from "./memory_store.ts";
export * from "./open_store.ts";
export * from "./overlay_store.ts";
export * from "./packed_store.ts";
export * from "./remapped_store.ts";
export * from "./striped_store.ts";
