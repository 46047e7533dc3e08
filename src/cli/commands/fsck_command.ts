/**
 * `volcast fsck`: checks a whole volume.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { ACTIVE, fsck, type FsckReport, type Volume } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { requirePath } from "../local_volume.ts";
import { openVolume } from "../open_volume.ts";
import { counted, showName } from "../text.ts";

/** See the module. */
export const fsckCommand = defineCommand({
  name: ["fsck"],
  summary: "check every block, plane, table, directory and link count of a volume",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `The current file system and every snapshot are checked; nothing is written. A volume that
is not clean gives exit code 4.`,
  examples: ["volcast fsck site.vol", "volcast fsck paris.vol --json"],
  options: { json: { help: "the report as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([path], options, terminal): Promise<number> {
    requirePath(path, {
      action: "check",
      reason: "the check reads all of the volume's file while nobody changes it",
      hint: "Stop the server and run fsck on its host, with the volume's path",
    });
    let volume: Volume;
    try {
      volume = await openVolume(path);
    } catch (error) {
      const isDamaged = error instanceof VolcastError && error.kind === "damaged";
      if (!isDamaged || !options.json) throw error;
      terminal.printJson(unopened(error.message));
      return EXIT_CODES.damaged;
    }
    const progress = terminal.progress("Checking", "count");
    let report: FsckReport;
    try {
      report = fsck(volume, { progress: (done, total) => progress.update(done, total) });
    } finally {
      progress.end();
      await volume.close();
    }
    if (options.json) terminal.printJson(report);
    else terminal.print(textOf(path, report));
    return report.clean ? EXIT_CODES.done : EXIT_CODES.damaged;
  },
});

/** The report on what cannot even be opened: a reader of reports gets one here too. */
function unopened(problem: string): FsckReport {
  return {
    clean: false,
    findings: [{ snapshot: ACTIVE, problem }],
    findingCount: 1,
    roots: 0,
    blocks: 0,
    files: 0,
    directories: 0,
    badSuperblocks: [],
  };
}

function textOf(path: string, report: FsckReport): string {
  const extent = `${counted(report.blocks, "block")} under ${counted(report.roots, "root")}, ` +
    `${counted(report.files, "file")}, ${
      report.directories === 1 ? "1 directory" : `${report.directories} directories`
    }`;
  const slots = report.badSuperblocks.length === 0 ? [] : [
    `One superblock of two cannot be read (VBN ${
      report.badSuperblocks.join(", ")
    }); the other one ` +
    "is in force. A crash while it was written leaves that; volcast repair writes it again",
  ];
  if (report.clean) return [`${path} is clean: ${extent}`, ...slots].join("\n");
  const lines = report.findings.map(({ snapshot, problem, owners = [] }) =>
    `  ${snapshot}: ${showName(problem)}${
      owners.length === 0 ? "" : `; it is of ${owners.map(showName).join(", ")}`
    }`
  );
  const unsaid = report.findingCount - report.findings.length;
  return [
    `${path} is damaged: ${counted(report.findingCount, "finding")}; ${extent}`,
    ...lines,
    ...(unsaid > 0 ? [`  and ${unsaid} more`] : []),
    ...slots,
  ].join("\n");
}
