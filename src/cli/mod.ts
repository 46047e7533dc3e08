/**
 * The command line: finds the command that is meant, runs it, and says what went wrong.
 *
 * @module
 */

import { closestString } from "@std/text/closest-string";
import { messageOf, VolcastError } from "../core/mod.ts";
import { type Command, helpOf, runCommand } from "./command.ts";
import { applyCommand } from "./commands/apply_command.ts";
import { catCommand } from "./commands/cat_command.ts";
import { copyCommand } from "./commands/copy_command.ts";
import { demoCommand } from "./commands/demo_command.ts";
import { diffCommand } from "./commands/diff_command.ts";
import { exportCommand } from "./commands/export_command.ts";
import { fsckCommand } from "./commands/fsck_command.ts";
import { imageCommand } from "./commands/image_command.ts";
import { importCommand } from "./commands/import_command.ts";
import { infoCommand } from "./commands/info_command.ts";
import { initCommand } from "./commands/init_command.ts";
import { lsCommand } from "./commands/ls_command.ts";
import { keygenCommand } from "./commands/keygen_command.ts";
import { mirrorCommand } from "./commands/mirror_command.ts";
import { planCommand } from "./commands/plan_command.ts";
import { pointerListCommand } from "./commands/pointer_list_command.ts";
import { pointerSetCommand } from "./commands/pointer_set_command.ts";
import { promoteCommand } from "./commands/promote_command.ts";
import { publishCommand } from "./commands/publish_command.ts";
import { pullCommand } from "./commands/pull_command.ts";
import { reintegrateCommand } from "./commands/reintegrate_command.ts";
import { repairCommand } from "./commands/repair_command.ts";
import { resyncCommand } from "./commands/resync_command.ts";
import { sealCommand } from "./commands/seal_command.ts";
import { serveCommand } from "./commands/serve_command.ts";
import { snapshotCreateCommand } from "./commands/snapshot_create_command.ts";
import { snapshotDeleteCommand } from "./commands/snapshot_delete_command.ts";
import { snapshotListCommand } from "./commands/snapshot_list_command.ts";
import { snapshotShadowCommand } from "./commands/snapshot_shadow_command.ts";
import { statCommand } from "./commands/stat_command.ts";
import { statusCommand } from "./commands/status_command.ts";
import { tapeExtractCommand } from "./commands/tape_extract_command.ts";
import { tapeListCommand } from "./commands/tape_list_command.ts";
import { tapeReadCommand } from "./commands/tape_read_command.ts";
import { tapeWriteCommand } from "./commands/tape_write_command.ts";
import { tokenCreateCommand } from "./commands/token_create_command.ts";
import { tokenListCommand } from "./commands/token_list_command.ts";
import { tokenRevokeCommand } from "./commands/token_revoke_command.ts";
import { verifyCommand } from "./commands/verify_command.ts";
import { versionCommand } from "./commands/version_command.ts";
import { EXIT_CODES, exitCodeOf, exitCodeTable } from "./exit.ts";
import { Interrupted, INTERRUPTED_CODE } from "./interrupt.ts";
import { Terminal } from "./terminal.ts";
import { table } from "./text.ts";
import { VERSION } from "./version.ts";

export { Terminal } from "./terminal.ts";

/** All commands, in the order of the help: the way of a release from a directory to the edge. */
export const COMMANDS: readonly Command[] = [
  initCommand,
  importCommand,
  exportCommand,
  publishCommand,
  lsCommand,
  catCommand,
  statCommand,
  snapshotCreateCommand,
  snapshotListCommand,
  snapshotShadowCommand,
  snapshotDeleteCommand,
  pointerSetCommand,
  pointerListCommand,
  diffCommand,
  planCommand,
  imageCommand,
  applyCommand,
  copyCommand,
  tapeWriteCommand,
  tapeReadCommand,
  tapeListCommand,
  tapeExtractCommand,
  serveCommand,
  pullCommand,
  promoteCommand,
  resyncCommand,
  mirrorCommand,
  reintegrateCommand,
  tokenCreateCommand,
  tokenListCommand,
  tokenRevokeCommand,
  keygenCommand,
  sealCommand,
  verifyCommand,
  statusCommand,
  fsckCommand,
  repairCommand,
  infoCommand,
  demoCommand,
  versionCommand,
];

/**
 * Runs a command line.
 *
 * @param terminal Where results and remarks go; the process's own by default.
 * @returns The exit code.
 */
export async function main(args: readonly string[], terminal = new Terminal()): Promise<number> {
  try {
    return await dispatch(args, terminal);
  } catch (error) {
    return report(error, terminal);
  }
}

async function dispatch(args: readonly string[], terminal: Terminal): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined || first === "--help" || first === "-h") {
    terminal.print(overview());
    return EXIT_CODES.done;
  }
  if (first === "--version" || first === "-V") {
    terminal.print(VERSION);
    return EXIT_CODES.done;
  }
  if (first === "help") {
    terminal.print(helpFor(rest));
    return EXIT_CODES.done;
  }
  const command = find(args);
  if (command !== undefined) {
    return await runCommand(command, args.slice(command.name.length), terminal);
  }
  if (groupOf(first).length > 0 && (rest.length === 0 || /^(-h|--help)$/.test(rest[0]))) {
    terminal.print(helpFor([first]));
    return EXIT_CODES.done;
  }
  throw unknownCommand(args);
}

function find(words: readonly string[]): Command | undefined {
  return COMMANDS.find(({ name }) => name.every((word, i) => words[i] === word));
}

/** The commands whose first of two words this is. */
function groupOf(word: string): readonly Command[] {
  return COMMANDS.filter(({ name }) => name.length > 1 && name[0] === word);
}

function helpFor(words: readonly string[]): string {
  if (words.length === 0) return overview();
  const command = find(words);
  if (command !== undefined) return helpOf(command);
  const group = groupOf(words[0]);
  if (group.length === 0 || words.length > 1) throw unknownCommand(words);
  return [
    `Usage: volcast ${words[0]} ${group.map(({ name }) => name[1]).join("|")} ...`,
    "",
    ...listOf(group),
    "",
    `More: volcast help ${words[0]} ${group[0].name[1]}`,
  ].join("\n");
}

function overview(): string {
  return [
    `volcast ${VERSION}: snapshots of a file system, published to many places over HTTP`,
    "",
    "Usage: volcast COMMAND ...",
    "",
    ...listOf(COMMANDS),
    "",
    "VOLUME is a path, or the URL of a server where it makes sense.",
    "",
    "Exit codes:",
    ...exitCodeTable(),
    "",
    "More: volcast help COMMAND",
  ].join("\n");
}

function listOf(commands: readonly Command[]): string[] {
  const rows = commands.map((command) => [
    `  ${command.name.join(" ")} ${command.usage}`.trimEnd(),
    command.summary,
  ]);
  return table([{ head: "" }, { head: "" }], rows, { heads: false }).split("\n");
}

function unknownCommand(words: readonly string[]): VolcastError {
  // Of two words, both count if the first begins a group.
  const group = groupOf(words[0]);
  const given = words.slice(0, group.length > 0 ? 2 : 1).join(" ");
  const names = (group.length > 0 ? group : COMMANDS).map(({ name }) => name.join(" "));
  const groups = group.length > 0 ? [] : names.map((name) => name.split(" ")[0]);
  const nearest = closestString(given, [...new Set([...names, ...groups])]);
  return new VolcastError(
    "usage",
    `Cannot run 'volcast ${given}': there is no such command`,
    `Did you mean: volcast ${nearest}? All commands: volcast --help`,
  );
}

/** Says what went wrong. @returns The exit code for it. */
function report(error: unknown, terminal: Terminal): number {
  // Whoever reads the output has enough of it, as in `volcast cat site.vol log | head`.
  if (error instanceof Deno.errors.BrokenPipe) return EXIT_CODES.done;
  if (error instanceof Interrupted) {
    terminal.note("volcast: Interrupted");
    return INTERRUPTED_CODE;
  }
  terminal.note(`volcast: ${messageOf(error)}`);
  if (error instanceof VolcastError) {
    if (error.hint !== "") terminal.note(error.hint);
  } else if (error instanceof Error && error.stack !== undefined) {
    // Not one that was foreseen: a report of it needs the place.
    terminal.note(error.stack.split("\n").slice(1).join("\n"));
  }
  return exitCodeOf(error);
}
