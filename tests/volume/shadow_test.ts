import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  difference,
  equalPlanes,
  hasBit,
  intersection,
  popcount,
  VolcastError,
} from "../../src/core/mod.ts";
import { emptyInode, encodeSnapshots, INO, SHADOW_SLOTS } from "../../src/format/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockTree, fsck, MAX_SNAPSHOTS, Volume, type Writer } from "../../src/volume/mod.ts";
import { STRIPED } from "../helpers/arrangements.ts";
import { assertClean, skipBlocks, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { advance, bitsOf, imageOf, replicaOf } from "../helpers/replicas.ts";
import { checkShadows, type Contents, contentsOf } from "../helpers/shadow_history.ts";
import { copyOf, flipBit } from "../helpers/stores.ts";
import { sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

/** A volume whose snapshots `names` each wrote `blocks` blocks of one file anew. */
async function withSnapshots(
  names: readonly string[],
  { capacity = 3000, blocks = 100 } = {},
): Promise<{ volume: Volume; store: MemoryStore; had: Map<string, Contents> }> {
  const store = new MemoryStore(capacity);
  const volume = await Volume.create(store, { now: tickingClock() });
  const had = new Map<string, Contents>();
  for (const [i, name] of names.entries()) {
    await rewrite(volume, i, blocks);
    const { id } = await volume.exclusive((writer) => writer.takeSnapshot(name));
    had.set(id, contentsOf(store, volume, volume.resolve(id)));
  }
  return { volume, store, had };
}

async function rewrite(volume: Volume, seed: number, blocks: number): Promise<void> {
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    const ino = fs.lookup(2, "file") ?? fs.create(2, "file", { type: "file" });
    fs.write(ino, 0, new Random(seed + 1).bytes(blocks * 4096));
    await writer.checkpoint();
  });
}

function makeShadow(volume: Volume, name: string): ReturnType<Writer["shadowSnapshot"]> {
  return volume.exclusive((writer) => writer.shadowSnapshot(volume.resolve(name).id));
}

function remove(volume: Volume, name: string): Promise<void> {
  return volume.exclusive((writer) => writer.deleteSnapshot(volume.resolveBase(name).id));
}

async function refused(kind: string, says: string, work: () => unknown): Promise<void> {
  const error = await assertRejects(async () => await work(), VolcastError);
  assertEquals(error.kind, kind, error.message);
  assertStringIncludes(`${error.message}. ${error.hint}`, says);
}

const names = (volume: Volume) => volume.snapshots().map(({ name }) => name);
const shadows = (volume: Volume) => volume.shadows().map(({ name }) => name);

test("a shadow keeps its plane and gives its blocks back", async () => {
  const { volume, store, had } = await withSnapshots(["a", "b"]);
  const { id } = volume.resolve("a");
  const plane = bitsOf(volume, volume.resolve("a"));
  const free = volume.freeBlocks;
  const { shadow, released } = await makeShadow(volume, "a");
  assertEquals([shadow.id, shadow.name, shadow.slot], [id, "a", 0]);
  // All of the file was written again since, and with it what leads to it.
  assert(released > 100 && released < 120, `${released} blocks released`);
  assert(Math.abs(volume.freeBlocks - free - released) < 12, "they are free now");
  assertEquals([names(volume), shadows(volume)], [["b"], ["a"]]);
  // What the consistency point took for itself was not of the snapshot: nothing is lost yet.
  const now = volume.shadowPlane(id);
  for (const vbn of plane) assert(hasBit(now, vbn), `VBN ${vbn}`);
  assertEquals(popcount(now), plane.size);
  assertClean(volume);
  // Until the allocator comes around: then the bits go, and with them what they said.
  let reused = 0;
  for (let i = 0; i < 40; i++) {
    await rewrite(volume, 100 + i, 100);
    reused += checkShadows(store, volume, had).reused;
  }
  const left = popcount(volume.shadowPlane(id));
  assert(left < plane.size - 100, `${left} of ${plane.size} left`);
  assert(reused > 90, `${reused} blocks used again`);
  assertClean(volume);
  const { freeBlocks } = volume;
  await volume.close();
  const again = Volume.open(store);
  assertEquals(again.freeBlocks, freeBlocks);
  assertEquals(popcount(again.shadowPlane(id)), left);
  assertEquals(shadows(again), ["a"]);
  again.abandon();
});

test("a shadow's plane is exact while there is room: what did not change need not travel", async () => {
  for (const capacity of [3000, 70_000]) {
    const { volume, store, had } = await withSnapshots(["a"], { capacity });
    const { id } = volume.resolve("a");
    await volume.exclusive(async (writer) => {
      writer.fs.write(writer.fs.resolve("/file"), 40 * 4096, new Uint8Array(20 * 4096).fill(9));
      await writer.takeSnapshot("b");
      await writer.shadowSnapshot(id);
    });
    for (let i = 0; i < 30; i++) {
      await volume.exclusive(async (writer) => {
        const ino = writer.fs.lookup(2, "other") ?? writer.fs.create(2, "other", { type: "file" });
        writer.fs.write(ino, 0, new Random(i).bytes(50 * 4096));
        await writer.takeSnapshot(`c${i}`);
      });
    }
    const { extra, saved } = checkShadows(store, volume, had);
    assertEquals(extra, 0);
    assert(saved > 80 * 30);
    await volume.close();
  }
});

test("a shadow is no snapshot: nothing can be read from it or pointed at it", async () => {
  const { volume } = await withSnapshots(["a", "b"]);
  const { id } = volume.resolve("a");
  await makeShadow(volume, "a");
  for (const ref of ["a", id]) {
    assertEquals(volume.find(ref), undefined);
    assertEquals(volume.findBase(ref)?.id, id);
    assertEquals(volume.resolveBase(ref).name, "a");
    await refused("usage", "is a shadow: its blocks may be used again", () => volume.resolve(ref));
    await refused("usage", "can only be the base of an image", () => volume.view(ref));
  }
  await refused("usage", "shadow", () => volume.exclusive((one) => one.setPointer("master", id)));
  await refused("nothing", "already", () => volume.exclusive((one) => one.shadowSnapshot(id)));
  await refused("not-found", "There are: b", () => volume.resolveBase("c"));
  await refused(
    "not-found",
    "There are: b",
    () => volume.exclusive((writer) => writer.shadowSnapshot("77-00000000")),
  );
  // Names and room in the table are common to both.
  await refused("exists", "'a'", () => volume.exclusive((one) => one.takeSnapshot("a")));
  await refused(
    "exists",
    "'a'",
    () => volume.exclusive((one) => one.setPointer("a", volume.resolve("b").id)),
  );
  // A root that was made before knows it as what it was.
  const error = assertThrows(() => volume.shadowPlane(id, volume.resolve("b")), VolcastError);
  assertEquals(error.kind, "not-found");
  await volume.close();
});

test("MAX_SNAPSHOTS counts shadows too", async () => {
  const { volume } = await withSnapshots(["a", "b"]);
  await makeShadow(volume, "a");
  await volume.exclusive(async (writer) => {
    const record = { ...volume.resolve("b"), cp: 1 };
    const many = Array.from(
      { length: MAX_SNAPSHOTS - 1 },
      (_, i) => ({ ...record, name: `n${i}` }),
    );
    const [shadow] = volume.shadows();
    writer.fs.writeMetafile(INO.snapshots, encodeSnapshots([shadow, ...many]));
    const error = await assertRejects(() => writer.takeSnapshot("one-more"), VolcastError);
    assertEquals(error.kind, "full");
  });
  volume.abandon();
});

test("pointers forbid a shadow, sites do not; a site forbids to delete either kind", async () => {
  const { volume } = await withSnapshots(["a", "b"]);
  const [a, b] = volume.snapshots();
  await volume.updateLocal(({ sites }) => {
    sites["paris"] = { snapshot: a.id, needs: [] };
    sites["rome"] = { snapshot: b.id, needs: [a.id] };
  });
  await volume.exclusive((writer) => writer.setPointer("stable", a.id));
  await refused("held", "pointer 'stable'", () => makeShadow(volume, "a"));
  await volume.exclusive((writer) => writer.setPointer("stable", b.id));
  await refused("held", "volcast snapshot shadow", () => remove(volume, "a"));
  await makeShadow(volume, "a");
  await refused("held", "the shadow 'a': the site 'paris'", () => remove(volume, "a"));
  await volume.updateLocal((local) => {
    local.sites = {};
  });
  await remove(volume, "a");
  assertEquals([names(volume), shadows(volume)], [["b"], []]);
  assertClean(volume);
  await volume.close();
});

test("without a shadow there is no file of them, before and after", async () => {
  const { volume, store } = await withSnapshots(["a", "b", "c"]);
  const mode = () => volume.fileSystem(volume.current).readInode(INO.shadows).mode;
  assertEquals(mode(), 0);
  const used = volume.root.blockCount;
  await makeShadow(volume, "a");
  await makeShadow(volume, "b");
  assert(mode() !== 0);
  assertEquals(volume.root.blockCount, used + 2, "a page of plane for each");
  await remove(volume, "a");
  assertEquals(volume.root.blockCount, used + 1);
  assertClean(volume);
  await remove(volume, "b");
  assertEquals([mode(), volume.root.blockCount], [0, used]);
  assertClean(volume);
  await volume.close();
  const again = Volume.open(store);
  assertClean(again);
  await makeShadow(again, "c");
  assertClean(again);
  again.abandon();
});

test("when all slots are taken, the two oldest shadows share one", async () => {
  const all = Array.from({ length: SHADOW_SLOTS + 3 }, (_, i) => `s${i}`);
  const { volume, store, had } = await withSnapshots([...all, "top"], { blocks: 20 });
  // Not in order of age: what counts is which are the oldest.
  for (const name of ["s3", "s0", "s4", "s1", "s2", "s5"]) await makeShadow(volume, name);
  const planes = ["s0", "s1"].map((name) =>
    bitsOf(volume, { ...volume.current, ...volume.resolveBase(name) })
  );
  await makeShadow(volume, "s6");
  const slotOf = (name: string) => volume.shadows().find((shadow) => shadow.name === name)!.slot;
  assertEquals(slotOf("s0"), slotOf("s1"));
  assertEquals(new Set(volume.shadows().map(({ slot }) => slot)).size, SHADOW_SLOTS);
  const both = planes[0].intersection(planes[1]);
  const merged = volume.shadowPlane(volume.resolveBase("s0").id);
  assertEquals(popcount(merged), both.size);
  for (const vbn of both) assert(hasBit(merged, vbn));
  assert(equalPlanes(merged, volume.shadowPlane(volume.resolveBase("s1").id)));
  await makeShadow(volume, "s7");
  assertEquals(slotOf("s2"), slotOf("s0"));
  assertEquals(shadows(volume), all.slice(0, 8));
  assertClean(volume);
  // A slot is empty only when the last one in it went.
  await remove(volume, "s0");
  assertEquals(slotOf("s1"), slotOf("s2"));
  const left = popcount(volume.shadowPlane(volume.resolveBase("s1").id));
  assert(left > 0 && left <= both.size, `${left} blocks`);
  await remove(volume, "s2");
  await remove(volume, "s1");
  await makeShadow(volume, "s8");
  assertEquals(new Set(volume.shadows().map(({ slot }) => slot)).size, SHADOW_SLOTS);
  let reused = 0;
  for (let i = 0; i < 40; i++) {
    await rewrite(volume, 100 + i, 90);
    reused += checkShadows(store, volume, had).reused;
  }
  assert(reused > 90, `${reused} blocks used again`);
  assertClean(volume);
  await volume.close();
});

test("who reads a snapshot that becomes a shadow goes on, until its blocks are needed", async () => {
  const { volume } = await withSnapshots(["a", "b"], { capacity: 800 });
  const view = volume.view("a");
  const expected = new Random(1).bytes(4096);
  const read = () => {
    const block = new Uint8Array(4096);
    view.fs.read(view.fs.resolve("/file"), 0, block);
    return block;
  };
  await makeShadow(volume, "a");
  assertEquals(read(), expected);
  await rewrite(volume, 50, 100);
  assertEquals(read(), expected);
  const ended = async () => {
    for (let i = 0; i < 20; i++) {
      assertEquals(read(), expected);
      await rewrite(volume, 60 + i, 100);
    }
  };
  const error = await assertRejects(ended, VolcastError);
  assertEquals(error.kind, "busy");
  assertClean(volume);
  await volume.close();
});

test("a full volume can make shadows, and writes on with them", async () => {
  const { volume, store, had } = await withSnapshots(["a", "b", "c", "d", "e", "f", "g"], {
    capacity: 900,
  });
  const fill = async () => {
    for (let i = 0;; i++) {
      try {
        await rewrite(volume, 1000 + i, 100);
        await volume.exclusive((writer) => writer.takeSnapshot(`full${i}-${volume.root.cp}`));
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "full", String(error));
        return;
      }
    }
  };
  await fill();
  for (const name of ["a", "b", "c", "d", "e", "f", "g"]) {
    const free = volume.freeBlocks;
    await makeShadow(volume, name);
    assertEquals(volume.poisoned, undefined);
    assert(volume.freeBlocks > free + 50, `${volume.freeBlocks} after ${free}`);
    await fill();
    for (const snapshot of volume.snapshots()) {
      if (!had.has(snapshot.id)) had.set(snapshot.id, contentsOf(store, volume, snapshot));
    }
    checkShadows(store, volume, had);
    assertClean(volume);
  }
  await volume.close();
});

test("the planes of shadows are the same at every node that has the root", async () => {
  const { volume } = await withSnapshots(["a", "b"]);
  const replica = await replicaOf(volume, "a");
  await advance(replica.volume, volume, "b");
  assertEquals(names(replica.volume), ["a", "b"]);
  const { id } = volume.resolve("a");
  await makeShadow(volume, "a");
  for (const name of ["c", "d"]) {
    for (let i = 0; i < 3; i++) await rewrite(volume, 100 + i, 100);
    await volume.exclusive((writer) => writer.takeSnapshot(name));
    await advance(replica.volume, volume, name);
    // What the root calls a shadow is none to read at the replica either.
    assertEquals([names(replica.volume)[0], shadows(replica.volume)], ["b", ["a"]]);
    const here = volume.shadowPlane(id, volume.resolve(name));
    assert(equalPlanes(replica.volume.shadowPlane(id), here));
    assert(popcount(here) > 0);
    assertClean(replica.volume);
  }
  await volume.close();
  await replica.volume.close();
});

test("local changes use blocks of shadows again, and fsck knows whose shadows say so", async () => {
  for (const breaks of [false, true]) {
    const { volume: origin } = await withSnapshots(["a", "b"], { capacity: 600 });
    // It has the blocks of what becomes a shadow, and its store forgets none.
    const { store, disks } = STRIPED.create(600);
    const replica = Volume.incoming(store, origin.volumeId);
    await applyImage(replica, sourceOfImage(imageOf(origin, "a")));
    await makeShadow(origin, "a");
    await origin.exclusive((writer) => writer.takeSnapshot("c"));
    await advance(replica, origin, "c");
    await replica.close();
    const site = Volume.open(STRIPED.open(disks), { localWrites: true, now: tickingClock() });
    const before = site.shadowPlane(site.shadows()[0].id);
    const here = site.plane(site.current);
    if (breaks) {
      await site.exclusive(({ space }) => {
        space.shadows!.clear = () => {};
      });
    }
    const usedAgain = () =>
      popcount(intersection(difference(before, here), site.plane(site.active)));
    for (let i = 0; i < 100 && usedAgain() <= 10; i++) await rewrite(site, 50 + i, 20);
    assert(usedAgain() > 10, `${usedAgain()} blocks are used again`);
    const findings = fsck(site).findings.map(({ snapshot, problem }) => `${snapshot}: ${problem}`);
    // The shadow of what was applied has them still: it is about the parent's blocks.
    if (!breaks) assertEquals(findings, []);
    else assertMatch(findings[0], /^active: .*[Tt]he shadow 'a'/);
    await site.close();
    await origin.close();
  }
});

test("a plane that cannot be read is neither deleted nor made a shadow, and nothing is lost", async () => {
  const { volume, store } = await withSnapshots(["a", "b", "c"], { capacity: 100_000 });
  // Blocks of "b" alone on a page of plane of their own, which is then damaged.
  await volume.exclusive(({ fs }) => {
    fs.write(fs.create(2, "near", { type: "file" }), 0, new Random(7).bytes(4096 * 30));
  });
  await skipBlocks(volume, 70_000);
  await volume.exclusive(async (writer) => {
    const { fs } = writer;
    fs.write(fs.create(2, "far", { type: "file" }), 0, new Random(8).bytes(4096 * 30));
    await writer.takeSnapshot("d");
    fs.remove(2, "far");
    fs.remove(2, "near");
    fs.remove(2, "file");
    await writer.takeSnapshot("e");
  });
  const { vbn } = volume.plane(volume.resolve("d")).tree.pointer(2);
  await volume.close();
  flipBit(store, vbn, 77);
  const damaged = Volume.open(store);
  const summary = () =>
    damaged.exclusive(({ space }) =>
      [0, 1, 2, 3].map((index) => space.summary.block(index).slice())
    );
  const before = await summary();
  await refused("damaged", `VBN ${vbn}`, () => remove(damaged, "d"));
  await refused("damaged", `VBN ${vbn}`, () => makeShadow(damaged, "d"));
  assertEquals(await summary(), before);
  await damaged.checkpoint();
  assertEquals([names(damaged), shadows(damaged)], [["a", "b", "c", "d", "e"], []]);
  await makeShadow(damaged, "a");
  assertEquals(shadows(damaged), ["a"]);
  damaged.abandon();
});

/** A volume with a shadow that has lost blocks, into which a fault is then committed. */
async function withFault(make: (writer: Writer, volume: Volume) => void): Promise<string> {
  const { volume, store } = await withSnapshots(["a", "b", "c"]);
  await makeShadow(volume, "a");
  await rewrite(volume, 9, 50);
  assertClean(volume);
  await volume.exclusive(async (writer) => {
    writer.fs.create(2, "touched", { type: "file" });
    make(writer, volume);
    await writer.checkpoint();
  });
  // At the latest when the allocator comes around.
  for (let i = 0; i < 40 && fsck(volume).clean; i++) await rewrite(volume, 20 + i, 90);
  const { clean, findings } = fsck(volume);
  assertEquals(clean, false);
  volume.abandon();
  const found = Volume.open(copyOf(store));
  assertEquals(fsck(found).findings, findings);
  found.abandon();
  return findings.map(({ problem }) => problem).join("\n");
}

const page = ({ space }: Writer, slot: number) => space.shadows!.tree.writableBlock(slot);

const FAULTS: Record<string, [make: (writer: Writer, volume: Volume) => void, says: string]> = {
  "a block that was used again and has its bit": [
    ({ space }) => {
      space.shadows!.clear = () => {};
    },
    "was used again, and the shadow 'a' still has it",
  ],
  "a newer root in a shadow": [
    (writer, volume) => {
      const { vbn } = volume.resolve("c").root;
      page(writer, 0)[vbn >> 3] |= 1 << (vbn & 7);
    },
    "the root of 'c', which is newer",
  ],
  "a bit in the local zone": [(writer) => void (page(writer, 0)[0] |= 4), "blocks 2 to 2"],
  "a bit behind the volume": [
    (writer) => void (page(writer, 0)[3000 >> 3] |= 1),
    "blocks 3000 to 3000, outside",
  ],
  "a page in a slot that no shadow has": [
    (writer) => void (page(writer, 3)[100] = 1),
    "slot 3, which no shadow has",
  ],
  "a missing file": [
    ({ fs, space }, { io }) => {
      space.detachShadows();
      const free = emptyInode();
      fs.storeInode(INO.shadows, free, new BlockTree(io, 0, free.slots));
    },
    "There are shadows, and no file",
  ],
  "a file too many": [
    ({ fs }, volume) => fs.writeMetafile(INO.snapshots, encodeSnapshots(volume.snapshots())),
    "There is a file of shadow planes, and no shadow",
  ],
  "a file of another size": [
    ({ fs, space }) => {
      fs.storeInode(INO.shadows, { ...fs.readInode(INO.shadows), size: 5 }, space.shadows!.tree);
    },
    "5 bytes and height 1, should have 24576 and 1",
  ],
};

for (const [what, [make, says]] of Object.entries(FAULTS)) {
  test(`fsck finds ${what}`, async () => {
    assertStringIncludes(await withFault(make), says);
  });
}
