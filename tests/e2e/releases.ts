/**
 * A volume with two releases of a real tree, and what each of them has to look like.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { run, type TempDirectory, volcast, volcastCommand } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

/** Thousands of files. */
const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";

/** See the module. */
export interface Releases {
  /** The volume; its snapshots are june3 and june5. */
  readonly volume: string;
  /** The tree as of june5. */
  readonly tree: string;
}

/** Makes the volume and the tree. */
export async function twoReleases(directory: TempDirectory): Promise<Releases> {
  const volume = directory.file("site.vol");
  const tree = directory.file("tree");
  await makeTree(tree, SOURCE);
  await volcast(["init", volume, "--size", "2GiB"]);
  await volcast(["publish", volume, tree, "--as", "june3"]);
  changeTree(tree, 35);
  await volcast(["publish", volume, tree, "--as", "june5"]);
  return { volume, tree };
}

/** A volume is clean, and shows content and attributes of a release, as the origin has them. */
export async function assertRestored(
  volume: string,
  releases: Releases,
  release: "june3" | "june5",
): Promise<void> {
  const report = JSON.parse((await volcast(["fsck", volume, "--json"])).stdout);
  assertEquals(report.clean, true);
  assert(report.files > 1000, `${report.files} files`);
  const compared = await shell(
    `cmp <(volcast export '${volume}' -) <(volcast export '${releases.volume}' - --at ${release})`,
  );
  assertEquals([compared.code, compared.stdout, compared.stderr], [0, "", ""]);
}

/** The same for the newer release, with the very tree that was published. */
export async function assertPublished(
  directory: TempDirectory,
  volume: string,
  { tree }: Releases,
): Promise<void> {
  const out = directory.file("exported");
  await volcast(["export", volume, out]);
  await assertSameTree(tree, out);
  Deno.removeSync(out, { recursive: true });
}

/** Runs a line of shell in which `volcast` is the program. */
export async function shell(
  line: string,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const command = volcastCommand().map((word) => `'${word}'`).join(" ");
  return await run(["bash", "-c", `set -o pipefail; volcast() { ${command} "$@"; }; ${line}`]);
}

/** Files of a directory, in order. */
export function filesOf(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => `${directory}/${name}`).sort();
}

/** Flips a bit of a file. */
export function flipBitOf(path: string, at: number): void {
  using file = Deno.openSync(path, { read: true, write: true });
  file.seekSync(at, Deno.SeekMode.Start);
  const byte = new Uint8Array(1);
  file.readSync(byte);
  byte[0] ^= 4;
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(byte);
}
