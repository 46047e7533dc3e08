/**
 * `volcast version`.
 *
 * @module
 */

import { z } from "zod";
import { STREAM_FORMAT_VERSION, VOLUME_FORMAT_VERSION } from "../../format/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { fields } from "../text.ts";
import { VERSION } from "../version.ts";

/** See the module. */
export const versionCommand = defineCommand({
  name: ["version"],
  summary: "versions of the program and of the formats it knows",
  usage: "",
  positionals: [0, 0],
  examples: ["volcast version", "volcast version --json"],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  run(_, options, terminal): Promise<number> {
    const versions = {
      version: VERSION,
      deno: Deno.version.deno,
      volumeFormat: VOLUME_FORMAT_VERSION,
      streamFormat: STREAM_FORMAT_VERSION,
    };
    if (options.json) terminal.printJson(versions);
    else {
      terminal.print(fields([
        ["volcast", versions.version],
        ["Deno", versions.deno],
        ["volume format", String(versions.volumeFormat)],
        ["stream format", String(versions.streamFormat)],
      ]));
    }
    return Promise.resolve(EXIT_CODES.done);
  },
});
