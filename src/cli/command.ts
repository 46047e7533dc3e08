/**
 * What a command is: its words, its options, its help, and what it does. One file a command.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { z } from "zod";
import { VolcastError } from "../core/mod.ts";
import { CommandCredentials, type WithCredentials } from "./credentials.ts";
import { EXIT_CODES, exitCodeTable } from "./exit.ts";
import type { Terminal } from "./terminal.ts";

/** An option of a command. Its name in the command's table is the long name without dashes. */
export interface OptionSpec {
  /** One line for the help. */
  readonly help: string;
  /** What the help shows for the value; absent for a flag. */
  readonly value?: string;
  /** Single letter. */
  readonly alias?: string;
  /** May be given more than once; its value is then an array. */
  readonly list?: boolean;
}

/** A command of the command line. `S` validates and converts its options. */
export interface Command<S extends z.ZodObject = z.ZodObject> {
  /** Words that call it: `["snapshot", "create"]`. */
  readonly name: readonly string[];
  /** One line for the list of commands. */
  readonly summary: string;
  /** Positional arguments as shown in the help: `VOLUME DIR`. */
  readonly usage: string;
  /** Least and greatest number of positional arguments. */
  readonly positionals: readonly [least: number, most: number];
  /** Further paragraphs of the help. */
  readonly details?: string;
  /** Full command lines. */
  readonly examples: readonly string[];
  /** Options by long name. */
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Shape of the options; keys are long names. */
  readonly schema: S;
  /** @returns The exit code. */
  run(args: readonly string[], options: z.output<S>, terminal: Terminal): Promise<number>;
}

/** Identity that gives a command's options their types. */
export function defineCommand<S extends z.ZodObject>(command: Command<S>): Command {
  return command as unknown as Command;
}

/** Options of every command that asks servers. */
const REMOTE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  "token-file": {
    value: "FILE",
    help: "lines 'URL TOKEN', or one token; VOLCAST_TOKEN_FILE, else VOLCAST_TOKEN",
  },
  "ca-file": {
    value: "FILE",
    help: "believe certificates of these authorities (PEM) too; VOLCAST_CA_FILE",
  },
};
const REMOTE_SHAPE = {
  "token-file": z.string().min(1).optional(),
  "ca-file": z.string().min(1).optional(),
};

/** A command that asks servers: it gets credentials, and has the options that they are made of. */
export interface RemoteCommand<S extends z.ZodObject> extends Omit<Command<S>, "run"> {
  /** @returns The exit code. */
  run(
    args: readonly string[],
    options: z.output<S> & WithCredentials,
    terminal: Terminal,
  ): Promise<number>;
}

/** As {@linkcode defineCommand}, for a command that asks servers. */
export function defineRemoteCommand<S extends z.ZodObject>(command: RemoteCommand<S>): Command {
  return defineCommand({
    ...command,
    options: { ...command.options, ...REMOTE_OPTIONS },
    schema: command.schema.extend(REMOTE_SHAPE) as z.ZodObject,
    async run(args, options, terminal): Promise<number> {
      using credentials = new CommandCredentials(options, (text) => terminal.note(text));
      return await command.run(
        args,
        { ...options, credentials } as unknown as z.output<S> & WithCredentials,
        terminal,
      );
    },
  });
}

/**
 * Parses and validates a command's arguments and runs it.
 *
 * @throws {VolcastError} `usage` for anything that does not fit.
 */
export async function runCommand(
  command: Command,
  args: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const { positionals, given, help } = parseCommandLine(command, args);
  if (help) {
    terminal.print(helpOf(command));
    return EXIT_CODES.done;
  }
  const [least, most] = command.positionals;
  if (positionals.length < least || positionals.length > most) {
    throw misuse(
      command,
      `${positionals.length} arguments given, wanted: ${command.usage || "none"}`,
    );
  }
  return await command.run(positionals, validated(command, given), terminal);
}

/** Splits arguments into words and options; what they mean is not looked at yet. */
function parseCommandLine(
  command: Command,
  args: readonly string[],
): { positionals: string[]; given: Record<string, unknown>; help: boolean } {
  const specs = Object.entries<OptionSpec>({
    ...command.options,
    help: { help: "", alias: "h" },
  });
  const named = (test: (spec: OptionSpec) => boolean) =>
    specs.filter(([, spec]) => test(spec)).map(([name]) => name);
  const takesValue = named((spec) => spec.value !== undefined);
  const aliases = specs.filter(([, spec]) => spec.alias !== undefined);
  const unknown: string[] = [];
  const parsed = parseArgs([...args], {
    boolean: named((spec) => spec.value === undefined),
    string: ["_", ...takesValue],
    // All of them, so that one that is given twice is seen.
    collect: takesValue,
    alias: Object.fromEntries(aliases.map(([name, spec]) => [spec.alias, name])),
    unknown: (arg: string, key?: string) => {
      if (key !== undefined) unknown.push(arg);
      return key === undefined;
    },
    "--": false,
  }) as Record<string, unknown> & { _: (string | number)[] };
  if (unknown.length > 0 && parsed.help !== true) {
    throw misuse(command, `there is no option ${unknown[0]}`);
  }
  const given: Record<string, unknown> = {};
  for (const [name, spec] of specs) {
    if (name === "help") continue;
    const values = [parsed[name] ?? []].flat().filter((value) => value !== false);
    if (values.length === 0) continue;
    if (values.includes("")) throw misuse(command, `--${name} needs one value`);
    if (values.length > 1 && !spec.list) throw misuse(command, `--${name} is given twice`);
    given[name] = spec.list ? values : values[0];
  }
  return { positionals: parsed._.map(String), given, help: parsed.help === true };
}

function validated(command: Command, given: Record<string, unknown>): Record<string, unknown> {
  const options = command.schema.safeParse(given);
  if (options.success) return options.data;
  const issue = options.error.issues[0];
  const name = String(issue.path[0] ?? "");
  if (given[name] === undefined && issue.code === "invalid_type") {
    throw misuse(command, `--${name} is missing`);
  }
  const shown = given[name] === undefined ? "" : ` '${shownOption(command, name, given[name])}'`;
  throw new VolcastError(
    "usage",
    `Cannot use --${name}${shown}: ${issue.message}`,
    hintFor(command),
  );
}

/** An option's value, without what may be a password where a URL was meant. */
function shownOption(command: Command, name: string, value: unknown): string {
  const isUrl = command.options[name]?.value?.includes("URL") === true;
  if (!isUrl) return String(value);
  return String(value).replace(/[^\s/,]*@/g, "***@").replace(/[?#][^\s,]*/g, "?***");
}

function misuse(command: Command, reason: string): VolcastError {
  return new VolcastError(
    "usage",
    `Cannot run 'volcast ${command.name.join(" ")}': ${reason}`,
    hintFor(command),
  );
}

function hintFor(command: Command): string {
  return `See: volcast ${command.name.join(" ")} --help`;
}

/** The text of `--help`. */
export function helpOf(command: Command): string {
  const rows = Object.entries(command.options).map(([name, spec]) => {
    const alias = spec.alias === undefined ? "" : `-${spec.alias}, `;
    const value = spec.value === undefined ? "" : ` ${spec.value}`;
    return [`${alias}--${name}${value}`, spec.help];
  });
  rows.push(["-h, --help", "this text"]);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `volcast ${command.name.join(" ")}: ${command.summary}`,
    "",
    `Usage: volcast ${command.name.join(" ")} ${command.usage} [options]`,
    ...(command.details === undefined ? [] : ["", command.details]),
    "",
    "Options:",
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
    "",
    "Examples:",
    ...command.examples.map((example) => `  ${example}`),
    "",
    "Exit codes:",
    ...exitCodeTable(),
  ].join("\n");
}
