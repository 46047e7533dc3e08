/**
 * A base image that is only read, and a packed file with what is newer: after each increment, and after
 * a crash at any moment, together they are the source's snapshot, and the file has the difference alone.
 */

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { adoptImage, applyImage, ImageStore, Pieces, piecesOf } from "../../src/image/mod.ts";
import { MemoryStore, OverlayStore, PackedStore } from "../../src/store/mod.ts";
import { trimMirror, Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { mediumOf } from "../helpers/pieces.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { bitsOf, blockAt, imageOf } from "../helpers/replicas.ts";
import { CrashStore } from "../helpers/stores.ts";
import { bytesOf, sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const CAPACITY = 1500;

/** The base as it lies on slow storage. */
interface Base {
  readonly pieces: Pieces;
  readonly blocks: ReadonlyMap<number, Uint8Array>;
  readonly top: string;
}

async function baseOf(history: History, name: string): Promise<Base> {
  const image = imageOf(history.volume, name);
  const bytes = await bytesOf(image);
  const pieces = new Pieces(await piecesOf(mediumOf("base", bytes), () => {}), () => {});
  return { pieces, blocks: parseImage(bytes).blocks, top: image.top.id };
}

async function overlay(base: Base, packed: PackedStore): Promise<OverlayStore> {
  return new OverlayStore(await ImageStore.open([base.pieces]), packed);
}

/** A mirror at its base, as `createMirrorFile` makes it. */
async function mirrorAt(base: Base, packed: PackedStore): Promise<Volume> {
  const volume = Volume.incoming(await overlay(base, packed), base.pieces.header.volumeId);
  await volume.updateLocal((state) => {
    state.base = { top: base.top, path: "base" };
  });
  assertEquals(await adoptImage(volume, base.pieces), base.top);
  return volume;
}

/** Blocks of a snapshot that the base has not, or has with other content. */
function differenceFrom(base: Base, history: History, name: string): number {
  const { volume, store } = history;
  let count = 0;
  for (const vbn of bitsOf(volume, volume.resolve(name))) {
    const before = base.blocks.get(vbn);
    if (before === undefined || !blockAt(store, vbn).every((byte, i) => byte === before[i])) {
      count++;
    }
  }
  return count;
}

/** The source changes, and forgets every snapshot but the last `keep`. */
async function nextSnapshot(history: History, keep: number): Promise<string> {
  await history.change(8);
  await history.churn(1, 60_000);
  const snapshot = await history.snapshot();
  if (snapshot === undefined) throw new Error("there is no room");
  while (history.kept.length > keep) await history.deleteSnapshot(history.kept[0]);
  return snapshot.name;
}

test("an incremental mirror shows each snapshot, and its file has what differs from the base", () =>
  forSeeds(seeds(1, 6), async (random) => {
    const history = await History.begin(new MemoryStore(CAPACITY), random, { writeBytes: 20_000 });
    await history.change(40);
    await history.snapshot();
    const base = await baseOf(history, "s1");
    const packed = PackedStore.create(new MemoryStore(CAPACITY * 2), CAPACITY);
    const mirror = await mirrorAt(base, packed);
    assertEquals(packed.countIn(mirror.zone.data.start, mirror.zone.data.count), 0);
    let before = "s1";
    let used = 0;
    for (let round = 0; round < 8; round++) {
      const top = await nextSnapshot(history, 2);
      const image = imageOf(history.volume, top, before);
      await applyImage(mirror, sourceOfImage(image), { drainMs: 0 });
      await trimMirror(mirror);
      before = top;
      assertClean(mirror);
      assertEquals(mirror.snapshots().map(({ name }) => name), [top]);
      assertEquals(
        describe(mirror.fileSystem(mirror.current), { all: true }),
        history.kept.at(-1)!.all,
      );
      const { start, count } = mirror.zone.data;
      const newer = packed.countIn(start, count);
      const difference = differenceFrom(base, history, top);
      assertEquals(newer, difference);
      used = Math.max(used, newer + image.header.blockCount);
    }
    // Room is used again: the file is never longer than one state and one increment need.
    assert(
      packed.fileBlocks <= used + 60,
      `${packed.fileBlocks} blocks, ${used} were needed at once`,
    );
    await mirror.close();
    await history.close();
  }));

test("an incremental mirror has an old or the new root after a crash at every write and sync", () =>
  forSeeds(seeds(20, 2), async (random) => {
    const history = await History.begin(new MemoryStore(CAPACITY), random, { writeBytes: 20_000 });
    await history.change(40);
    await history.snapshot();
    const base = await baseOf(history, "s1");
    const disk = new CrashStore(new MemoryStore(CAPACITY * 2));
    const packed = PackedStore.create(disk, CAPACITY);
    const mirror = await mirrorAt(base, packed);
    const shown = [history.kept[0].all];
    const acknowledged = [disk.events.length];
    for (let round = 0; round < 4; round++) {
      const top = await nextSnapshot(history, 2);
      const image = imageOf(history.volume, top, mirror.current.name);
      await applyImage(mirror, sourceOfImage(image), { drainMs: 0, recordBytes: 100_000 });
      await trimMirror(mirror);
      shown.push(history.kept.at(-1)!.all);
      acknowledged.push(disk.events.length);
    }
    mirror.abandon();
    await history.close();
    const crashes = new Random(random.seed);
    let states = 0;
    for (let count = acknowledged[0]; count <= disk.events.length; count++) {
      for (let i = 0; i < 6; i++) {
        const found = Volume.open(
          await overlay(base, PackedStore.open(disk.crashed(count, crashes))),
        );
        assertClean(found);
        const lines = describe(found.fileSystem(found.current), { all: true });
        const at = shown.findIndex((one) => JSON.stringify(one) === JSON.stringify(lines));
        const least = acknowledged.findLastIndex((events) => events <= count);
        assert(at === least || at === least + 1, `root ${at} after ${count}, said were ${least}`);
        found.abandon();
        states++;
      }
    }
    assert(states > 300, `${states} states`);
  }));

test("a base that is not whole, or not as it was, is no base", async () => {
  const history = await History.begin(new MemoryStore(CAPACITY), new Random(3));
  await history.change(30);
  await history.snapshot();
  const bytes = await bytesOf(imageOf(history.volume, "s1"));
  const random = new Random(4);
  let refused = 0;
  for (let i = 0; i < 60; i++) {
    const wrong = bytes.slice();
    wrong[random.below(wrong.length)] ^= 1 << random.below(8);
    const packed = PackedStore.create(new MemoryStore(CAPACITY * 2), CAPACITY);
    let adopted: Volume;
    try {
      const pieces = new Pieces(await piecesOf(mediumOf("base", wrong), () => {}), () => {});
      const store = new OverlayStore(await ImageStore.open([pieces]), packed);
      adopted = Volume.incoming(store, pieces.header.volumeId);
      await adoptImage(adopted, pieces);
    } catch (error) {
      assert(error instanceof VolcastError && error.kind === "damaged", String(error));
      refused++;
      continue;
    }
    // A header of a frame, or the end: nothing that the volume is made of.
    const lines = describe(adopted.fileSystem(adopted.current), { all: true });
    assertEquals(lines, history.kept[0].all);
    await adopted.close();
  }
  assert(refused > 50, `${refused} refused`);
  await history.close();
});
