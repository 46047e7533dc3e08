/**
 * `volcast plan`: what an expression of snapshots selects, counted.
 *
 * @module
 */

import { z } from "zod";
import { parseExpression } from "../../core/mod.ts";
import { defineCommand } from "../command.ts";
import { tokenFromEnvironment } from "../environment.ts";
import { EXIT_CODES } from "../exit.ts";
import { openTarget } from "../target.ts";
import { fields } from "../text.ts";
import { showExactBytes } from "../units.ts";

/** See the module. */
export const planCommand = defineCommand({
  name: ["plan"],
  summary: "count the blocks, bytes and runs of an expression of snapshots",
  usage: "VOLUME EXPRESSION",
  positionals: [2, 2],
  details:
    `EXPRESSION is made of snapshots and pointers with + (in either), - (in the first, not in the
second) and & (in both), from left to right, and of parentheses; operators have blanks around them.
The counts are exact and come from bit planes alone: no block is read.`,
  examples: [
    "volcast plan site.vol 'june5 - june3'",
    "volcast plan site.vol 'june5 + june4 - june3' --json",
  ],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([volume, select], options, terminal): Promise<number> {
    parseExpression(select);
    await using target = openTarget(volume, { token: tokenFromEnvironment() });
    const plan = await target.plan(select);
    if (options.json) terminal.printJson({ select, ...plan });
    else {
      terminal.print(fields([
        ["blocks", String(plan.blocks)],
        ["in blocks", showExactBytes(plan.blockBytes)],
        ["as an image", showExactBytes(plan.bytes)],
        ["runs", String(plan.runs)],
      ]));
    }
    return EXIT_CODES.done;
  },
});
