import { assert, assertEquals, assertRejects } from "@std/assert";
import { crc32 } from "node:zlib";
import { difference, runsOf, VolcastError } from "../../src/core/mod.ts";
import { encodeStreamHeader } from "../../src/format/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume, type Writer } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { forgeImage, type ParsedImage, parseImage } from "../helpers/parse_image.ts";
import { forSeeds, type Random, seeds } from "../helpers/random.ts";
import {
  assertRefuses,
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

function refuse({ replica }: Scene, forged: Uint8Array, what: string): Promise<void> {
  return assertRefuses(replica, forged, what);
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

test("applyImage refuses an image that reaches into the local zone or over the superblocks", async () => {
  await forSeeds(seeds(15, 2), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    const { zone } = here.history.volume;
    const places = [0, 1, 2, ...zone.localSlots.map(({ start }) => start), zone.data.start - 1];
    for (const vbn of [...places, 1500, 40_000, 2 ** 32 - 1]) {
      const more = new Map(blocks).set(vbn, random.bytes(4096));
      await refuse(here, forgeImage(header, more, deallocated), `with VBN ${vbn}`);
    }
    for (const vbn of [0, 66, 1500, 2 ** 32 - 1]) {
      const gone = [...deallocated.filter((other) => other !== vbn), vbn];
      await refuse(here, forgeImage(header, blocks, gone), `VBN ${vbn} deallocated`);
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});

test("applyImage refuses an index whose runs are not in order", async () => {
  await forSeeds(seeds(17, 2), async (random) => {
    const here = await scene(random);
    const { header, blocks, deallocated } = here.parsed;
    const arrangements: Record<string, (runs: [number, number][]) => [number, number][]> = {
      "turned around": (runs) => runs.toReversed(),
      "one of them twice": ([first, , ...rest]) => [first, first, ...rest],
      "one inside another": ([[start, count], , ...rest]) => [[start, count], [start, 1], ...rest],
      "an empty one": ([first, , ...rest]) => [[first[0] - 1, 0], first, ...rest],
      "one over the edge of a page": ([, ...rest]) => [...rest, [32_767, 2]],
      "one that wraps around": ([, ...rest]) => [...rest, [2 ** 32 - 1, 5]],
    };
    for (const [what, arrange] of Object.entries(arrangements)) {
      await refuse(here, forgeImage(header, blocks, deallocated, { arrange }), what);
    }
    await here.history.close();
    await here.replica.volume.close();
  });
});

/** A parent whose block map is not what its root reaches, which only a defect of its own can bring. */
async function lyingParent(
  random: Random,
  lie: (writer: Writer, vbn: number) => void,
): Promise<Scene & { vbn: number }> {
  const history = await History.begin(new MemoryStore(1500), random);
  await history.change(20);
  const first = await history.snapshot();
  const replica = await replicaOf(history.volume, first!.id);
  let vbn = 0;
  await history.volume.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "lie", { type: "file" });
    writer.fs.write(ino, 0, random.bytes(9000));
    vbn = writer.fs.open(ino).tree.pointer(1).vbn;
    lie(writer, vbn);
    await writer.takeSnapshot("lying");
  });
  const parsed = parseImage(unchecked(history.volume, "lying", first!.id));
  return { history, replica, parsed, base: new Set(), vbn };
}

/** An image as a sender makes it that does not look at what it sends. */
function unchecked(volume: Volume, top: string, base: string): Uint8Array<ArrayBuffer> {
  const { header } = imageOf(volume, top, base);
  const [planeOfTop, planeOfBase] = [top, base].map((ref) => volume.plane(volume.resolve(ref)));
  const blocks = new Map<number, Uint8Array>();
  for (const { start, count } of runsOf(difference(planeOfTop, planeOfBase))) {
    for (let vbn = start; vbn < start + count; vbn++) {
      const block = new Uint8Array(4096);
      volume.io.store.read(vbn, block);
      blocks.set(vbn, block);
    }
  }
  const deallocated: number[] = [];
  for (const { start, count } of runsOf(difference(planeOfBase, planeOfTop))) {
    for (let i = 0; i < count; i++) deallocated.push(start + i);
  }
  return forgeImage(encodeStreamHeader(header), blocks, deallocated);
}

test("applyImage refuses a root whose plane is not what it reaches", async () => {
  await forSeeds(seeds(70, 2), async (random) => {
    const leaking = await lyingParent(random, ({ space }) => void space.allocate());
    const { header, blocks, deallocated } = leaking.parsed;
    await refuse(leaking, forgeImage(header, blocks, deallocated), "a block nobody reaches");

    const forgetful = await lyingParent(random, ({ space }, vbn) => {
      space.detachWorkingPage();
      space.map.writableBlock(0)[vbn >> 3] &= ~(1 << (vbn & 7));
    });
    const { parsed, vbn } = forgetful;
    assert(!parsed.blocks.has(vbn));
    await refuse(
      forgetful,
      forgeImage(parsed.header, parsed.blocks, parsed.deallocated),
      "a block that the plane has not",
    );
    const block = new Uint8Array(4096);
    forgetful.history.store.read(vbn, block);
    await refuse(
      forgetful,
      forgeImage(parsed.header, new Map(parsed.blocks).set(vbn, block), parsed.deallocated),
      "that block, sent all the same",
    );
    for (const { history, replica } of [leaking, forgetful]) {
      history.volume.abandon();
      await replica.volume.close();
    }
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
      "unsupported: version": (view) => view.setUint32(8, 2, true),
      "unsupported: flags": (view) => view.setUint32(12, 4, true),
      "a shadow without its state": (view) => view.setUint32(12, 1, true),
      "a state without a shadow": (view) => view.setBigUint64(666, 3n, true),
      "a fragment with a base": (view) => view.setUint32(12, 2, true),
      "terms that are not there": (view) => view.setUint32(658, 1, true),
      "terms without end": (view) => view.setUint32(658, 2 ** 32 - 1, true),
      "checksum of no terms": (view) => view.setUint32(662, 1, true),
      "diverged: volume id": (view) => view.setUint8(20, view.getUint8(20) ^ 1),
      "block size": (view) => view.setUint32(32, 8192, true),
      "unsupported: order": (view) => view.setUint32(36, 1, true),
      "diverged: capacity": (view) => view.setBigUint64(40, 1501n, true),
      "capacity too large": (view) => view.setBigUint64(40, 2n ** 33n, true),
      "diverged: data start": (view) => view.setBigUint64(48, 60n, true),
      "top CP": (view) => view.setBigUint64(56, 99n, true),
      "top VBN": (view) => view.setUint32(64, [...blocks.keys()][0], true),
      "top VBN in the base": (view) => view.setUint32(64, [...here.base][0], true),
      "top VBN outside": (view) => view.setUint32(64, 5000, true),
      "top checksum": (view) => view.setUint32(68, view.getUint32(68, true) ^ 1, true),
      "diverged: base CP": (view) => view.setBigUint64(337, 99n, true),
      "diverged: no base": (view) => view.setBigUint64(337, 0n, true),
      "diverged: base checksum": (view) => view.setUint32(349, view.getUint32(349, true) ^ 1, true),
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
      const forged = forgeImage(header, blocks, deallocated, { change: lie });
      const error = await assertRejects(
        () => applyImage(target.volume, sourceOf(forged)),
        VolcastError,
        undefined,
        what,
      );
      const [kind] = what.includes(":") ? what.split(":") : ["damaged"];
      assertEquals(error.kind, kind, what);
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
