import { assert, assertEquals, assertRejects } from "@std/assert";
import { crc32 } from "node:zlib";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { forgeImage, type ParsedImage, parseImage } from "../helpers/parse_image.ts";
import { forSeeds, type Random, seeds } from "../helpers/random.ts";
import {
  assertUnchanged,
  imageOf,
  reachedFrom,
  type Replica,
  replicaOf,
  stateOf,
} from "../helpers/replicas.ts";
import { copyOf } from "../helpers/stores.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

interface Scene {
  readonly history: History;
  readonly replica: Replica;
  readonly parsed: ParsedImage;
  readonly base: Set<number>;
}

async function scene(random: Random): Promise<Scene> {
  const history = await History.begin(new MemoryStore(1500), random, { writeBytes: 30_000 });
  for (let i = 0; i < 2; i++) {
    await history.change(25);
    await history.snapshot();
  }
  const [first, second] = history.kept.map(({ id }) => id);
  const replica = await replicaOf(history.volume, first);
  const image = imageOf(history.volume, second, first);
  const base = reachedFrom(history.volume, history.volume.resolve(first));
  return { history, replica, parsed: parseImage(await bytesOf(image)), base };
}

async function refuse(
  { replica }: Scene,
  forged: Uint8Array,
  what: string,
): Promise<void> {
  const store = copyOf(replica.store);
  const target: Replica = { store, volume: Volume.open(store) };
  const before = stateOf(target.volume);
  const error = await assertRejects(
    () => applyImage(target.volume, sourceOf(forged)),
    VolcastError,
    undefined,
    what,
  );
  assert(["damaged", "diverged"].includes(error.kind), `${what}: ${error.message}`);
  assertUnchanged(target, before);
  target.volume.abandon();
}

test("a forged image that is not forged is taken: the forger tells the truth otherwise", async () => {
  await forSeeds(seeds(1, 3), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    const bytes = forgeImage(header, blocks, deallocated);
    parseImage(bytes);
    const applied = await applyImage(here.replica.volume, sourceOf(bytes));
    assertEquals(applied.top, here.history.kept[1].id);
    await here.history.close();
    await here.replica.volume.close();
  });
});

test("applyImage refuses a well-formed image that lies, before the flip", async () => {
  await forSeeds(seeds(10, 4), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    const vbns = [...blocks.keys()];

    for (const vbn of vbns) {
      const fewer = new Map(blocks);
      fewer.delete(vbn);
      await refuse(here, forgeImage(header, fewer, deallocated), `without VBN ${vbn}`);
    }
    for (let i = 0; i < 30; i++) {
      const vbn = random.between(here.history.volume.zone.data.start, 1499);
      if (blocks.has(vbn)) continue;
      const more = new Map(blocks).set(vbn, random.bytes(4096));
      await refuse(here, forgeImage(header, more, deallocated), `with VBN ${vbn}`);
      await refuse(
        here,
        forgeImage(header, new Map(blocks).set(vbn, new Uint8Array(4096)), deallocated),
        `with VBN ${vbn}, empty`,
      );
    }
    for (const vbn of vbns) {
      const block = blocks.get(vbn)!.slice();
      block[random.below(4096)] ^= 1 << random.below(8);
      const altered = new Map(blocks).set(vbn, block);
      await refuse(here, forgeImage(header, altered, deallocated), `VBN ${vbn} altered`);
    }
    // Two blocks in each other's place.
    for (let i = 0; i < 20; i++) {
      const [a, b] = [random.pick(vbns), random.pick(vbns)];
      if (a === b || crc32(blocks.get(a)!) === crc32(blocks.get(b)!)) continue;
      const swapped = new Map(blocks).set(a, blocks.get(b)!).set(b, blocks.get(a)!);
      await refuse(here, forgeImage(header, swapped, deallocated), `VBN ${a} and ${b} swapped`);
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});

test("applyImage refuses an image over a block of the current snapshot", async () => {
  await forSeeds(seeds(20, 2), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    for (const vbn of here.base) {
      const over = new Map(blocks).set(vbn, random.bytes(4096));
      await refuse(here, forgeImage(header, over, deallocated), `over VBN ${vbn}`);
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});

test("applyImage refuses headers that lie", async () => {
  await forSeeds(seeds(30, 2), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    const lies: Record<string, (view: DataView) => void> = {
      "version": (view) => view.setUint32(8, 2, true),
      "flags": (view) => view.setUint32(12, 1, true),
      "volume id": (view) => view.setUint8(20, view.getUint8(20) ^ 1),
      "block size": (view) => view.setUint32(32, 8192, true),
      "order": (view) => view.setUint32(36, 1, true),
      "capacity": (view) => view.setBigUint64(40, 1501n, true),
      "capacity too large": (view) => view.setBigUint64(40, 2n ** 33n, true),
      "data start": (view) => view.setBigUint64(48, 60n, true),
      "top CP": (view) => view.setBigUint64(56, 99n, true),
      "top VBN": (view) => view.setUint32(64, [...blocks.keys()][0], true),
      "top VBN in the base": (view) => view.setUint32(64, [...here.base][0], true),
      "top VBN outside": (view) => view.setUint32(64, 5000, true),
      "top checksum": (view) => view.setUint32(68, view.getUint32(68, true) ^ 1, true),
      "base CP": (view) => view.setBigUint64(337, 99n, true),
      "no base": (view) => view.setBigUint64(337, 0n, true),
      "base checksum": (view) => view.setUint32(349, view.getUint32(349, true) ^ 1, true),
      "block count": (view) => view.setBigUint64(618, 1n, true),
      "run count": (view) => view.setBigUint64(626, 1n << 40n, true),
      "deallocated count": (view) => view.setBigUint64(634, 1n << 40n, true),
      "frame count": (view) => view.setBigUint64(642, 1n << 31n, true),
      "byte count": (view) => view.setBigUint64(650, 1n, true),
      "reserved": (view) => view.setUint8(800, 1),
    };
    for (const [what, lie] of Object.entries(lies)) {
      const store = copyOf(here.replica.store);
      const target: Replica = { store, volume: Volume.open(store) };
      const before = stateOf(target.volume);
      const forged = forgeImage(header, blocks, deallocated, lie);
      await assertRejects(
        () => applyImage(target.volume, sourceOf(forged)),
        VolcastError,
        undefined,
        what,
      );
      assertUnchanged(target, before);
      target.volume.abandon();
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});

test("applyImage refuses a forged full image, and the volume still has no root", async () => {
  await forSeeds(seeds(40, 2), async (random) => {
    const here = await scene(random);
    const { volume } = here.history;
    const { header, blocks } = parseImage(
      await bytesOf(imageOf(volume, here.history.kept[1].id)),
    );
    const vbns = [...blocks.keys()];
    for (let i = 0; i < 40; i++) {
      const forged = new Map(blocks);
      const vbn = random.pick(vbns);
      if (i % 3 === 0) forged.delete(vbn);
      else if (i % 3 === 1) forged.set(random.between(1400, 1499), random.bytes(4096));
      else forged.set(vbn, random.bytes(4096));
      if (forged.size === blocks.size && i % 3 === 1) continue;
      const target = Volume.incoming(new MemoryStore(1500), volume.volumeId);
      await assertRejects(
        () => applyImage(target, sourceOf(forgeImage(header, forged, []))),
        VolcastError,
      );
      assertEquals(target.hasRoot, false);
      await target.close();
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});
