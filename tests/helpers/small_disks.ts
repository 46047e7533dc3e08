/**
 * Small file systems of the host to test with: a tmpfs that is soon full, can be made larger, and read-only.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { test } from "./strict.ts";

async function run(command: string, ...args: string[]): Promise<{ code: number; out: string }> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
    return { code, out: new TextDecoder().decode(code === 0 ? stdout : stderr).trim() };
  } catch (error) {
    return { code: -1, out: error instanceof Error ? error.message : String(error) };
  }
}

/** A file system of its own, mounted at `path`. */
export class SmallDisk implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Mounts one of so many KiB. @throws What `mount` says. */
  static async mount(sizeKiB: number): Promise<SmallDisk> {
    const path = await Deno.makeTempDir({ prefix: "volcast-disk-" });
    const { code, out } = await run(
      "mount",
      "-t",
      "tmpfs",
      "-o",
      `size=${sizeKiB}k`,
      "tmpfs",
      path,
    );
    if (code === 0) return new SmallDisk(path);
    await Deno.remove(path);
    throw new Error(out);
  }

  /** Mounts it anew: `size=8192k`, `ro`. */
  async remount(options: string): Promise<void> {
    const { code, out } = await run("mount", "-o", `remount,${options}`, this.path);
    assertEquals(code, 0, out);
  }

  /** Path of something in it. */
  file(name: string): string {
    return `${this.path}/${name}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { code, out } = await run("umount", this.path);
    assertEquals(code, 0, out);
    await Deno.remove(this.path);
  }
}

/** Why there are no such file systems here; `undefined` where there are. */
export async function whyNoSmallDisks(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return `no tmpfs to mount on ${Deno.build.os}`;
  try {
    await (await SmallDisk.mount(64))[Symbol.asyncDispose]();
    return undefined;
  } catch (error) {
    return `nothing can be mounted here: ${error instanceof Error ? error.message : error}`;
  }
}

/** Why nothing on a small disk can be made immutable; `undefined` where it can. */
export async function whyNotImmutable(): Promise<string | undefined> {
  const reason = await whyNoSmallDisks();
  if (reason !== undefined) return reason;
  await using disk = await SmallDisk.mount(64);
  const file = disk.file("probe");
  Deno.writeTextFileSync(file, "");
  const { code, out } = await run("chattr", "+i", file);
  if (code !== 0) return `nothing can be made immutable here: ${out}`;
  await setImmutable(file, false);
  return undefined;
}

/** Makes a file immutable, or not. */
export async function setImmutable(path: string, isOn: boolean): Promise<void> {
  const { code, out } = await run("chattr", isOn ? "+i" : "-i", path);
  assertEquals(code, 0, out);
}

const noDisks = await whyNoSmallDisks();

/** Registers a test that needs small disks; where there are none it is ignored, and says why. */
export function diskTest(
  name: string,
  fn: () => Promise<void>,
  reason: string | undefined = noDisks,
): void {
  test(name, fn, reason);
}
