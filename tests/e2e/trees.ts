/**
 * Trees to publish, and the comparison that must say nothing.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { run } from "./harness.ts";

/** A repeatable stream of numbers in [0, 1). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Bytes that do not compress. */
export function noise(byteCount: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(byteCount);
  for (let at = 0; at < byteCount; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65536));
  }
  return bytes;
}

/**
 * A copy of a real tree with links, odd modes, odd names, holes and old times added.
 *
 * @param options.mostKiB Larger files are left out: a test of thousands of files need not move much.
 */
export async function makeTree(
  path: string,
  source: string,
  options: { mostKiB?: number } = {},
): Promise<void> {
  const copied = await run(["cp", "-a", source, path]);
  assertEquals(copied.code, 0, copied.stderr);
  if (options.mostKiB !== undefined) {
    const large = ["-type", "f", "-size", `+${options.mostKiB}k`];
    assertEquals((await run(["find", path, ...large, "-delete"])).code, 0);
  }
  const odd = `${path}/odd`;
  Deno.mkdirSync(odd);
  Deno.writeTextFileSync(`${odd}/plain`, "plain\n");
  Deno.linkSync(`${odd}/plain`, `${odd}/second name`);
  Deno.symlinkSync("plain", `${odd}/link`);
  Deno.symlinkSync("/nowhere/at/all", `${odd}/dangling`);
  Deno.symlinkSync("x".repeat(300), `${odd}/long link`);
  Deno.writeTextFileSync(`${odd}/${"n".repeat(255)}`, "a long name");
  Deno.writeTextFileSync(`${odd}/новое имя 名前 \u{1f30b}`, "a name in UTF-8");
  Deno.writeTextFileSync(`${odd}/line\nbreak`, "a line break in the name");
  Deno.writeTextFileSync(`${odd}/empty`, "");
  Deno.writeFileSync(`${odd}/exact`, noise(4096 * 3));
  Deno.writeFileSync(`${odd}/inline`, noise(128));
  Deno.writeFileSync(`${odd}/one more than inline`, noise(129));
  const holes = Deno.openSync(`${odd}/holes`, { write: true, create: true });
  holes.seekSync(50 * 2 ** 20, Deno.SeekMode.Start);
  holes.writeSync(new TextEncoder().encode("end"));
  holes.close();
  Deno.chmodSync(`${odd}/empty`, 0o000);
  Deno.chmodSync(`${odd}/exact`, 0o6755);
  Deno.mkdirSync(`${odd}/sticky`);
  Deno.chmodSync(`${odd}/sticky`, 0o1777);
  Deno.utimeSync(`${odd}/plain`, 1, 1);
  Deno.utimeSync(`${odd}/sticky`, 1e9, 1e9);
}

/** A second release: edits, renames, removals, new files, changed modes and types. */
export function changeTree(path: string, seed: number): void {
  const random = randomOf(seed);
  const files = [...filesBelow(path)];
  const pick = () => files.splice(Math.floor(random() * files.length), 1)[0];
  const few = Math.max(3, Math.floor(files.length / 200));
  for (let i = 0; i < few; i++) {
    const file = pick();
    const bytes = Deno.readFileSync(file);
    const edited = new Uint8Array(bytes.length + 10);
    edited.set(bytes);
    if (bytes.length > 0) edited[Math.floor(random() * bytes.length)] ^= 0x55;
    Deno.writeFileSync(file, edited);
  }
  for (let i = 0; i < few; i++) Deno.removeSync(pick());
  for (let i = 0; i < few; i++) {
    const file = pick();
    // Not longer than before: some names are as long as names may be.
    Deno.renameSync(file, `${file.slice(0, file.lastIndexOf("/"))}/renamed ${i}`);
  }
  for (let i = 0; i < few; i++) Deno.chmodSync(pick(), 0o640);
  for (let i = 0; i < few; i++) Deno.writeFileSync(`${path}/new ${i}`, noise(i * 3000));
  const turned = pick();
  Deno.removeSync(turned);
  Deno.mkdirSync(turned);
  Deno.writeTextFileSync(`${turned}/inside`, "a file became a directory");
}

function* filesBelow(path: string): Generator<string> {
  for (const entry of [...Deno.readDirSync(path)].sort((a, b) => a.name < b.name ? -1 : 1)) {
    if (entry.isDirectory) yield* filesBelow(`${path}/${entry.name}`);
    else if (entry.isFile) yield `${path}/${entry.name}`;
  }
}

/** Compares content and attributes of two trees; throws with the differences. */
export async function assertSameTree(a: string, b: string): Promise<void> {
  const result = await run([
    "rsync",
    "-aHAX",
    "--dry-run",
    "--checksum",
    "--delete",
    "--itemize-changes",
    `${a}/`,
    `${b}/`,
  ]);
  assertEquals(result.code, 0, result.stderr);
  assertEquals(result.stdout, "", `${a} and ${b} differ`);
}
