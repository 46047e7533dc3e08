/**
 * `volcast image`: an image as a file, or to standard output.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, parseExpression, VolcastError } from "../../core/mod.ts";
import { defineCommand } from "../command.ts";
import { chunksOf } from "../content.ts";
import { tokenFromEnvironment } from "../environment.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { SNAPSHOT_LIST } from "../schemas.ts";
import { type ImageBytes, openTarget } from "../target.ts";
import { showExactBytes } from "../units.ts";

/** See the module. */
export const imageCommand = defineCommand({
  name: ["image"],
  summary: "write the image of a snapshot, of what changed between two, of any expression",
  usage: "VOLUME [EXPRESSION]",
  positionals: [1, 2],
  details: `EXPRESSION is a snapshot ('june5', a full image), a difference ('june5 - june3', an
increment), a sum that restores several snapshots ('june5 + june4 - june3'), or any other of +, - and &
with parentheses; volcast plan says what it restores, and on what. With --snapshots in its place: a
full image that has these snapshots too, readable at the target.

The same image has the same bytes wherever and whenever it is made. The file takes its name when it is
complete. Without -o the image goes to standard output.`,
  examples: [
    "volcast image site.vol june5 -o june5.img",
    "volcast image site.vol 'june5 - june3' -o june5.img",
    "volcast image site.vol 'june5 + june4 - june3' -o level1.img",
    "volcast image site.vol --snapshots all -o everything.img",
    "volcast image http://127.0.0.1:8080 june5 | ssh edge volcast apply copy.vol -",
  ],
  options: {
    output: { value: "FILE", alias: "o", help: "where to write; - is standard output" },
    snapshots: {
      value: "all|NAMES",
      help: "a copy that keeps history: these, with commas between",
    },
    force: { alias: "f", help: "write over a file that is there" },
  },
  schema: z.object({
    output: z.string().optional(),
    snapshots: SNAPSHOT_LIST.optional(),
    force: z.boolean().optional(),
  }),
  async run([volume, select], options, terminal): Promise<number> {
    const { snapshots } = options;
    if ((select === undefined) === (snapshots === undefined)) {
      throw new VolcastError(
        "usage",
        "Cannot make the image: give either an expression or --snapshots",
        "For example: volcast image site.vol june5 -o june5.img",
      );
    }
    if (select !== undefined) parseExpression(select);
    const path = options.output ?? "-";
    if (path === "-") {
      if (options.output === undefined && Deno.stdout.isTerminal()) {
        throw new VolcastError(
          "usage",
          "Cannot write the image: standard output is a terminal",
          "Name a file: -o june5.img",
        );
      }
    } else checkOutput(path, options.force ?? false);
    const progress = terminal.progress("Writing");
    await using target = openTarget(volume, { token: tokenFromEnvironment() });
    const image = select !== undefined
      ? await target.image(select)
      : await target.imageWithHistory(snapshots!);
    const chunks = counted(image, (done) => progress.update(done, image.byteCount));
    try {
      if (path === "-") {
        // A signal just ends this: there is nothing to clean up, and a full pipe blocks.
        for await (const chunk of chunks) terminal.write(chunk);
      } else {
        await interruptible((signal) => writeFile(path, chunks, signal));
      }
    } finally {
      progress.end();
    }
    if (path !== "-") terminal.note(`Wrote ${path}: ${showExactBytes(image.byteCount)}`);
    return EXIT_CODES.done;
  },
});

/** The image's chunks; fails when they are not all that was announced. */
async function* counted(
  image: ImageBytes,
  progress: (done: number) => void,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const chunk of chunksOf(image.stream, "the image")) {
    done += chunk.length;
    progress(done);
    yield chunk;
  }
  if (done === image.byteCount) return;
  throw new VolcastError(
    "io",
    `Cannot write the image: ${done} of ${image.byteCount} bytes have come`,
  );
}

function checkOutput(path: string, force: boolean): void {
  const info = infoOf(path);
  if (info === undefined) return;
  if (info.isDirectory) {
    throw new VolcastError("usage", `Cannot write ${path}: it is a directory`);
  }
  if (info.isFile && !force) {
    throw new VolcastError(
      "exists",
      `Cannot write ${path}: it exists already`,
      "Choose another name, or give --force to write over it",
    );
  }
}

/** Writes under another name first, so that the name never means half an image. */
async function writeFile(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const info = infoOf(path);
  // A device or a pipe cannot be replaced by a file.
  const isSpecial = info !== undefined && !info.isFile;
  const name = isSpecial ? path : `${path}.${crypto.randomUUID().slice(0, 8)}.part`;
  try {
    using file = await Deno.open(name, { write: true, createNew: !isSpecial });
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      for (let at = 0; at < chunk.length;) at += await file.write(chunk.subarray(at));
    }
    if (isSpecial) return;
    await file.syncData();
    await Deno.rename(name, path);
  } catch (error) {
    if (!isSpecial) await Deno.remove(name).catch(() => {});
    if (error instanceof VolcastError || !isOfHost(error)) throw error;
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      missing ? "not-found" : error instanceof Deno.errors.PermissionDenied ? "denied" : "io",
      `Cannot write ${path}: ${missing ? "its directory does not exist" : messageOf(error)}`,
      "",
      { cause: error },
    );
  }
}

function infoOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    // If there is more to it than that nothing is there, opening it will tell.
    return undefined;
  }
}

/** Whether the host refused something. */
function isOfHost(error: unknown): boolean {
  return Object.values(Deno.errors).some((kind) => error instanceof kind) ||
    /os error/.test(messageOf(error));
}
