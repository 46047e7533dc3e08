/**
 * Where a command's tree comes from: a directory of the host, or a tar archive on standard input.
 *
 * @module
 */

import { resolve } from "node:path/posix";
import { entriesFromTar, type ImportReport, type Skipped, type TreeEntry } from "../archive/mod.ts";
import { VolcastError } from "../core/mod.ts";
import { hostEntries, WalkReport } from "./host_read.ts";
import { isUrl } from "./local_volume.ts";
import type { Terminal } from "./terminal.ts";
import { counted, showName } from "./text.ts";
import { showBytes } from "./units.ts";

/** Most names of left out files that are shown. */
const SHOWN = 10;

/** A tree on its way in. */
export interface TreeSource {
  readonly entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>;
  /** What was left out; final after the last entry. */
  readonly report: WalkReport;
}

/**
 * Opens DIR or `-`.
 *
 * @param options.volume The VOLUME argument: it must not lie within the tree.
 * @param options.complete Fails at the end of the tree, before anything is removed or published for
 *   its sake, when something in it could not be read.
 */
export function openTree(
  source: string,
  options: { volume: string; complete: boolean },
): TreeSource {
  if (source === "-") {
    return { entries: entriesFromTar(Deno.stdin.readable), report: new WalkReport() };
  }
  refuseOwnVolume(source, options.volume);
  const report = new WalkReport();
  const entries = hostEntries(source, { report });
  return { entries: options.complete ? allOf(entries, report) : entries, report };
}

function* allOf(entries: Iterable<TreeEntry>, report: WalkReport): Generator<TreeEntry> {
  yield* entries;
  const { count, items } = report.skipped;
  if (count === 0) return;
  throw new VolcastError(
    "io",
    `Cannot take the tree: ${counted(count, "name")} in it cannot be read\n${
      skippedText(items, count)
    }`,
    "Put them right, or leave them out with --skip-unreadable",
  );
}

/** A volume that lies in the tree would be imported into itself. */
function refuseOwnVolume(directory: string, volume: string): void {
  if (isUrl(volume)) return;
  try {
    const inside = Deno.realPathSync(volume).startsWith(
      `${Deno.realPathSync(resolve(directory))}/`,
    );
    if (!inside) return;
  } catch {
    // One of them is not there: that is said where it is opened.
    return;
  }
  throw new VolcastError(
    "usage",
    `Cannot import ${directory}: the volume ${volume} lies in it`,
    "Keep the volume in another directory",
  );
}

/** Lines that name what was left out. */
export function skippedText(items: readonly Skipped[], count: number): string {
  const lines = items.slice(0, SHOWN).map(({ path, reason }) => `  ${showName(path)}: ${reason}`);
  if (count > SHOWN) lines.push(`  and ${count - SHOWN} more`);
  return lines.join("\n");
}

/** The report of an import with what the walk left out. */
export function withSkipped(report: ImportReport, { skipped }: WalkReport): ImportReport {
  // What cannot be read is noted by the walk, wherever it turns out.
  return skipped.count === 0
    ? report
    : { ...report, skipped: skipped.items, skippedCount: skipped.count };
}

/** Says on standard error what was left out. */
export function noteSkipped(terminal: Terminal, report: ImportReport): void {
  if (report.skippedCount === 0) return;
  terminal.note(
    `Left out, since it could not be read:\n${skippedText(report.skipped, report.skippedCount)}`,
  );
}

/** An import in two lines. */
export function importText(report: ImportReport): string {
  const { files, directories, symlinks, hardLinks, others } = report;
  const kinds = [
    counted(files, "file"),
    directories === 1 ? "1 directory" : `${directories} directories`,
    ...(symlinks > 0 ? [counted(symlinks, "symbolic link")] : []),
    ...(hardLinks > 0 ? [counted(hardLinks, "hard link")] : []),
    ...(others > 0 ? [counted(others, "special file")] : []),
  ];
  return `${kinds.join(", ")}; ${showBytes(report.bytesRead)} read\n` +
    `${report.created} created, ${report.changed} changed, ${report.removed} removed, ` +
    `${report.unchanged} unchanged`;
}
