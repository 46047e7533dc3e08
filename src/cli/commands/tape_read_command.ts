/**
 * `volcast tape read`: restores a volume from segments. It is `volcast apply` by another name.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { applyPieces } from "./apply_command.ts";

/** See the module. */
export const tapeReadCommand = defineRemoteCommand({
  name: ["tape", "read"],
  summary: "restore a volume from segments",
  usage: "VOLUME SEGMENT...",
  positionals: [2, Infinity],
  details:
    `SEGMENT is a file, a URL or a file in another volume, in any order; or one pipe, device or -
(standard input) that has all segments of an image in order. The segments of a full image make VOLUME,
or with --replace take the place of the replica that is there; then those of increments lead it on, one
image after the other.

Everything is checked before it counts: when a segment is damaged or missing, VOLUME is as it was. It is
the same as apply, which takes segments, image files and URLs in any mix.`,
  examples: [
    "volcast tape read copy.vol /backup/june5.*",
    "ssh host 'cat /dev/nst0' | volcast tape read copy.vol -",
  ],
  options: {
    replace: { help: "a full image may take the place of the replica that is there" },
    json: { help: "say what was done as JSON" },
  },
  schema: z.object({ replace: z.boolean().optional(), json: z.boolean().optional() }),
  run: ([path, ...segments], options, terminal) => applyPieces(path, segments, options, terminal),
});
