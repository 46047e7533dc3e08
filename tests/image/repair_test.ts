/**
 * Blocks that rot at random places, and come back from another node: found all, healed all, nothing else
 * touched, nothing else fetched.
 */

import { assert, assertEquals } from "@std/assert";
import {
  type BadBlock,
  badBlocks,
  type BlockSource,
  type CheckedRoot,
  healFrom,
  rootsOf,
} from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume, walkRoot } from "../../src/volume/mod.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { relative } from "../helpers/relatives.ts";
import { advance, bitsOf, replicaOf } from "../helpers/replicas.ts";
import { forgeImage, parseImage } from "../helpers/parse_image.ts";
import { copyOf, flipBit } from "../helpers/stores.ts";
import { streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

function look(store: MemoryStore, roots: readonly CheckedRoot[]): Map<number, BadBlock> {
  const steps = badBlocks(store, roots);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** An origin with a history, and a replica that holds some of it. */
async function pair(random: Random): Promise<{ history: History; store: MemoryStore }> {
  const history = await History.begin(new MemoryStore(1200), random, { writeBytes: 30_000 });
  await history.change(50);
  await history.snapshot();
  const replica = await replicaOf(history.volume, "s1");
  for (const name of ["s2", "s3"]) {
    await history.change(10);
    await history.snapshot();
    await advance(replica.volume, history.volume, name);
  }
  replica.volume.abandon();
  return { history, store: replica.store };
}

test("bits that are flipped anywhere are found, and healed by just these blocks", () =>
  forSeeds(seeds(1, 12), async (random) => {
    const { history, store } = await pair(random);
    const intact = copyOf(store);
    const before = Volume.open(store, { now: tickingClock() });
    const roots = rootsOf(before);
    const used = [...new Set(before.snapshots().flatMap((one) => [...bitsOf(before, one)]))];
    before.abandon();
    const flipped = new Set<number>();
    for (let i = random.between(1, 40); i > 0; i--) flipped.add(random.pick(used));
    for (const vbn of flipped) flipBit(store, vbn, random.below(4096 * 8));
    const { source, asked } = relative(history.volume);
    const patient = {
      heal: ({ vbn }: { vbn: number }, bytes: Uint8Array) => store.write(vbn, bytes),
      syncHealed: () => store.sync(),
    };
    const healed = new Set<number>();
    for (let round = 0; healed.size < flipped.size; round++) {
      assert(round < 20, `${healed.size} of ${flipped.size} in ${round} rounds`);
      const bad = [...look(store, roots).values()];
      for (const { vbn } of bad) assert(flipped.has(vbn), `VBN ${vbn} is as it was`);
      for (const vbn of await healFrom(patient, bad, source)) healed.add(vbn);
    }
    assertEquals(look(store, roots).size, 0);
    assertEquals(asked.sort((a, b) => a - b), [...flipped].sort((a, b) => a - b));
    for (const [vbn, block] of intact.blocks) assertEquals(store.blocks.get(vbn), block);
    const found = Volume.open(store, { now: tickingClock() });
    assertClean(found);
    found.abandon();
    await history.close();
  }));

test("an origin is healed by a replica, as far as that has what is bad", async () => {
  const { history, store } = await pair(new Random(30));
  const replica = Volume.open(store, { now: tickingClock() });
  const { volume } = history;
  await history.change(10);
  await history.checkpoint();
  const old = bitsOf(volume, volume.resolve("s3"));
  const active = bitsOf(volume, volume.current);
  const shared = [...active].filter((vbn) => old.has(vbn)).slice(-1)[0];
  const own = [...active].filter((vbn) => !old.has(vbn)).slice(-1)[0];
  for (const vbn of [shared, own]) flipBit(history.store, vbn, 77);
  const bad = look(history.store, rootsOf(volume));
  assertEquals([...bad.keys()].sort((a, b) => a - b), [shared, own].sort((a, b) => a - b));
  // The active file system is nobody else's; what it shares with a snapshot is asked for under that.
  const { source } = relative(replica);
  assertEquals(await healFrom(volume, [...bad.values()], source), [shared]);
  assertEquals([...look(history.store, rootsOf(volume)).keys()], [own]);
  replica.abandon();
  volume.abandon();
});

test("what is not as the pointer says is not written, whoever gives it", async () => {
  const { history, store } = await pair(new Random(40));
  const replica = Volume.open(store, { now: tickingClock() });
  const roots = rootsOf(replica);
  const content: number[] = [];
  walkRoot(replica.io, replica.current.root, ({ vbn }, use, ino) => {
    if (use === "content" && ino > 15) content.push(vbn);
    return true;
  });
  const vbns = content.sort((a, b) => a - b).slice(-6);
  for (const vbn of vbns) flipBit(store, vbn, 5);
  const bad = [...look(store, roots).values()];
  assertEquals(bad.length, vbns.length);
  // Other blocks than were asked for, and of another snapshot.
  const { source } = relative(history.volume);
  const liar: BlockSource = (root, wanted) =>
    source(root, wanted.map((vbn) => vbns[(vbns.indexOf(vbn) + 1) % vbns.length]));
  const older: BlockSource = (_, wanted) => source(history.volume.resolve("s1"), wanted);
  // Other bytes in the right places, in a stream of which every checksum is right.
  const forger: BlockSource = async (root, wanted) => {
    const bytes = new Uint8Array(await new Response(await source(root, wanted)).arrayBuffer());
    const { header, blocks } = parseImage(bytes);
    const changed = new Map(
      [...blocks].map(([vbn, block]) => [vbn, block.map((byte) => byte ^ 1)]),
    );
    return streamOf(forgeImage(header, changed, []));
  };
  const patient = {
    heal: (): never => {
      throw new Error("nothing was to be written");
    },
    syncHealed: () => Promise.resolve(),
  };
  assertEquals(await healFrom(patient, bad, forger), []);
  const healedByLiar = await healFrom(replica, bad.slice(0, 1), liar);
  assertEquals(healedByLiar, []);
  assertEquals(await healFrom(replica, bad, older).catch(() => []), []);
  assertEquals(look(store, roots).size, vbns.length);
  // A node on which one of them is bad too gives the others.
  const twin = await replicaOf(history.volume, "s3");
  flipBit(twin.store, vbns[2], 9);
  const healed = await healFrom(replica, bad, relative(Volume.open(twin.store)).source);
  assertEquals(healed.sort((a, b) => a - b), vbns.filter((vbn) => vbn !== vbns[2]));
  replica.abandon();
  await history.close();
});
