/**
 * `volcast export`: writes a tree of a volume into a directory of the host, or as a tar archive.
 *
 * @module
 */

import { z } from "zod";
import { tarFromEntries } from "../../archive/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { type ExportReport, writeHostTree } from "../host_write.ts";
import { openTarget } from "../target.ts";
import type { Terminal } from "../terminal.ts";
import { counted } from "../text.ts";
import { skippedText } from "../tree_source.ts";
import { showBytes } from "../units.ts";

/** See the module. */
export const exportCommand = defineRemoteCommand({
  name: ["export"],
  summary: "write a volume's files into a directory or as a tar archive",
  usage: "VOLUME DIR|-",
  positionals: [2, 2],
  details: `With - a tar archive goes to standard output; it carries everything the volume has. A
directory of the host gets content, names, links, permissions, times to the millisecond, and owners
where you may set them; what it does not get (extended attributes, devices, fifos, sockets) is
counted.`,
  examples: [
    "volcast export site.vol ./copy --at june-5",
    "volcast export http://127.0.0.1:8080 - --path /docs > docs.tar",
  ],
  options: {
    at: { value: "REF", help: "snapshot or pointer; master where it exists, else active" },
    path: { value: "PATH", help: "directory of the volume to export; / by default" },
    overwrite: { help: "write into a directory that is not empty, over what has the same names" },
    json: { help: "the report as JSON (not with -)" },
  },
  schema: z.object({
    at: z.string().optional(),
    path: z.string().optional(),
    overwrite: z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([volume, destination], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const entries = target.entries(options.at, options.path);
    if (destination === "-") {
      for await (const chunk of tarFromEntries(entries)) terminal.write(chunk);
      return EXIT_CODES.done;
    }
    const progress = terminal.progress("Exporting");
    let report: ExportReport;
    try {
      report = await writeHostTree(entries, destination, {
        overwrite: options.overwrite ?? false,
        progress: (_, bytes) => progress.update(bytes),
      });
    } finally {
      progress.end();
    }
    const { skipped, ...counts } = report;
    if (options.json) terminal.printJson({ ...counts, skipped: skipped.items });
    else print(terminal, report);
    return EXIT_CODES.done;
  },
});

function print(terminal: Terminal, report: ExportReport): void {
  const { files, directories, symlinks, hardLinks, bytesWritten } = report;
  terminal.print(
    `${counted(files, "file")}, ${
      directories === 1 ? "1 directory" : `${directories} directories`
    }, ${counted(symlinks, "symbolic link")}, ${counted(hardLinks, "hard link")}; ` +
      `${showBytes(bytesWritten)} written`,
  );
  const { ownersLost, attributesLost, notMade, skipped } = report;
  if (ownersLost > 0) {
    terminal.note(`The owners of ${counted(ownersLost, "file")} were not set: that takes root`);
  }
  if (attributesLost > 0) {
    terminal.note(
      `Extended attributes or DOS bits of ${counted(attributesLost, "file")} were not written: ` +
        "a tar archive carries them",
    );
  }
  if (notMade > 0) terminal.note(`Not made:\n${skippedText(skipped.items, skipped.count)}`);
}
