/**
 * Changing the file of a server's tokens.
 *
 * 1. The file is as it was or as it should be, never between: a new one takes its place.
 * 2. Of two that change it at once one is refused: the new file's name is the lock.
 * 3. Comments, and lines of other tokens, stay as they are.
 * 4. A file that is damaged is not changed.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { type KnownToken, nameInLine, parseTokens, tokenLine } from "../http/mod.ts";
import { syncNames } from "../store/mod.ts";

const HEAD = "# Tokens of a volcast server, as digests: NAME SCOPES [site=SITE] sha256:HEX\n";

/** The tokens in a file. @throws {VolcastError} `not-found`, `damaged`, `io`. */
export function readTokenFile(path: string): KnownToken[] {
  return tokensIn(readText(path), path);
}

/** Adds a token; makes the file where there is none. @throws {VolcastError} `exists`, `damaged`, `io`. */
export function addToken(path: string, token: KnownToken): void {
  change(path, (text) => {
    const before = text ?? HEAD;
    const tokens = tokensIn(before, path);
    if (tokens.some(({ name }) => name === token.name)) {
      throw new VolcastError(
        "exists",
        `Cannot add the token '${token.name}' to ${path}: it has one of this name`,
        `Choose another name, or: volcast token revoke ${token.name} --from ${path}`,
      );
    }
    return `${before}${before.endsWith("\n") ? "" : "\n"}${tokenLine(token)}\n`;
  });
}

/** Takes a token away. @throws {VolcastError} `not-found`, `damaged`, `io`. */
export function removeToken(path: string, name: string): void {
  change(path, (text) => {
    if (text === undefined) readText(path);
    const before = text ?? "";
    if (!tokensIn(before, path).some((token) => token.name === name)) {
      throw new VolcastError(
        "not-found",
        `Cannot revoke the token '${name}': ${path} has none of this name`,
        `See: volcast token list ${path}`,
      );
    }
    const rest = before.split("\n").filter((line) => nameInLine(line) !== name).join("\n");
    // A file of no bytes would count as damaged, and the server would go on with the tokens of before.
    return rest.trim() === "" ? HEAD : rest;
  });
}

function tokensIn(text: string, path: string): KnownToken[] {
  try {
    return parseTokens(text);
  } catch (error) {
    if (!(error instanceof VolcastError)) throw error;
    throw new VolcastError(
      "damaged",
      `Cannot read the tokens in ${path}: ${error.message}`,
      error.hint,
    );
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      missing ? "not-found" : "io",
      `Cannot read ${path}: ${missing ? "there is no such file" : messageOf(error)}`,
      missing ? `Make it: volcast token create NAME --scope write --into ${path}` : "",
    );
  }
}

/** Puts other text in a file's place. @param make Makes it of the text there is, if there is a file. */
function change(path: string, make: (text: string | undefined) => string): void {
  // A link stays one: what it leads to is replaced.
  const file = realPathOf(path);
  const name = `${file ?? path}.new`;
  const opened = create(name, path);
  try {
    {
      using target = opened;
      if (realPathOf(path) !== file) throw changedBy("another command has just made it", path);
      // Read only now, when nobody else can change it.
      const text = make(file === undefined ? undefined : readText(file));
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) at += target.writeSync(bytes.subarray(at));
      target.syncDataSync();
      if (file !== undefined) keepOwner(file, name);
    }
    Deno.renameSync(name, file ?? path);
    syncNames([file ?? path]);
  } catch (error) {
    Deno.removeSync(name);
    if (error instanceof VolcastError) throw error;
    throw new VolcastError("io", `Cannot write ${path}: ${messageOf(error)}`);
  }
}

function realPathOf(path: string): string | undefined {
  try {
    return Deno.realPathSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new VolcastError("io", `Cannot read ${path}: ${messageOf(error)}`);
  }
}

function create(name: string, path: string): Deno.FsFile {
  try {
    // It holds no secret, and the server may run as another user than its administrator.
    return Deno.openSync(name, { write: true, createNew: true, mode: 0o644 });
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) {
      throw changedBy(`${name} is there, so somebody else does`, path);
    }
    throw new VolcastError("io", `Cannot change ${path}: ${messageOf(error)}`);
  }
}

function changedBy(reason: string, path: string): VolcastError {
  return new VolcastError(
    "busy",
    `Cannot change ${path}: ${reason}`,
    `Try again; if nobody changes it, a command was cut off: delete ${path}.new`,
  );
}

/** The server must be able to read the new file as it could the old one. */
function keepOwner(from: string, to: string): void {
  const [old, now] = [Deno.statSync(from), Deno.statSync(to)];
  if (old.uid !== null && old.gid !== null && (old.uid !== now.uid || old.gid !== now.gid)) {
    Deno.chownSync(to, old.uid, old.gid);
  }
  if (old.mode !== null) Deno.chmodSync(to, old.mode & 0o777);
}
