/**
 * Measures the image stream of a striped volume against that of a volume in one file:
 *
 *     sudo deno run -A scripts/bench/stripes.ts [--rate MIB] [--members N]
 *
 * 1. On slow devices: a loop device each, from which a control group lets a process read so many MiB a
 *    second. Needs root. The kernel lets a tenth of a second's worth through at once, so rates far below
 *    10 MiB/s, a unit of a stripe in that time, are like slow devices, and higher ones are not.
 * 2. In memory (/dev/shm, or the page cache): what reading ahead costs where it cannot help.
 *
 * Each time a volume in one file, a striped one whose units are read one after the other, and a striped
 * one as it is. The medians of turns that take each other in turn are printed.
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
/** Seconds that a slow device takes. */
const SLOW_SECONDS = 9;
/** MiB that are read from memory. */
const MEMORY_SIZE = 256;

const MODES = {
  "one file": { isStriped: false, isSequential: false },
  "striped, in turn": { isStriped: true, isSequential: true },
  "striped": { isStriped: true, isSequential: false },
} as const;

/** Reads the image of the newest snapshot, and prints how many ms that takes. */
async function read(path: string, isSequential: boolean): Promise<void> {
  const volume = openVolumeFile(path);
  if (isSequential) Object.assign(volume.io.store, { readParallel: undefined });
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
async function timed(path: string, isSequential: boolean, throttle?: Throttle): Promise<number> {
  const self = [Deno.execPath(), "run", "--no-check", "-A", import.meta.filename!, "read", path];
  const [command, ...args] = throttle?.command(self) ?? self;
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args, String(isSequential)],
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return Number(new TextDecoder().decode(stdout));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function compare(
  what: string,
  { size, turns }: { size: number; turns: number },
  measure: (mode: { isStriped: boolean; isSequential: boolean }) => Promise<number>,
): Promise<void> {
  const times = Object.entries(MODES).map(([name, mode]) => ({ name, mode, ms: [] as number[] }));
  for (let turn = 0; turn < turns; turn++) {
    for (const { mode, ms } of times) ms.push(await measure(mode));
  }
  console.log(`${what}, ${size} MiB, load ${Deno.loadavg()[0].toFixed(1)}:`);
  for (const { name, ms } of times) {
    const one = median(times[0].ms) / median(ms);
    const rate = size / median(ms) * 1000;
    console.log(
      `  ${name.padEnd(17)} ${median(ms).toFixed(0).padStart(6)} ms, ${rate.toFixed(1)} MiB/s, ${
        one.toFixed(2)
      } times as fast as one file`,
    );
  }
}

async function flush({ device }: LoopDevice): Promise<void> {
  await new Deno.Command("blockdev", { args: ["--flushbufs", device] }).output();
}

async function onSlowDevices(
  directory: string,
  { size, members, rate }: { size: number; members: string[]; rate: number },
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
    using throttle = Throttle.of(devices.map(({ number }) => number), rate * MIB);
    const what = `${members.length} devices of ${rate} MiB/s`;
    await compare(what, { size, turns: 3 }, async ({ isStriped, isSequential }) => {
      for (const device of devices) await flush(device);
      return await timed(devices[isStriped ? 1 : 0].node, isSequential, throttle);
    });
  } finally {
    for (const device of devices) await detach(device);
  }
}

/** Volumes in a directory of their own. */
async function withVolumes(
  size: number,
  members: readonly string[],
  work: (directory: string) => Promise<void>,
): Promise<void> {
  const memory = await Deno.stat("/dev/shm").then(() => "/dev/shm", () => undefined);
  const directory = await Deno.makeTempDir(memory === undefined ? {} : { dir: memory });
  try {
    await make(`${directory}/plain`, "plain", size * MIB);
    const paths = members.map((name) => `${directory}/${name}`);
    await make(paths.join(","), "striped", size * MIB);
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function main(): Promise<void> {
  if (Deno.args[0] === "read") return await read(Deno.args[1], Deno.args[2] === "true");
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      rate: { type: "string", default: "2" },
      members: { type: "string", default: "3" },
    },
  });
  const rate = Number(values.rate);
  const members = Array.from({ length: Number(values.members) }, (_, i) => `member${i}`);
  const slowSize = rate * SLOW_SECONDS;
  await withVolumes(
    slowSize,
    members,
    (directory) => onSlowDevices(directory, { size: slowSize, members, rate }),
  );
  await withVolumes(
    MEMORY_SIZE,
    members,
    (directory) =>
      compare(
        "Memory",
        { size: MEMORY_SIZE, turns: 7 },
        ({ isStriped, isSequential }) =>
          timed(`${directory}/${isStriped ? members[0] : "plain"}`, isSequential),
      ),
  );
}

await main();
