/**
 * Trees of files into a volume and out of it, and as tar archives.
 *
 * @module
 */

export * from "./entry.ts";
export * from "./exporter.ts";
export * from "./import_report.ts";
export * from "./importer.ts";
export * from "./tar_read.ts";
export * from "./tar_write.ts";
