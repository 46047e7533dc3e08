/**
 * `volcast diff`: which paths differ between two snapshots.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { parseRef } from "../schemas.ts";
import { openTarget } from "../target.ts";
import { changeLine } from "../text.ts";

/** See the module. */
export const diffCommand = defineRemoteCommand({
  name: ["diff"],
  summary: "list the paths that differ between two snapshots",
  usage: "VOLUME A B",
  positionals: [3, 3],
  details:
    `A and B are snapshots, pointers, or active. Listed is what B has that A has not (created), what A
has that B has not (removed), and what has other content or attributes (changed). A renamed file is one
removed and one created. Blocks of inodes that both share are not read, so two large trees with few
differences are compared fast. When there is no difference, nothing is printed and the exit code is 0.`,
  examples: [
    "volcast diff site.vol june3 june5",
    "volcast diff http://127.0.0.1:8081 master active --json",
  ],
  options: { json: { help: "one JSON object a line" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume, before, after], options, terminal): Promise<number> {
    const [from, to] = [parseRef(before), parseRef(after)];
    await using target = await openTarget(volume, options);
    for await (const change of target.diff(from, to)) {
      terminal.print(options.json ? JSON.stringify(change) : changeLine(change));
    }
    return EXIT_CODES.done;
  },
});
