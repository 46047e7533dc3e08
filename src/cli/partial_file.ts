/**
 * Files that get their name when they are complete: until then they are `NAME.<8 hex digits>.part`.
 *
 * Invariants:
 * 1. Who writes such a file holds its lock until it has its name.
 * 2. One whose lock nobody holds was left by a process that was killed: who writes NAME next removes it.
 *
 * @module
 */

import { basename, dirname } from "node:path";

const PART = /^(.+)\.[0-9a-f]{8}\.part$/;

/** Makes the file that `path` is written to first, removing what killed processes left of it. */
export async function makePart(path: string): Promise<{ name: string; file: Deno.FsFile }> {
  removeAbandoned(dirname(path), basename(path));
  for (;;) {
    const name = `${path}.${crypto.randomUUID().slice(0, 8)}.part`;
    const file = await Deno.open(name, { write: true, createNew: true });
    // Before it had its lock another process may have come and taken it for abandoned.
    if (takeLock(file) !== "held" && isThere(name)) return { name, file };
    file.close();
  }
}

/**
 * Removes files in a directory that were not completed and that nobody writes any more.
 * @param of The name that they were to get; any by default.
 */
export function removeAbandoned(directory: string, of?: string): void {
  for (const name of partsIn(directory, of)) {
    try {
      using file = Deno.openSync(`${directory}/${name}`, { write: true });
      if (takeLock(file) === "taken") Deno.removeSync(`${directory}/${name}`);
    } catch {
      // It is gone, or somebody else's: it is in nobody's way.
    }
  }
}

function partsIn(directory: string, of: string | undefined): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name).filter((name) => {
      const whole = PART.exec(name)?.[1];
      return whole !== undefined && (of === undefined || whole === of);
    });
  } catch {
    // Whoever makes something there is told why that cannot be.
    return [];
  }
}

/** Takes the lock of a file, if nobody has it. Some file systems have no locks. */
function takeLock(file: Deno.FsFile): "taken" | "held" | "none" {
  try {
    return file.tryLockSync(true) ? "taken" : "held";
  } catch {
    return "none";
  }
}

function isThere(name: string): boolean {
  try {
    Deno.lstatSync(name);
    return true;
  } catch {
    return false;
  }
}
