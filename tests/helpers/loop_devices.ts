/**
 * Block devices to test with: loop devices over files, through nodes of their own, as the compiled
 * program needs them.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { test } from "./strict.ts";

/** A block device. */
export interface LoopDevice {
  /** Path of its node, outside of /dev. */
  readonly node: string;
  /** Path of the device in /dev. */
  readonly device: string;
  /** `MAJOR:MINOR`. */
  readonly number: string;
}

async function run(command: string, ...args: string[]): Promise<{ code: number; out: string }> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, out: text(code === 0 ? stdout : stderr) };
}

async function ok(command: string, ...args: string[]): Promise<string> {
  const { code, out } = await run(command, ...args);
  assertEquals(code, 0, `${command} ${args.join(" ")}: ${out}`);
  return out;
}

/** Makes a device of `byteCount` bytes; its file and its node lie in `directory`. */
export async function attach(
  directory: string,
  name: string,
  byteCount: number,
): Promise<LoopDevice> {
  const file = `${directory}/${name}.backing`;
  Deno.writeFileSync(file, new Uint8Array(0));
  Deno.truncateSync(file, byteCount);
  return await attachFile(file, `${directory}/${name}`);
}

/** Makes a device of a file. @param options Further ones of `losetup`. */
export async function attachFile(
  file: string,
  node: string,
  options: readonly string[] = [],
): Promise<LoopDevice> {
  const device = await ok("losetup", ...options, "--show", "--find", file);
  const [major, minor] = (await ok("stat", "-c", "%t %T", device)).split(" ")
    .map((digits) => parseInt(digits, 16));
  await ok("mknod", node, "b", String(major), String(minor));
  return { node, device, number: `${major}:${minor}` };
}

/** Gives a device back. */
export async function detach({ device, node }: LoopDevice): Promise<void> {
  await ok("losetup", "--detach", device);
  Deno.removeSync(node);
}

/** Why there are no loop devices here; `undefined` where there are. */
export async function whyNoLoopDevices(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return `no loop devices on ${Deno.build.os}`;
  const directory = Deno.makeTempDirSync();
  try {
    const device = await attach(directory, "probe", 2 ** 20);
    try {
      Deno.openSync(device.node, { read: true, write: true }).close();
    } finally {
      await detach(device);
    }
    return undefined;
  } catch (error) {
    return `no loop devices here: ${error instanceof Error ? error.message : error}`;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const noDevices = await whyNoLoopDevices();

/**
 * Registers a test that needs block devices; where there are none it is ignored, and says why.
 * @param reason Another reason for which it cannot run here.
 */
export function deviceTest(
  name: string,
  fn: (directory: string) => Promise<void>,
  reason: string | undefined = noDevices,
): void {
  test(name, async () => {
    const directory = await Deno.makeTempDir({ prefix: "volcast-device-" });
    try {
      await fn(directory);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  }, reason);
}

/** Runs `work` with a device, which is gone afterwards. */
export async function withDevice<T>(
  directory: string,
  name: string,
  byteCount: number,
  work: (device: LoopDevice) => Promise<T>,
): Promise<T> {
  const device = await attach(directory, name, byteCount);
  try {
    return await work(device);
  } finally {
    await detach(device);
  }
}
