import { assert, assertEquals } from "@std/assert";
import { BitPlane, difference, equalPlanes, type Plane } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { joined, Marks, type Snapshot, Volume } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { forSeeds, type Random, seeds } from "../helpers/random.ts";
import { FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

const PAGES = 3;

/** What a mirror knows: where it stands, with the plane of it, kept apart from the volume. */
interface Follower {
  marks: Marks;
  base: { id: string; plane: Plane } | undefined;
}

function planeOf(volume: Volume, snapshot: Snapshot): BitPlane {
  return BitPlane.copyOf(volume.plane(snapshot));
}

function assertPlane(found: Plane, expected: Plane, what: string): void {
  assert(equalPlanes(found, expected), what);
}

async function attach(volume: Volume, followers: readonly Follower[]): Promise<void> {
  await volume.exclusive(({ space }) => {
    for (const { marks } of followers) space.marks.add(marks);
  });
}

/** One mirror takes a snapshot; what its marks say is compared with the difference of the planes. */
async function transfer(history: History, follower: Follower, random: Random): Promise<boolean> {
  const { marks, base } = follower;
  const kept = await history.snapshot({ taken: ({ id }) => marks.turn(id) });
  if (kept === undefined) return false;
  const { volume } = history;
  const top = volume.resolve(kept.id);
  const plane = planeOf(volume, top);
  let compared = false;
  if (base !== undefined) {
    compared = marks.between(base.id, top.id) !== undefined;
    if (!compared) marks.rebuild(base, { id: top.id, plane });
    const change = marks.between(base.id, top.id)!;
    assertPlane(change.allocated, difference(plane, base.plane), "marked on allocate");
    assertPlane(change.deallocated, difference(base.plane, plane), "marked on deallocate");
  }
  // A transfer that fails leaves the other end where it was.
  if (base === undefined || !random.oneIn(3)) {
    marks.confirmed(top.id);
    follower.base = { id: top.id, plane };
  }
  return compared;
}

test("Marks are exactly the difference of the planes, over random lives with heavy reuse", async () => {
  let compared = 0;
  await forSeeds(seeds(1, 12), async (random) => {
    const blocks = random.pick([700, 1500, 70_000]);
    const history = await History.begin(new MemoryStore(blocks), random, { writeBytes: 90_000 });
    const pages = Math.ceil(blocks / 32768);
    const newFollower = () => ({ marks: new Marks(pages), base: undefined });
    const followers: Follower[] = [newFollower(), newFollower(), newFollower()];
    let { volume } = history;
    await attach(volume, followers);
    for (let step = 0; step < 70; step++) {
      // Snapshots are deleted among these steps, those that mirrors stand on as well.
      await history.step();
      if (random.oneIn(4)) await history.churn(2, 120_000);
      if (random.oneIn(6)) await history.skip(random.between(100, 40_000));
      if (history.volume !== volume) {
        // A new process: the marks are gone, and are rebuilt by logical difference.
        volume = history.volume;
        for (const follower of followers) follower.marks = new Marks(pages);
        await attach(volume, followers);
      }
      if (random.oneIn(2) && await transfer(history, random.pick(followers), random)) compared++;
      if (history.kept.length > 6) await history.deleteSnapshot(history.kept[0]);
    }
    history.check();
    await history.close();
  });
  assert(compared > 200, `${compared} compared`);
});

test("Marks that are joined are those of the whole way", async () => {
  await forSeeds(seeds(1, 20), (random) => {
    const plane = () => {
      const bits = new BitPlane(PAGES);
      for (let i = 0; i < 40; i++) bits.setRun(random.below(PAGES * 32768 - 99), random.below(99));
      return bits;
    };
    const change = (from: Plane, to: Plane) => ({
      allocated: difference(to, from),
      deallocated: difference(from, to),
    });
    // Also where blocks of the first come back in the last: nothing is assumed of what is kept.
    const [a, b] = [plane(), plane()];
    const c = BitPlane.copyOf(b);
    c.add(difference(a, plane()));
    const whole = joined(change(a, b), change(b, c));
    assertPlane(whole.allocated, difference(c, a), "allocated");
    assertPlane(whole.deallocated, difference(a, c), "deallocated");
  });
});

test("Marks say nothing of snapshots they do not know, and what waits for the next one", async () => {
  const volume = await Volume.create(new MemoryStore(4096));
  const marks = new Marks(1);
  assertEquals([marks.since, marks.waitingBlocks, marks.byteCount], [undefined, 0, 0]);
  const take = (name: string) =>
    volume.exclusive((writer) => {
      writer.space.marks.add(marks);
      return writer.takeSnapshot(name, { taken: ({ id }) => marks.turn(id) });
    });
  const first = await take("s1");
  const write = () =>
    volume.exclusive(({ fs }) => {
      const ino = fs.lookup(INO.root, "file") ?? fs.create(INO.root, "file", { type: "file" });
      fs.write(ino, 0, crypto.getRandomValues(new Uint8Array(60_000)));
    });
  assertEquals(marks.between(first.id, first.id), undefined);
  await write();
  assert(marks.waitingBlocks >= 15);
  assert(marks.byteCount > 0 && marks.byteCount <= 4 * 4096);
  const second = await take("s2");
  assertEquals(marks.between(second.id, first.id), undefined);
  assert(marks.between(first.id, second.id) !== undefined);
  // Not confirmed: the next one leads from the first, and a confirmation of another changes nothing.
  await write();
  const third = await take("s3");
  marks.confirmed(second.id);
  assertEquals(marks.between(second.id, third.id), undefined);
  const change = marks.between(first.id, third.id)!;
  assertPlane(change.allocated, difference(volume.plane(third), volume.plane(first)), "joined");
  marks.confirmed(third.id);
  assertEquals(marks.between(first.id, third.id), undefined);
  await volume.close();
});

test("choosing with marks reads no block, and a snapshot and its deletion as many in a large volume as in a small one", async () => {
  const reads: { choose: number; tick: number }[] = [];
  for (const blocks of [2 ** 18, 2 ** 24, 2 ** 28]) {
    const store = new FaultStore(new MemoryStore(blocks));
    const volume = await Volume.create(store, { cacheBytes: 0 });
    const marks = new Marks(blocks / 32768);
    // Full planes: every page of the first 32 GiB, or of all there is.
    await volume.exclusive(async (writer) => {
      writer.space.marks.add(marks);
      for (let page = 0; page < Math.min(256, blocks / 32768 - 1); page++) {
        writer.space.allocateRun(32768);
      }
      writer.fs.create(INO.root, "file", { type: "file" });
      await writer.checkpoint();
    });
    const tick = (name: string) =>
      volume.exclusive(async (writer) => {
        writer.fs.write(writer.fs.lookup(INO.root, "file")!, 0, new TextEncoder().encode(name));
        return await writer.takeSnapshot(name, { taken: ({ id }) => marks.turn(id) });
      });
    const [first, second] = [await tick("s1"), await tick("s2")];
    marks.confirmed(second.id);
    store.counts.read = 0;
    const third = await tick("s3");
    await volume.exclusive((writer) => writer.deleteSnapshot(first.id));
    const ticked = store.counts.read;
    store.counts.read = 0;
    const change = marks.between(second.id, third.id)!;
    assert([...change.allocated.pages()].length <= 3);
    assertEquals(store.counts.read, 0);
    reads.push({ choose: store.counts.read, tick: ticked });
    assertPlane(change.allocated, difference(volume.plane(third), volume.plane(second)), "chosen");
    await volume.close();
  }
  const [small, ...larger] = reads.map(({ tick }) => tick);
  // Trees of planes get one level higher, not wider.
  for (const count of larger) {
    assert(count <= small * 3, `${larger} reads, ${small} in a small one`);
  }
});
