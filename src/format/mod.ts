/**
 * Bytes: every record that lies in a volume or travels in a stream, with its layout table and codec.
 *
 * @module
 */

export * from "./attributes.ts";
export * from "./block.ts";
export * from "./directory.ts";
export * from "./header_block.ts";
export * from "./inode.ts";
export * from "./layout.ts";
export * from "./names.ts";
export * from "./packed.ts";
export * from "./remap.ts";
export * from "./root.ts";
export * from "./seal.ts";
export * from "./segment.ts";
export * from "./stream.ts";
export * from "./stream_terms.ts";
export * from "./stripe.ts";
export * from "./superblock.ts";
export * from "./tables.ts";
export * from "./zone.ts";
