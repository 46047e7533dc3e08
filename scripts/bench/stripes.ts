/**
 * Measures the image stream of a striped volume against that of a volume in one file:
 *
 *     sudo deno run -A scripts/bench/stripes.ts [--rate MIB] [--size MIB] [--members N]
 *
 * 1. On slow devices: a loop device each, from which a control group lets a process read so many MiB a
 *    second. Needs root.
 * 2. In memory (/dev/shm, or the page cache): what reading ahead costs where it cannot help.
 *
 * Sizes, rates and the medians of five turns that take each other in turn are printed.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { Image } from "../../src/image/mod.ts";
import { createVolumeFile, openVolumeFile } from "../../src/volume/mod.ts";
import {
  attachFile,
  detach,
  type LoopDevice,
  whyNoLoopDevices,
} from "../../tests/helpers/loop_devices.ts";
import { Throttle } from "../../tests/helpers/throttle.ts";

const MIB = 2 ** 20;
const TURNS = 5;

/** Reads the image of the newest snapshot, and prints how many ms that takes. */
async function read(path: string): Promise<void> {
  const volume = openVolumeFile(path);
  const image = new Image(volume, volume.snapshots().at(-1)!);
  const begin = performance.now();
  let bytes = 0;
  for await (const chunk of image.stream()) bytes += chunk.length;
  const ms = performance.now() - begin;
  if (bytes !== image.byteCount) throw new Error(`${bytes} of ${image.byteCount} bytes`);
  await volume.close();
  console.log(ms);
}

/** A volume with one file of noise in a snapshot. */
async function make(path: string, kind: "plain" | "striped", byteCount: number): Promise<void> {
  const volume = await createVolumeFile(path, byteCount * 1.2 + 16 * MIB, { kind });
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "noise", { type: "file" });
    const bytes = new Uint8Array(MIB);
    for (let at = 0; at < byteCount; at += MIB) {
      for (let i = 0; i < MIB; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
      writer.fs.write(ino, at, bytes);
    }
    await writer.takeSnapshot("noise");
  });
  await volume.close();
}

/** The ms that a process of its own takes to read a volume. */
async function timed(path: string, throttle?: Throttle): Promise<number> {
  const self = [Deno.execPath(), "run", "--no-check", "-A", import.meta.filename!, "read", path];
  const [command, ...args] = throttle?.command(self) ?? self;
  const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return Number(new TextDecoder().decode(stdout));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function compare(
  what: string,
  byteCount: number,
  measure: { plain: () => Promise<number>; striped: () => Promise<number> },
): Promise<void> {
  const plain: number[] = [];
  const striped: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    plain.push(await measure.plain());
    striped.push(await measure.striped());
  }
  const shown = (ms: number) =>
    `${ms.toFixed(0)} ms, ${(byteCount / MIB / ms * 1000).toFixed(0)} MiB/s`;
  const [a, b] = [median(plain), median(striped)];
  console.log(`${what}:`);
  console.log(`  one file  ${shown(a)}`);
  console.log(`  striped   ${shown(b)}: ${(a / b).toFixed(2)} times as fast`);
}

async function flush({ device }: LoopDevice): Promise<void> {
  await new Deno.Command("blockdev", { args: ["--flushbufs", device] }).output();
}

async function onSlowDevices(
  directory: string,
  { byteCount, members, rate }: { byteCount: number; members: string[]; rate: number },
): Promise<void> {
  const reason = await whyNoLoopDevices();
  if (reason !== undefined) return console.log(`Slow devices: ${reason}`);
  const nodes = `${directory}/nodes`;
  Deno.mkdirSync(nodes);
  const devices: LoopDevice[] = [];
  try {
    for (const name of ["plain", ...members]) {
      devices.push(await attachFile(`${directory}/${name}`, `${nodes}/${name}`));
    }
    const [plain, ...striped] = devices;
    using throttle = Throttle.of(devices.map(({ number }) => number), rate * MIB);
    await compare(`${members.length} devices of ${rate} MiB/s`, byteCount, {
      async plain() {
        await flush(plain);
        return await timed(plain.node, throttle);
      },
      async striped() {
        for (const device of striped) await flush(device);
        return await timed(striped[0].node, throttle);
      },
    });
  } finally {
    for (const device of devices) await detach(device);
  }
}

async function main(): Promise<void> {
  if (Deno.args[0] === "read") return await read(Deno.args[1]);
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      rate: { type: "string", default: "40" },
      size: { type: "string", default: "192" },
      members: { type: "string", default: "3" },
    },
  });
  const byteCount = Number(values.size) * MIB;
  const members = Array.from({ length: Number(values.members) }, (_, i) => `member${i}`);
  const memory = await Deno.stat("/dev/shm").then(() => "/dev/shm", () => undefined);
  const directory = await Deno.makeTempDir(memory === undefined ? {} : { dir: memory });
  try {
    const paths = members.map((name) => `${directory}/${name}`);
    await make(`${directory}/plain`, "plain", byteCount);
    await make(paths.join(","), "striped", byteCount);
    console.log(`An image of ${values.size} MiB; load ${Deno.loadavg()[0].toFixed(1)}`);
    await onSlowDevices(directory, { byteCount, members, rate: Number(values.rate) });
    await compare("memory", byteCount, {
      plain: () => timed(`${directory}/plain`),
      striped: () => timed(paths[0]),
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

await main();
