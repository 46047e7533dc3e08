/**
 * `volcast ls`: what is in a directory of a volume.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { REF } from "../schemas.ts";
import { type FileDescription, openTarget, type Target } from "../target.ts";
import type { Terminal } from "../terminal.ts";
import { showMode, showName, showTime, table } from "../text.ts";

/** Entries printed, and aligned, together: a directory may have millions. */
const BATCH = 1000;

const COLUMNS = [
  { head: "mode" },
  { head: "nlink", align: "right" },
  { head: "uid", align: "right" },
  { head: "gid", align: "right" },
  { head: "size", align: "right" },
  { head: "mtime" },
  { head: "name" },
] as const;

/** See the module. */
export const lsCommand = defineRemoteCommand({
  name: ["ls"],
  summary: "list a directory of a volume",
  usage: "VOLUME [PATH]",
  positionals: [1, 2],
  details: `PATH is / by default. Without --at, what readers see is listed: the snapshot that the
pointer master names, or the active file system where there is no master.`,
  examples: [
    "volcast ls site.vol",
    "volcast ls site.vol /css --long --at june3",
    "volcast ls http://127.0.0.1:8080 / --json",
  ],
  options: {
    at: { value: "REF", help: "a snapshot, a pointer, or active" },
    long: { alias: "l", help: "mode, links, owner, size and time too" },
    json: { help: "as JSON; times are ns since 1970" },
  },
  schema: z.object({
    at: REF.optional(),
    long: z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([volume, path = "/"], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const batches = batchesOf(target, path, options.at);
    if (options.json) await printJson(batches, { path, at: options.at ?? null }, terminal);
    else {
      for await (const batch of batches) {
        terminal.print(
          options.long
            ? table(COLUMNS, batch.map(rowOf), { heads: false })
            : batch.map(({ name, path }) => showName(name || path)).join("\n"),
        );
      }
    }
    return EXIT_CODES.done;
  },
});

async function* batchesOf(
  target: Target,
  path: string,
  at: string | undefined,
): AsyncGenerator<FileDescription[]> {
  let batch: FileDescription[] = [];
  for await (const entry of target.list(path, at)) {
    batch.push(entry);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** One object, printed as its entries come. */
async function printJson(
  batches: AsyncIterable<FileDescription[]>,
  head: Record<string, unknown>,
  terminal: Terminal,
): Promise<void> {
  let before = `${JSON.stringify(head).slice(0, -1)},"entries":[`;
  for await (const batch of batches) {
    const lines = batch.map((entry) =>
      JSON.stringify(entry, (_, item) => typeof item === "bigint" ? String(item) : item)
    );
    terminal.print(before + "\n" + lines.join(",\n"));
    before = ",";
  }
  terminal.print(before === "," ? "]}" : `${before}]}`);
}

function rowOf(entry: FileDescription): string[] {
  const { mode, nlink, uid, gid, size, mtime, name, path, type, target, rdev } = entry;
  const isDevice = type === "charDevice" || type === "blockDevice";
  return [
    showMode(mode),
    String(nlink),
    String(uid),
    String(gid),
    isDevice ? showDevice(rdev) : String(size),
    showTime(mtime),
    showName(name || path) + (target === undefined ? "" : ` -> ${showName(target)}`),
  ];
}

/** Major and minor number, as Linux packs them. */
function showDevice(rdev: number): string {
  const major = Math.floor(rdev / 256) % 4096;
  const minor = rdev % 256 + Math.floor(rdev / 2 ** 20) * 256;
  return `${major},${minor}`;
}
