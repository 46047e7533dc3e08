/**
 * The command line: finds the command that is meant, runs it, and says what went wrong.
 *
 * @module
 */

import { closestString } from "@std/text/closest-string";
import { messageOf, VolcastError } from "../core/mod.ts";
import { type Command, helpOf, runCommand } from "./command.ts";
import { allCommands, COMMAND_NAMES, commandIn } from "./command_table.ts";
import { EXIT_CODES, exitCodeOf, exitCodeTable } from "./exit.ts";
import { Interrupted, INTERRUPTED_CODE } from "./interrupt.ts";
import { Terminal } from "./terminal.ts";
import { table } from "./text.ts";
import { VERSION } from "./version.ts";

export { Terminal } from "./terminal.ts";

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
    terminal.print(await overview());
    return EXIT_CODES.done;
  }
  if (first === "--version" || first === "-V") {
    terminal.print(VERSION);
    return EXIT_CODES.done;
  }
  if (first === "help") {
    terminal.print(await helpFor(rest));
    return EXIT_CODES.done;
  }
  const command = await commandIn(args);
  if (command !== undefined) {
    return await runCommand(command, args.slice(command.name.length), terminal);
  }
  if (groupOf(first).length > 0 && (rest.length === 0 || /^(-h|--help)$/.test(rest[0]))) {
    terminal.print(await helpFor([first]));
    return EXIT_CODES.done;
  }
  throw unknownCommand(args);
}

/** The names of the commands whose first of two words this is. */
function groupOf(word: string): readonly string[] {
  return COMMAND_NAMES.filter((name) => name.startsWith(`${word} `));
}

async function helpFor(words: readonly string[]): Promise<string> {
  if (words.length === 0) return await overview();
  const command = await commandIn(words);
  if (command !== undefined) return helpOf(command);
  const group = (await allCommands()).filter(({ name }) => name.length > 1 && name[0] === words[0]);
  if (group.length === 0 || words.length > 1) throw unknownCommand(words);
  return [
    `Usage: volcast ${words[0]} ${group.map(({ name }) => name[1]).join("|")} ...`,
    "",
    ...listOf(group),
    "",
    `More: volcast help ${words[0]} ${group[0].name[1]}`,
  ].join("\n");
}

async function overview(): Promise<string> {
  return [
    `volcast ${VERSION}: snapshots of a file system, published to many places over HTTP`,
    "",
    "Usage: volcast COMMAND ...",
    "",
    ...listOf(await allCommands()),
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
  const names = group.length > 0 ? group : COMMAND_NAMES;
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
