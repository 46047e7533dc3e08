import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { FileStore } from "../../src/store/mod.ts";
import {
  adoptIncoming,
  createVolumeFile,
  exists,
  incomingPath,
  openIncoming,
  openVolumeFile,
  type Volume,
} from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { fill, refusal } from "../helpers/volume_files.ts";

const MIB = 2 ** 20;

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

test("a volume file is made, closed and opened, and holds what was put in", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    const volume = await createVolumeFile(path, 3 * MIB + 1);
    assertEquals(volume.zone.capacity, 769);
    await fill(volume, 1);
    const lines = describe(volume.fileSystem(volume.current), { all: true });
    await volume.close();
    assertEquals(Deno.statSync(path).size, 769 * 4096);
    const again = openVolumeFile(path);
    assertEquals(describe(again.fileSystem(again.current), { all: true }), lines);
    assertClean(again);
    await again.close();
  }));

test("a volume file that cannot be made leaves nothing behind", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    for (const byteCount of [0, MIB - 4096, 2 ** 50]) {
      await refusal(() => createVolumeFile(path, byteCount), "usage");
      assertEquals(exists(path), false);
    }
    await refusal(() => createVolumeFile(`${directory}/none/a.vol`, MIB), "not-found");
    await (await createVolumeFile(path, MIB)).close();
    const before = Deno.readFileSync(path);
    await refusal(() => createVolumeFile(path, 2 * MIB), "exists");
    assertEquals(Deno.readFileSync(path), before);
  }));

test("a volume file that is open is refused, naming who has it and where", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.vol`;
    await (await createVolumeFile(path, MIB)).close();
    const volume = openVolumeFile(path);
    const busy = await refusal(() => openVolumeFile(path), "busy");
    assert(busy.message.includes(`process ${Deno.pid} `), busy.message);
    volume.noteOwner("http://127.0.0.1:7");
    const served = await refusal(() => openVolumeFile(path), "busy");
    assert(served.message.includes("http://127.0.0.1:7"), served.message);
    assert(served.hint.includes("http://127.0.0.1:7"), served.hint);
    await volume.close();
    await openVolumeFile(path).close();
  }));

test("what is no volume file is refused by its path, and left as it is", () =>
  inDirectory(async (directory) => {
    await refusal(() => openVolumeFile(`${directory}/none`), "not-found");
    const path = `${directory}/text`;
    Deno.writeFileSync(path, new Uint8Array(2 * MIB).fill(65));
    const error = await refusal(() => openVolumeFile(path), "damaged");
    assert(error.message.includes(path), error.message);
    Deno.writeFileSync(path, new Uint8Array(0));
    await refusal(() => openVolumeFile(path), "damaged");
    const whole = `${directory}/a.vol`;
    await (await createVolumeFile(whole, 2 * MIB)).close();
    Deno.truncateSync(whole, MIB);
    await refusal(() => openVolumeFile(whole), "damaged");
    // Refused ones are not kept open.
    FileStore.open(whole).close();
  }));

/** An origin with two snapshots, and full images of both. */
async function origin(path: string): Promise<{ volume: Volume; first: Bytes; second: Bytes }> {
  const volume = await createVolumeFile(path, 4 * MIB);
  await fill(volume, 1);
  await fill(volume, 2);
  return {
    volume,
    first: await bytesOf(imageOf(volume, "s1")),
    second: await bytesOf(imageOf(volume, "s2")),
  };
}

type Bytes = Uint8Array<ArrayBuffer>;

function incoming(path: string, volume: Volume, name: string): Volume {
  const { volumeId, zone } = volume;
  return openIncoming(path, {
    volumeId,
    capacity: zone.capacity,
    top: volume.resolve(name).id,
  });
}

test("a full image comes into a file of its own and takes the name when it is complete", () =>
  inDirectory(async (directory) => {
    const { volume, first, second } = await origin(`${directory}/origin.vol`);
    const path = `${directory}/site.vol`;
    const one = incoming(path, volume, "s1");
    await applyImage(one, sourceOf(first));
    await one.close();
    assertEquals([exists(path), exists(incomingPath(path))], [false, true]);
    adoptIncoming(path);
    assertEquals([exists(path), exists(incomingPath(path))], [true, false]);
    // The site goes on being read while its successor comes in.
    const site = openVolumeFile(path);
    const two = incoming(path, volume, "s2");
    await applyImage(two, sourceOf(second));
    assertEquals(site.current.name, "s1");
    assertClean(site);
    await two.close();
    adoptIncoming(path);
    await site.close();
    const now = openVolumeFile(path);
    assertEquals(now.current.name, "s2");
    assertClean(now);
    await now.close();
    await volume.close();
  }));

test("a full image that was interrupted goes on in its file", () =>
  inDirectory(async (directory) => {
    const { volume, second } = await origin(`${directory}/origin.vol`);
    const path = `${directory}/site.vol`;
    const half = incoming(path, volume, "s2");
    await assertRejects(() => applyImage(half, sourceOf(second.subarray(0, second.length / 2))));
    await half.close();
    const again = incoming(path, volume, "s2");
    const opened: number[] = [];
    await applyImage(again, {
      open(offset) {
        opened.push(offset);
        return sourceOf(second).open(offset);
      },
      retry: () => Promise.resolve(false),
    });
    assertEquals(opened.length, 2);
    assert(opened[1] >= parseImage(second).frameOffsets[1], `went on at ${opened[1]}`);
    assertClean(again);
    await again.close();
    // Complete, and only its name was not given yet.
    const complete = incoming(path, volume, "s2");
    assertEquals(complete.hasRoot, true);
    await complete.close();
    adoptIncoming(path);
    await openVolumeFile(path).close();
    await volume.close();
  }));

test("a file left by another image, of another size or by chance is made anew", () =>
  inDirectory(async (directory) => {
    const { volume, first, second } = await origin(`${directory}/origin.vol`);
    const path = `${directory}/site.vol`;
    const complete = incoming(path, volume, "s1");
    await applyImage(complete, sourceOf(first));
    await complete.close();
    const makers: (() => void)[] = [
      () => {},
      () => Deno.writeFileSync(incomingPath(path), new Uint8Array(volume.zone.capacity * 4096)),
      () => Deno.writeFileSync(incomingPath(path), new Uint8Array(MIB)),
      () => Deno.writeTextFileSync(incomingPath(path), "by chance"),
    ];
    for (const make of makers) {
      make();
      const anew = incoming(path, volume, "s2");
      assertEquals(anew.hasRoot, false);
      await applyImage(anew, sourceOf(second));
      assertEquals(anew.current.name, "s2");
      assertClean(anew);
      await anew.close();
    }
    const { volumeId } = volume;
    assertThrows(
      () => openIncoming(path, { volumeId, capacity: 10, top: "1-00000000" }),
      VolcastError,
    );
    await volume.close();
  }));
