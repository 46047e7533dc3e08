/**
 * `volcast import`: brings a tree of files into a volume.
 *
 * @module
 */

import { z } from "zod";
import type { ImportReport } from "../../archive/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { openTarget } from "../target.ts";
import { importText, noteSkipped, openTree, withSkipped } from "../tree_source.ts";

/** See the module. */
export const importCommand = defineRemoteCommand({
  name: ["import"],
  summary: "bring a directory or a tar archive into a volume",
  usage: "VOLUME DIR|-",
  positionals: [2, 2],
  details: `With - a tar archive is read from standard input; make it with
  tar --format=pax --xattrs --acls -C DIR -c .
A directory of the host gives times to the millisecond and no extended attributes; an archive gives
all there is. A file of equal size and mtime is taken as unchanged and not read; of one that changed
the blocks that are equal stay where they are.

What cannot be read is left out and named, with exit code 1. With --prune that is refused, as it
would remove what is only unreadable. For a release use publish: readers never see a half of it.

A replica is refused, unless --local-writes is given: then it has changes of its own, which are read
as the snapshot active, and which go with the next image.`,
  examples: [
    "volcast import site.vol ./public",
    "volcast import site.vol ./docs --into /docs --prune",
    "tar --format=pax --xattrs --acls -C public -c . | volcast import http://127.0.0.1:8080 -",
  ],
  options: {
    into: { value: "PATH", help: "directory of the volume to import into; / by default" },
    prune: { help: "remove what is there and not in the tree" },
    checksum: { help: "compare content even where size and mtime are equal" },
    "skip-unreadable": { help: "prune although something in the tree cannot be read" },
    "local-writes": { help: "change a replica, until the next image comes in" },
    json: { help: "the report as JSON" },
  },
  schema: z.object({
    into: z.string().optional(),
    prune: z.boolean().optional(),
    checksum: z.boolean().optional(),
    "skip-unreadable": z.boolean().optional(),
    "local-writes": z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([volume, source], options, terminal): Promise<number> {
    const { into, prune = false, checksum = false } = options;
    const complete = prune && !options["skip-unreadable"];
    const tree = openTree(source, { volume, complete });
    await using target = await openTarget(volume, {
      credentials: options.credentials,
      localWrites: options["local-writes"] ?? false,
    });
    const progress = terminal.progress("Importing", "count");
    let report: ImportReport;
    try {
      report = await target.importTree(tree.entries, {
        ...(into === undefined ? {} : { into }),
        prune,
        checksum,
        progress: ({ entries }) => progress.update(entries),
      });
    } finally {
      progress.end();
    }
    report = withSkipped(report, tree.report);
    if (options.json) terminal.printJson(report);
    else terminal.print(importText(report));
    noteSkipped(terminal, report);
    const failed = report.skippedCount > 0 && !options["skip-unreadable"];
    return failed ? EXIT_CODES.failed : EXIT_CODES.done;
  },
});
