/**
 * The volume: file system, consistency points, snapshots, pointers, local zone.
 *
 * @module
 */

export * from "./block_io.ts";
export * from "./block_tree.ts";
export * from "./changes.ts";
export * from "./directory.ts";
export * from "./discard.ts";
export * from "./file_system.ts";
export * from "./fsck.ts";
export * from "./history.ts";
export * from "./incoming.ts";
export * from "./leases.ts";
export * from "./lent_planes.ts";
export * from "./listed_root.ts";
export * from "./live_file_system.ts";
export * from "./local_state.ts";
export * from "./marks.ts";
export * from "./mirror_file.ts";
export * from "./moved.ts";
export * from "./mutex.ts";
export * from "./owners.ts";
export * from "./pins.ts";
export * from "./plane_file.ts";
export * from "./plane_space.ts";
export * from "./put_file.ts";
export * from "./seen_directories.ts";
export * from "./shadows.ts";
export * from "./space.ts";
export * from "./staging.ts";
export * from "./superblocks.ts";
export * from "./takeover.ts";
export * from "./tree_diff.ts";
export * from "./volume.ts";
export * from "./volume_file.ts";
export * from "./walk.ts";
export * from "./writer.ts";
export * from "./writing.ts";
