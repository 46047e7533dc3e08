/**
 * Checks the arrows between the rooms: each room imports only rooms below it.
 *
 *     deno run -A scripts/check_layers.ts
 *
 * prints every violation as `file:line` with what is allowed, and exits 1 if
 * there is one.
 *
 * @module
 */

import { dirname, join, resolve } from "node:path/posix";

/** What each room may import from, besides itself. The one place to change an arrow. */
export const ARROWS: Readonly<Record<string, readonly string[]>> = {
  "main.ts": ["cli"],
  cli: ["http", "replication", "image", "archive", "volume", "store", "config", "format", "core"],
  http: ["replication", "image", "archive", "volume", "config", "format", "core"],
  replication: ["image", "volume", "config", "format", "core"],
  image: ["volume", "format", "core"],
  archive: ["volume", "format", "core"],
  volume: ["store", "format", "core"],
  format: ["core"],
  store: ["format", "core"],
  config: ["core"],
  core: [],
};

/** Replication knows a peer and not HTTP; the rooms below it know neither. */
const HONO_ROOMS: readonly string[] = ["cli", "http"];

/** Open files belong to the store. The command line also reads and writes files of the host. */
const OPEN_FILE_ROOMS: readonly string[] = ["cli", "store"];

/** A source file, its path relative to the repository: `main.ts` or `src/<room>/...`. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** An arrow that runs the wrong way, or a thing used in the wrong room. */
export interface Violation {
  readonly path: string;
  /** Counted from 1. */
  readonly line: number;
  readonly message: string;
}

// A specifier after `from`, `import` or `import(`, alone or at the end of a list over several lines.
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*(["'])(?<specifier>[^"'\n]+)\1/g;
const COMPUTED_IMPORT = /\bimport\s*\(\s*(?!["'\s])/g;
const OPEN_FILE = /\bDeno\s*\.\s*(?:FsFile|open|openSync|create|createSync)\b/g;

/**
 * Finds all violations in the given files.
 *
 * @param files Every source file to look at.
 * @returns The violations, in the order of the files and their lines.
 */
export function checkLayers(files: Iterable<SourceFile>): Violation[] {
  return Array.from(files).flatMap(checkFile);
}

function checkFile({ path, text }: SourceFile): Violation[] {
  const room = roomOf(path);
  if (room === undefined) {
    return [{
      path,
      line: 1,
      message: `not in a room; the rooms are ${list(Object.keys(ARROWS))}`,
    }];
  }

  const code = blankComments(text);
  const found: Violation[] = [];
  const report = (index: number, message: string) =>
    found.push({ path, line: code.slice(0, index).split("\n").length, message });

  for (const match of code.matchAll(IMPORT)) {
    const message = checkImport(path, room, match.groups!.specifier!);
    if (message !== undefined) report(match.index, message);
  }
  for (const match of code.matchAll(COMPUTED_IMPORT)) {
    report(
      match.index,
      "imports a computed name, which neither this check nor the compiler follows",
    );
  }
  if (!OPEN_FILE_ROOMS.includes(room)) {
    for (const match of code.matchAll(OPEN_FILE)) {
      report(match.index, `${room} uses ${match[0]}; only ${list(OPEN_FILE_ROOMS)} may`);
    }
  }
  return found.sort((a, b) => a.line - b.line);
}

/** Says what is wrong with an import, or nothing. */
function checkImport(path: string, room: string, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) {
    const isHono = specifier.replace(/^npm:/, "").split(/[/@]/)[0] === "hono";
    if (!isHono || HONO_ROOMS.includes(room)) return undefined;
    return `${room} imports ${specifier}; only ${list(HONO_ROOMS)} may`;
  }

  const targetPath = join(dirname(path), specifier);
  // Data, such as the version, and no code: it points nowhere.
  if (targetPath === "deno.json") return undefined;

  const target = roomOf(targetPath);
  if (target === room) return undefined;
  const allowed = ARROWS[room]!;
  if (target !== undefined && allowed.includes(target)) return undefined;
  return `${room} imports ${target ?? `${targetPath}, which is in no room`}; it may import ${
    list(allowed)
  }`;
}

/** The room that a path lies in, if it is one of the table's. */
function roomOf(path: string): string | undefined {
  const room = path === "main.ts" ? path : /^src\/([^/]+)\/./.exec(path)?.[1];
  return room !== undefined && Object.hasOwn(ARROWS, room) ? room : undefined;
}

/**
 * Overwrites comments with nothing but their line ends, as examples in them import things too.
 * Formatted code starts a block comment on a line of its own and puts a space before `//`, which
 * tells both from a regular expression or a URL without parsing the language.
 */
function blankComments(text: string): string {
  return text
    .replace(/^[ \t]*\/\*[^]*?\*\//gm, (comment) => comment.replace(/[^\n]+/g, ""))
    .replace(/(?<=^|\s)\/\/.*$/gm, "");
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "no other room" : names.join(", ");
}

/** Reads `main.ts` and all of `src`. */
async function* sourceFiles(root: string): AsyncGenerator<SourceFile> {
  yield { path: "main.ts", text: await Deno.readTextFile(join(root, "main.ts")) };
  const folders = ["src"];
  for (const folder of folders) {
    for await (const entry of Deno.readDir(join(root, folder))) {
      const path = join(folder, entry.name);
      if (entry.isDirectory) folders.push(path);
      else if (/\.[cm]?[jt]sx?$/.test(path)) {
        yield { path, text: await Deno.readTextFile(join(root, path)) };
      }
    }
  }
}

if (import.meta.main) {
  const files = await Array.fromAsync(sourceFiles(resolve(import.meta.dirname!, "..")));
  const violations = checkLayers(files);
  for (const { path, line, message } of violations) console.error(`${path}:${line} ${message}`);
  if (violations.length > 0) Deno.exit(1);
  console.log(`Arrows between rooms checked in ${files.length} files`);
}
