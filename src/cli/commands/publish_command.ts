/**
 * `volcast publish`: a tree becomes the next release of a volume.
 *
 * @module
 */

import { z } from "zod";
import { MASTER } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { openTarget } from "../target.ts";
import { importText, noteSkipped, openTree, withSkipped } from "../tree_source.ts";
import { showBytes } from "../units.ts";

/** See the module. */
export const publishCommand = defineRemoteCommand({
  name: ["publish"],
  summary: "make a tree the next release: import it, take a snapshot, move a pointer",
  usage: "VOLUME DIR|-",
  positionals: [2, 2],
  details:
    `The volume's files become exactly those of the tree: what is not in it is removed. Then a
snapshot is taken and the pointer moved to it, in one step; readers and sites see the old release
until then. With - a tar archive is read from standard input.

When anything in the tree cannot be read nothing is published, unless --skip-unreadable is given. A
publish that fails leaves snapshots and pointers as they were; run it again.`,
  examples: [
    "volcast publish site.vol ./public --as june-5",
    "volcast publish http://127.0.0.1:8080 ./public --as june-6 --checksum",
    "tar --format=pax -C public -c . | volcast publish site.vol - --as june-7 --pointer staging",
  ],
  options: {
    as: { value: "NAME", help: "name of the snapshot; needed" },
    pointer: { value: "NAME", help: `pointer to move to it; ${MASTER} by default` },
    checksum: { help: "compare content even where size and mtime are equal" },
    "skip-unreadable": { help: "publish although something in the tree cannot be read" },
    json: { help: "report and snapshot as JSON" },
  },
  schema: z.object({
    as: z.string("give the snapshot a name: --as june-5"),
    pointer: z.string().default(MASTER),
    checksum: z.boolean().optional(),
    "skip-unreadable": z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([volume, source], options, terminal): Promise<number> {
    const { as, pointer, checksum = false } = options;
    const tree = openTree(source, { volume, complete: !options["skip-unreadable"] });
    await using target = await openTarget(volume, options);
    const progress = terminal.progress("Publishing", "count");
    let result: Awaited<ReturnType<typeof target.publish>>;
    try {
      result = await target.publish(tree.entries, {
        as,
        pointer,
        checksum,
        progress: ({ entries }) => progress.update(entries),
      });
    } finally {
      progress.end();
    }
    const report = withSkipped(result.report, tree.report);
    const { snapshot } = result;
    if (options.json) terminal.printJson({ report, snapshot });
    else {
      terminal.print(importText(report));
      terminal.print(
        `Published as ${snapshot.name} (${snapshot.id}, ${showBytes(snapshot.bytes)}); ` +
          `${pointer} points at it`,
      );
    }
    noteSkipped(terminal, report);
    return EXIT_CODES.done;
  },
});
