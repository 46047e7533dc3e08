/**
 * `volcast plan`: what an expression of snapshots selects, and what deleting snapshots would free,
 * counted.
 *
 * @module
 */

import { z } from "zod";
import { parseExpression, shortList, VolcastError } from "../../core/mod.ts";
import type { DeletePlan, Plan } from "../../image/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { SNAPSHOT_LIST } from "../schemas.ts";
import { openTarget } from "../target.ts";
import { fields } from "../text.ts";
import { showExactBytes } from "../units.ts";

/** See the module. */
export const planCommand = defineRemoteCommand({
  name: ["plan"],
  summary: "count what an image holds, or what deleting snapshots would free",
  usage: "VOLUME [EXPRESSION]",
  positionals: [1, 2],
  details:
    `EXPRESSION is made of snapshots and pointers with + (in either), - (in the first, not in the
second) and & (in both), from left to right, and of parentheses; operators have blanks around them.
The counts are exact and come from bit planes alone: no block is read.

With --delete in its place: the blocks that these snapshots have, and neither another snapshot nor the
active file system has. So many more are free when all of them are deleted.`,
  examples: [
    "volcast plan site.vol 'june5 - june3'",
    "volcast plan site.vol 'june5 + june4 - june3' --json",
    "volcast plan site.vol --delete june3,june4",
  ],
  options: {
    delete: { value: "NAMES", help: "snapshots, with commas between: what would be free" },
    json: { help: "as JSON" },
  },
  schema: z.object({ delete: SNAPSHOT_LIST.optional(), json: z.boolean().optional() }),
  async run([volume, select], options, terminal): Promise<number> {
    const gone = options.delete?.split(",");
    if ((select === undefined) === (gone === undefined)) {
      throw new VolcastError(
        "usage",
        "Cannot plan: give either an expression or --delete",
        "For example: volcast plan site.vol 'june5 - june3'",
      );
    }
    if (select !== undefined) parseExpression(select);
    await using target = await openTarget(volume, options);
    if (select !== undefined) {
      const plan = await target.plan(select);
      if (options.json) terminal.printJson({ select, ...plan });
      else terminal.print(textOf(plan));
    } else {
      const plan = await target.planDelete(gone!);
      if (options.json) terminal.printJson(plan);
      else terminal.print(textOfDelete(plan));
    }
    return EXIT_CODES.done;
  },
});

function textOf(plan: Plan): string {
  return fields([
    ["blocks", String(plan.blocks)],
    ["in blocks", showExactBytes(plan.blockBytes)],
    ["as an image", showExactBytes(plan.bytes)],
    ["runs", String(plan.runs)],
    [
      "restores",
      plan.restores.length === 0
        ? "nothing: a fragment, which cannot be applied"
        : shortList(plan.restores),
    ],
    ["on", plan.needs === "nothing" ? undefined : basesText(plan)],
  ]);
}

function basesText({ bases, needs }: Plan): string {
  if (bases.length === 1) return bases[0];
  return needs === "one" ? `one of ${shortList(bases)}` : `${shortList(bases)} together`;
}

function textOfDelete(plan: DeletePlan): string {
  return fields([
    ["snapshots", shortList(plan.snapshots)],
    ["frees", `${plan.blocks} blocks, ${showExactBytes(plan.bytes)}`],
  ]);
}
