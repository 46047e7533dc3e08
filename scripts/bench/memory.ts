/**
 * Where the data of the bench lies: in memory, so that no disk is measured.
 *
 * @module
 */

import { must } from "./process.ts";

/** A directory that goes at the end. */
export interface Place extends AsyncDisposable {
  readonly directory: string;
  /** Where that is, for the reader of the table. */
  readonly description: string;
}

/** Kinds of file systems that are memory, as `stat -f` names them. */
const IN_MEMORY = ["tmpfs", "ramfs"];

/** Mounts memory where that can be done, else takes a directory below TMPDIR. */
export async function findPlace(): Promise<Place> {
  const directory = await Deno.makeTempDir({ prefix: "volcast-bench-" });
  const mounted = Deno.uid() === 0 &&
    await must(["mount", "-t", "tmpfs", "-o", "size=80%", "tmpfs", directory])
      .then(() => true, () => false);
  const kind = (await must(["stat", "-f", "-c", "%T", directory])).trim();
  return {
    directory,
    description: mounted
      ? "all data lies in memory (a tmpfs of its own)"
      : IN_MEMORY.includes(kind)
      ? `all data lies in memory (the ${kind} of TMPDIR)`
      : `all data lies in TMPDIR, on ${kind}, NOT in memory: a disk is measured, too`,
    async [Symbol.asyncDispose]() {
      if (mounted) await must(["umount", "--lazy", directory]);
      await Deno.remove(directory, { recursive: true });
    },
  };
}
