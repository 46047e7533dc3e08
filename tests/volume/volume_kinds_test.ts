// Volumes that are no plain files: packed, striped, on block devices.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { popcount, sum } from "../../src/core/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { FileStore, INCOMING, openStore, type PackedStore } from "../../src/store/mod.ts";
import {
  adoptIncoming,
  createVolumeFile,
  exists,
  incomingPath,
  openIncoming,
  openInPlace,
  openVolumeFile,
  removeIncoming,
  storeFiles,
  type StoreKind,
  type Volume,
  volumeFileInfo,
} from "../../src/volume/mod.ts";
import { inDirectory } from "../helpers/cli.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean } from "../helpers/history.ts";
import { deviceTest, withDevice } from "../helpers/loop_devices.ts";
import { Random } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { fill as fillUpTo, refusal } from "../helpers/volume_files.ts";

const MIB = 2 ** 20;

const fill = (volume: Volume, seed: number) => fillUpTo(volume, seed, 200_000);

const linesOf = (volume: Volume) => describe(volume.fileSystem(volume.current), { all: true });

/** Paths of a volume of each kind. */
function pathOf(directory: string, kind: StoreKind, name: string): string {
  return kind === "striped"
    ? ["a", "b", "c"].map((member) => `${directory}/${name}.${member}`).join(",")
    : `${directory}/${name}`;
}

for (const kind of ["packed", "striped"] as const) {
  test(`a ${kind} volume is made, written, closed and opened by every name it has`, () =>
    inDirectory(async (directory) => {
      const path = pathOf(directory, kind, "site.vol");
      assertEquals(exists(path), false);
      const volume = await createVolumeFile(path, 64 * MIB, { kind });
      await fill(volume, 1);
      const lines = linesOf(volume);
      const { capacity } = volume.zone;
      await volume.close();
      assertEquals(exists(path), true);
      for (const name of [path, ...path.split(",")]) {
        assertEquals(storeFiles(name), { kind, files: path.split(",") });
        const again = openVolumeFile(name);
        assertEquals([again.zone.capacity, linesOf(again)], [capacity, lines]);
        assertClean(again);
        const busy = await refusal(() => openVolumeFile(name), "busy", /./);
        assert(busy.message.includes(`process ${Deno.pid} `), busy.message);
        again.noteOwner("http://127.0.0.1:7");
        await refusal(() => openVolumeFile(path), "busy", /serves it at http:\/\/127.0.0.1:7/);
        await again.close();
      }
      const info = volumeFileInfo(path);
      assert(info.kind === kind && (info.allocatedBytes ?? 0) < 4 * MIB);
      assertEquals(info.bytes < 4 * MIB, kind === "packed");
      await refusal(() => createVolumeFile(path, MIB, { kind }), "exists", /exists already/);
    }));

  test(`a full image of a ${kind} volume takes its place when it is complete, and not before`, () =>
    inDirectory(async (directory) => {
      const origin = await createVolumeFile(`${directory}/origin.vol`, 16 * MIB);
      await fill(origin, 1);
      await fill(origin, 2);
      const image = (name: string) => ({
        volumeId: origin.volumeId,
        capacity: origin.zone.capacity,
        top: origin.resolve(name).id,
      });
      const path = pathOf(directory, kind, "site.vol");
      const first = openIncoming(path, image("s1"), { packed: kind === "packed" });
      await applyImage(first, sourceOf(await bytesOf(imageOf(origin, "s1"))));
      await first.close();
      assertEquals([exists(path), exists(incomingPath(path))], [false, true]);
      adoptIncoming(path);
      assertEquals([exists(path), exists(incomingPath(path))], [true, false]);

      // By any of its names; it stays of its kind.
      const name = path.split(",").at(-1)!;
      const site = openVolumeFile(name);
      const bytes = await bytesOf(imageOf(origin, "s2"));
      const half = openIncoming(name, image("s2"));
      await assertRejects(() => applyImage(half, sourceOf(bytes.subarray(0, bytes.length - 5000))));
      await half.close();
      const second = openIncoming(name, image("s2"));
      assert(second.local.transfer !== undefined, "it does not go on where it was");
      await applyImage(second, sourceOf(bytes));
      assertEquals([site.current.name, second.current.name], ["s1", "s2"]);
      await second.close();
      // Complete, and only the name is missing.
      const complete = openIncoming(name, image("s2"));
      assertEquals(complete.hasRoot, true);
      await complete.close();
      adoptIncoming(name);
      assertClean(site);
      await site.close();
      const now = openVolumeFile(name);
      assertEquals([now.current.name, storeFiles(name).kind], ["s2", kind]);
      assertEquals(linesOf(now), linesOf(origin));
      assertClean(now);
      await now.close();

      const another = openIncoming(path, image("s1"));
      await another.close();
      removeIncoming(path);
      assertEquals(exists(incomingPath(path)), false);
      await origin.close();
    }));
}

test("a stripe that was found between two renames of its members is made whole", () =>
  inDirectory(async (directory) => {
    const origin = await createVolumeFile(`${directory}/origin.vol`, 16 * MIB);
    await fill(origin, 1);
    await fill(origin, 2);
    const path = pathOf(directory, "striped", "site");
    const files = path.split(",");
    const place = async (name: string, adopt: () => void) => {
      const incoming = openIncoming(path, {
        volumeId: origin.volumeId,
        capacity: origin.zone.capacity,
        top: origin.resolve(name).id,
      });
      await applyImage(incoming, sourceOf(await bytesOf(imageOf(origin, name))));
      await incoming.close();
      adopt();
    };
    for (let renamed = 0; renamed <= 3; renamed++) {
      for (const opened of [path, ...files]) {
        for (const file of files) if (exists(file)) Deno.removeSync(file);
        await place("s1", () => adoptIncoming(path));
        // The power goes after the first few.
        await place("s2", () => {
          for (const file of files.slice(0, renamed)) Deno.renameSync(file + INCOMING, file);
        });
        const found = openVolumeFile(opened);
        assertEquals(found.current.name, renamed === 0 ? "s1" : "s2", `${renamed} ${opened}`);
        assertClean(found);
        await found.close();
        assertEquals(files.map((file) => exists(file + INCOMING)), files.map(() => renamed === 0));
        removeIncoming(path);
      }
    }
    // While somebody is at it, nobody else is.
    await place("s1", () => Deno.renameSync(files[0] + INCOMING, files[0]));
    const held = FileStore.open(files[1] + INCOMING);
    await refusal(() => openVolumeFile(files[2]), "busy", /site.b.incoming/);
    held.close();
    const found = openVolumeFile(files[2]);
    assertEquals(found.current.name, "s1");
    await found.close();
    await origin.close();
  }));

test("members that are missing, swapped, foreign or cut off are named", () =>
  inDirectory(async (directory) => {
    const [site, other] = ["site", "other"].map((name) => pathOf(directory, "striped", name));
    for (const path of [site, other]) {
      await (await createVolumeFile(path, 4 * MIB, { kind: "striped" })).close();
    }
    const [a, b, c] = site.split(",");
    const away = `${b}.away`;
    Deno.renameSync(b, away);
    await refusal(() => openVolumeFile(a), "not-found", /member 2 of 3, .*site\.b, is not there/);
    await openVolumeFile(`${a},${away},${c}`).close();
    await refusal(() => openVolumeFile(`${a},${c}`), "damaged", /2 members are given, it has 3/);
    Deno.copyFileSync(other.split(",")[1], b);
    await refusal(() => openVolumeFile(c), "damaged", /site\.b belongs to the stripe/);
    Deno.renameSync(c, b);
    Deno.renameSync(away, c);
    await refusal(() => openVolumeFile(a), "damaged", /site\.b is member 3 of 3.*\n.*a,.*c,.*b$/);
    const inOrder = openVolumeFile(`${a},${c},${b}`);
    assertClean(inOrder);
    await inOrder.close();
    Deno.truncateSync(c, MIB);
    await refusal(() => openVolumeFile(`${a},${c},${b}`), "damaged", /site\.c: it has 256 blocks/);
    Deno.writeFileSync(c, new Uint8Array(2 * MIB));
    await refusal(() => openVolumeFile(`${a},${c},${b}`), "damaged", /site\.c: it is no member/);
    Deno.writeFileSync(a, new Uint8Array(4096).fill(1), { append: false });
    await refusal(() => openVolumeFile(a), "damaged", /no valid superblock/);
    // Nothing is kept open or locked by what was refused.
    for (const file of [a, b, c]) FileStore.open(file).close();
  }));

test("a stripe over several directories is found from any of them", () =>
  inDirectory(async (directory) => {
    const files = ["x", "y"].map((name) => {
      Deno.mkdirSync(`${directory}/${name}`);
      return `${directory}/${name}/part`;
    });
    await (await createVolumeFile(files.join(","), 4 * MIB, { kind: "striped" })).close();
    for (const file of files) await openVolumeFile(file).close();
  }));

test("what cannot be a stripe is refused, and leaves nothing behind", () =>
  inDirectory(async (directory) => {
    const create = (path: string) => createVolumeFile(path, 4 * MIB, { kind: "striped" });
    await refusal(() => create(`${directory}/a`), "usage", /1 members are given, the least is 2/);
    await refusal(() => create(`${directory}/a,${directory}/a`), "usage", /given twice/);
    await refusal(() => create(`${directory}/a,`), "usage", /has no name/);
    const many = Array.from({ length: 17 }, (_, i) => `${directory}/${i}`);
    await refusal(() => create(many.join(",")), "usage", /17 members are given.*the most 16/);
    const long = Array.from({ length: 16 }, (_, i) => `${directory}/${i}${"n".repeat(250)}`);
    await refusal(() => create(long.join(",")), "usage", /the limit is 3968/);
    Deno.writeTextFileSync(`${directory}/c`, "mine");
    await refusal(
      () => create(`${directory}/a,${directory}/b,${directory}/c`),
      "exists",
      /c: it exists already/,
    );
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["c"]);
    // A name with a comma is a name where such a file is.
    await (await createVolumeFile(`${directory}/x,y`, 4 * MIB)).close();
    await openVolumeFile(`${directory}/x,y`).close();
  }));

test("a packed file that was cut off, or lost both headers, is refused", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/site.vol`;
    const volume = await createVolumeFile(path, 64 * MIB, { kind: "packed" });
    await fill(volume, 1);
    await volume.close();
    const whole = Deno.readFileSync(path);
    Deno.truncateSync(path, whole.length - 4096);
    await refusal(() => openVolumeFile(path), "damaged", /site\.vol.* are in use, it has only/);
    Deno.writeFileSync(path, whole.map((byte, i) => i > 100 && i < 8192 ? byte ^ 1 : byte));
    await refusal(() => openVolumeFile(path), "damaged", /site\.vol.*no valid header/);
    Deno.writeFileSync(path, whole);
    const again = openVolumeFile(path);
    assertClean(again);
    await again.close();
  }));

/** Blocks that a packed file has. */
function liveBlocks(path: string): number {
  const store = openStore(path) as PackedStore;
  store.close();
  return store.liveBlocks;
}

test("a packed origin gives up what it does not use any more when it is opened", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/site.vol`;
    const random = new Random(1);
    const volume = await createVolumeFile(path, 256 * MIB, { kind: "packed" });
    const ino = await volume.exclusive(({ fs }) => fs.create(2, "file", { type: "file" }));
    for (let round = 0; round < 30; round++) {
      await volume.exclusive(async (writer) => {
        writer.fs.write(ino, 0, random.bytes(100_000));
        await writer.checkpoint();
      });
    }
    const lines = linesOf(volume);
    await volume.close();
    assert(liveBlocks(path) > 30 * 25);
    const again = openVolumeFile(path);
    assertEquals(linesOf(again), lines);
    assertClean(again);
    // Durable with the next change, whatever it is.
    await fill(again, 1);
    const used = again.current.blockCount;
    await again.close();
    const live = liveBlocks(path);
    assert(live < used + 30, `${live} blocks for ${used}`);
    const last = openVolumeFile(path);
    assertClean(last);
    await last.close();
  }));

test("a packed replica gives up what its snapshots have not, after each image", () =>
  inDirectory(async (directory) => {
    const { origin, image } = await releases(directory);
    const path = `${directory}/site.vol`;
    const site = openIncoming(path, image("s2"), { packed: true });
    await applyImage(site, sourceOf(await bytesOf(imageOf(origin, "s2"))));
    // A reader of the first release holds its blocks; the parent forgets it.
    const reader = site.view("s2");
    for (let round = 3; round < 9; round++) {
      await origin.exclusive(({ fs }) => {
        for (const { name } of [...fs.list(2)]) fs.remove(2, name);
      });
      await fill(origin, round);
      const old = origin.resolve(`s${round - 1}`).id;
      const bytes = await bytesOf(imageOf(origin, `s${round}`, old));
      await applyImage(site, sourceOf(bytes));
      await origin.exclusive((writer) => writer.deleteSnapshot(old));
    }
    assertEquals(describe(reader.fs, { all: true }).length > 5, true);
    reader.release();
    await fill(origin, 9);
    await applyImage(site, sourceOf(await bytesOf(imageOf(origin, "s9", "s8"))));
    await site.updateLocal(() => {});
    assertClean(site);
    const planes = site.snapshots().map((snapshot) => site.plane(snapshot));
    const used = popcount(sum(...planes));
    await site.close();
    const live = liveBlocks(incomingPath(path));
    assert(live > used && live < used + 10, `${live} blocks for ${used}`);
    await origin.close();
  }));

/** An origin with two snapshots and their images. */
async function releases(directory: string): Promise<
  { origin: Volume; image: (name: string) => { volumeId: string; capacity: number; top: string } }
> {
  const origin = await createVolumeFile(`${directory}/origin.vol`, 16 * MIB);
  await fill(origin, 1);
  await fill(origin, 2);
  return {
    origin,
    image: (name) => ({
      volumeId: origin.volumeId,
      capacity: origin.zone.capacity,
      top: origin.resolve(name).id,
    }),
  };
}

deviceTest(
  "a device takes a volume in place; what is on it counts until it may not",
  (directory) =>
    withDevice(directory, "disk", 20 * MIB, async ({ node }) => {
      const { origin, image } = await releases(directory);
      const first = await bytesOf(imageOf(origin, "s1"));
      const second = await bytesOf(imageOf(origin, "s2"));
      const blockCount = imageOf(origin, "s2").header.blockCount;
      for (const packed of [false, true]) {
        const options = { packed, blockCount, overwrite: packed };
        const volume = await openInPlace(node, image("s1"), options);
        await assertRejects(() =>
          applyImage(volume, sourceOf(first.subarray(0, first.length - 5000)))
        );
        await volume.close();
        await refusal(() => openVolumeFile(node), "damaged", /no valid superblock/);
        // Of this image there is a half, which is gone on with; any other needs a word.
        await refusal(
          () => openInPlace(node, image("s2"), { ...options, overwrite: false }),
          "exists",
          /the device is not empty.*\n.*--overwrite/,
        );
        const again = await openInPlace(node, image("s1"), { ...options, overwrite: false });
        assert(again.local.transfer !== undefined);
        await applyImage(again, sourceOf(first));
        await again.close();
        const found = openVolumeFile(node);
        assertEquals([found.current.name, storeFiles(node).kind], [
          "s1",
          packed ? "packed" : "plain",
        ]);
        assertClean(found);
        await refusal(
          () => openInPlace(node, image("s2"), { ...options, overwrite: true }),
          "busy",
          /./,
        );
        await found.close();
        await refusal(() => openIncoming(node, image("s2")), "unsupported", /volcast copy SOURCE/);
        assertEquals(exists(node + INCOMING), false);

        let other = await openInPlace(node, image("s2"), { ...options, overwrite: true });
        // From this moment on there is no volume on it that could be taken for one.
        assertEquals([other.hasRoot, other.local.transfer], [false, undefined]);
        other.abandon();
        await refusal(() => openVolumeFile(node), "damaged", /no valid superblock/);
        other = await openInPlace(node, image("s2"), { ...options, overwrite: true });
        await applyImage(other, sourceOf(second));
        await other.close();
        const now = openVolumeFile(node);
        assertEquals(now.current.name, "s2");
        assertEquals(linesOf(now), linesOf(origin));
        assertClean(now);
        await now.close();
        assertEquals(volumeFileInfo(node).bytes, 20 * MIB);
      }
      await origin.close();
    }),
);

deviceTest(
  "a device that is too small says so, and takes what fits when packed",
  (directory) =>
    withDevice(directory, "disk", 6 * MIB, async ({ node }) => {
      const { origin, image } = await releases(directory);
      const { blockCount } = imageOf(origin, "s2").header;
      await refusal(
        () => openInPlace(node, image("s2"), { blockCount }),
        "full",
        /it has 1536 blocks, the volume has 4096\n.*--packed/,
      );
      await refusal(
        () => openInPlace(node, image("s2"), { blockCount: 1600, packed: true }),
        "full",
        /it has 1536 blocks, the image and the map of it need 1\d\d\d/,
      );
      const volume = await openInPlace(node, image("s2"), { blockCount, packed: true });
      await applyImage(volume, sourceOf(await bytesOf(imageOf(origin, "s2"))));
      assertClean(volume);
      await volume.close();
      await origin.close();
    }),
);
