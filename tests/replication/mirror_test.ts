/**
 * Mirroring in one process: everything but HTTP is real, and the line can be made bad.
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { isMirrorSnapshot, Mirror, selectImage } from "../../src/replication/mod.ts";
import { createVolumeFile, Marks } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { MirrorPair } from "../helpers/mirrors.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

test("Mirror sends a full image, then increments, then nothing; one snapshot is kept", async () => {
  await using pair = await MirrorPair.make();
  const { mirror, line } = pair;
  assertEquals(mirror.status.lagBlocks, undefined);
  await pair.change(["a", "b", "c"]);
  const first = await mirror.round();
  assertEquals(first.kind, "full");
  await pair.assertSame();
  const names = new Set<string>();
  for (let round = 0; round < 5; round++) {
    await pair.change(["b"]);
    assert((mirror.status.lagBlocks ?? 0) >= 13);
    const result = await pair.sent();
    assertEquals(result.kind, "increment");
    assert(result.blocks < 40, `${result.blocks} blocks for a file of 13`);
    names.add(result.name);
    await pair.assertSame();
    assertEquals(pair.snapshots(), [result.name]);
    const { id } = pair.volume.resolve(result.name);
    assertEquals(pair.volume.local.sites.paris.snapshot, id);
    // Its own snapshots are no reason for another round.
    const before = line.images.length;
    for (let i = 0; i < 3; i++) assertEquals((await mirror.round()).kind, "nothing");
    assertEquals([line.images.length, mirror.status.lagBlocks], [before, 0]);
  }
  assertEquals(names.size, 5);
  assert([...names].every(isMirrorSnapshot));
  assertEquals(mirror.status.failures, 0);
  // Four planes of one page at most, for a volume of 8192 blocks: a page is for 32,768.
  assert(mirror.status.markBytes > 0 && mirror.status.markBytes <= 4 * 4096);
  // The base is held, and who holds it is named.
  const error = await assertRejects(
    () => pair.volume.exclusive((w) => w.deleteSnapshot(pair.volume.snapshots()[0].id)),
    VolcastError,
    "the site 'paris' stands on it",
  );
  assertEquals(error.kind, "held");
});

test("Mirror sees pointers and snapshots of users as changes, and no other mirror's", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"]);
  await pair.mirror.round();
  const other = await MirrorPair.make();
  await using _other = other;
  const second = new Mirror(pair.source, other.line, { name: "rome" });
  assertEquals((await second.round()).kind, "full");
  for (let i = 0; i < 3; i++) {
    assertEquals((await pair.mirror.round()).kind, "nothing");
    assertEquals((await second.round()).kind, "nothing");
  }
  const { id } = await pair.volume.exclusive((w) => w.takeSnapshot("june5"));
  assertEquals((await pair.mirror.round()).kind, "increment");
  await pair.volume.exclusive((w) => w.setPointer("stable", id));
  assertEquals((await pair.mirror.round()).kind, "increment");
  assertEquals((await second.round()).kind, "increment");
  // A change of the root directory's own attributes alone.
  await pair.volume.exclusive((w) => w.fs.setAttributes(INO.root, { permissions: 0o711 }));
  await pair.volume.checkpoint();
  assertEquals((await pair.mirror.round()).kind, "increment");
  assertEquals((await pair.mirror.round()).kind, "nothing");
  // Sites that pull do not get what a mirror takes for itself.
  assertEquals(selectImage(pair.volume, {}).top.name, "june5");
  await pair.assertSame();
});

test("Mirror chooses by marks alone, and rebuilds them only after a restart", async () => {
  const { rebuild } = Marks.prototype;
  let rebuilt = 0;
  Marks.prototype.rebuild = function (...args): void {
    rebuilt++;
    rebuild.apply(this, args);
  };
  try {
    await using pair = await MirrorPair.make();
    const expectSent = async (rebuilds: number) => {
      await pair.change(["a"]);
      await pair.sent();
      assertEquals(rebuilt, rebuilds);
    };
    for (let i = 0; i < 4; i++) await expectSent(0);
    pair.line.loseNext = true;
    await pair.change(["a"]);
    await assertRejects(() => pair.mirror.round(), VolcastError, "got lost");
    await expectSent(0);
    await pair.restartSource("at once");
    for (let i = 0; i < 3; i++) await expectSent(1);
    await pair.crashStandby();
    await expectSent(1);
    await pair.assertSame();
  } finally {
    Marks.prototype.rebuild = rebuild;
  }
});

test("Mirror chooses by the planes themselves after an image that was refused", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"]);
  await pair.sent();
  await pair.change(["a"]);
  // Marks that miss a block, as they never should.
  await pair.volume.exclusive(({ fs, space }) => {
    const { tree } = fs.open(fs.lookup(INO.root, "a")!);
    for (const marks of space.marks) marks.freed(tree.pointer(3).vbn);
  });
  const error = await assertRejects(() => pair.mirror.round(), VolcastError);
  assertEquals(error.kind, "damaged");
  assertEquals((await pair.sent()).kind, "increment");
  await pair.assertSame();
  await pair.change(["a"]);
  await pair.sent();
  await pair.assertSame();
});

test("Mirror sends only the newest after a transfer that outlasted many changes", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a", "b", "c", "d"], 400_000);
  await pair.mirror.round();
  await pair.change(["a", "b", "c"], 400_000);
  let changes = 0;
  let refused: string | undefined;
  pair.line.onCall = async () => {
    if (pair.mirror.status.phase !== "sending" || changes++ >= 8) return;
    await pair.change(["late"]);
    // What is on its way is held, too.
    const { id } = pair.volume.snapshots().at(-1)!;
    await pair.volume.exclusive((w) => w.deleteSnapshot(id)).catch((e) => refused = e.kind);
  };
  const slow = await pair.sent();
  assertEquals(refused, "held");
  assert(slow.kind === "increment" && changes > 3, `${changes} changes`);
  pair.line.onCall = () => {};
  const before = pair.line.images.length;
  const next = await pair.sent();
  assertEquals([next.base, pair.line.images.length], [slow.top, before + 1]);
  await pair.assertSame();
  assertEquals(
    describe(pair.standby.volume.fileSystem(pair.standby.volume.current), { all: true }),
    describe(pair.volume.fileSystem(pair.volume.current), { all: true }),
  );
});

test("Mirror goes on where it was cut, at the very byte", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"], 3_000_000);
  pair.line.partBytes = 1_000_000;
  pair.line.cuts = [700_001, 123_457, 1, 999_999];
  let cuts = 0;
  pair.line.onCut = () => void cuts++;
  for (let i = 0; i < 4; i++) {
    const error = await assertRejects(() => pair.mirror.round(), VolcastError, "the line is cut");
    assertEquals(error.kind, "io");
  }
  assertEquals([cuts, pair.mirror.status.failures], [4, 4]);
  const result = await pair.sent();
  assert(result.kind === "full" && result.resumed);
  // No byte went twice.
  assertEquals(pair.line.bytes, result.bytes);
  assertEquals(pair.snapshots().length, 1);
  await pair.assertSame();

  // An increment too, while the source changes on; and what came before the standby ended is kept.
  await pair.change(["a"], 3_000_000);
  pair.line.cuts = [999_999, 500_001];
  pair.line.bytes = 0;
  await assertRejects(() => pair.mirror.round(), VolcastError, "the line is cut");
  await pair.change(["b"]);
  await assertRejects(() => pair.mirror.round(), VolcastError, "the line is cut");
  await pair.standby.receiver!.stop();
  await pair.standby.volume.close();
  pair.startStandby();
  assertEquals(pair.standby.receiver!.position().coming?.state, "kept");
  const increment = await pair.sent();
  assert(increment.kind === "increment" && increment.resumed);
  // The front goes again, with what of the first part comes along.
  assert(
    pair.line.bytes <= increment.bytes + 2_000_000,
    `${pair.line.bytes} of ${increment.bytes}`,
  );
  assertEquals((await pair.sent()).resumed, false);
  await pair.assertSame();
});

test("Mirror joins what was marked before and after a transfer that failed", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a", "b"], 400_000);
  await pair.mirror.round();
  const base = pair.standby.volume.current.id;
  for (const name of ["a", "b", "c"]) {
    await pair.change([name], 200_000);
    // Cut in the header: nothing is kept, so the next round sends what is newest.
    pair.line.cuts = [100];
    await assertRejects(() => pair.mirror.round(), VolcastError, "the line is cut");
    await pair.standby.receiver!.stop();
    await pair.standby.volume.close();
    pair.startStandby();
    assert(pair.snapshots().length <= 3, pair.snapshots().join());
  }
  const result = await pair.sent();
  assert(result.kind === "increment" && !result.resumed);
  assertEquals(result.base, base);
  await pair.assertSame();
  assertEquals(pair.snapshots().length, 1);
});

test("Mirror finds out that a confirmation was lost, and goes on incrementally", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"]);
  pair.line.loseNext = true;
  await assertRejects(() => pair.mirror.round(), VolcastError, "got lost");
  assertEquals((await pair.mirror.round()).kind, "nothing");
  await pair.change(["a"]);
  pair.line.loseNext = true;
  await assertRejects(() => pair.mirror.round(), VolcastError, "got lost");
  // A new process knows it from the standby alone.
  await pair.restartSource("in order");
  await pair.change(["b"]);
  const result = await pair.sent();
  assert(result.kind === "increment" && result.blocks < 40);
  await pair.assertSame();
  assertEquals(pair.snapshots().length, 1);
});

test("Mirror survives crashes of both ends, cuts and lost confirmations, and never sends all again", async () => {
  await forSeeds(seeds(1, 6), async (random) => {
    await using pair = await MirrorPair.make(8 * 2 ** 20);
    const names = ["a", "b", "c", "d", "e", "f"];
    await pair.change(names, 100_000);
    await pair.mirror.round();
    const known = new Map<string, string[]>();
    const remember = () => {
      for (const snapshot of [...pair.volume.snapshots(), pair.volume.current]) {
        if (known.has(snapshot.id)) continue;
        known.set(snapshot.id, describe(pair.volume.fileSystem(snapshot), { all: true }));
      }
    };
    for (let round = 0; round < 25; round++) {
      // A volume of 2,000 blocks: what is written comes around again and again.
      await pair.change([random.pick(names), random.pick(names)], random.between(1000, 200_000));
      if (random.oneIn(6)) await pair.change(names, 60_000);
      pair.line.partBytes = random.between(30_000, 300_000);
      const trouble = random.below(8);
      pair.line.onCut = () => {};
      pair.line.cuts = [];
      pair.line.loseNext = trouble === 0;
      const cutAt = () => {
        const parts = Array.from({ length: random.below(4) }, () => Infinity);
        pair.line.cuts = [...parts, random.below(pair.line.partBytes)];
      };
      if (trouble === 1) cutAt();
      if (trouble === 2) {
        cutAt();
        pair.line.onCut = () => pair.crashStandby();
      }
      if (trouble === 3) {
        cutAt();
        pair.line.onCut = remember;
      }
      const failed = await pair.mirror.round().then(() => false, (error) => {
        assert(error instanceof VolcastError && ["io", "busy"].includes(error.kind), String(error));
        return true;
      });
      remember();
      assert(pair.snapshots().length <= 3, pair.snapshots().join());
      if (trouble === 3 && failed || trouble === 4) await pair.restartSource("at once");
      if (trouble === 5) await pair.crashStandby();
      const { volume } = pair.standby;
      const shown = describe(volume.fileSystem(volume.current), { all: true });
      assertEquals(shown, known.get(volume.current.id), "what the standby shows");
    }
    pair.line.cuts = [];
    pair.line.loseNext = false;
    pair.line.onCut = () => {};
    for (let left = 3; (await pair.mirror.round()).kind !== "nothing"; left--) assert(left > 0);
    await pair.assertSame();
    assertEquals(pair.snapshots().length, 1);
    assertEquals(
      describe(pair.standby.volume.fileSystem(pair.standby.volume.current), { all: true }),
      describe(pair.volume.fileSystem(pair.volume.current), { all: true }),
    );
    const fulls = pair.line.images.filter(({ base }) => base === undefined);
    assertEquals(fulls.length, 1, "full images");
  });
});

test("Mirror says what to do when the standby stands on something unknown, and repairs it when told", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"]);
  await pair.mirror.round();
  // The base is forgotten here.
  const base = pair.volume.snapshots()[0];
  await pair.source.forget("paris");
  await pair.volume.exclusive((w) => w.deleteSnapshot(base.id));
  await pair.change(["b"]);
  const error = await assertRejects(() => pair.mirror.round(), VolcastError, base.id);
  assertEquals(error.kind, "diverged");
  assertStringIncludes(error.hint, "--full");
  assertEquals(pair.mirror.status.error, error.message);
  pair.startMirror({ full: true });
  assertEquals((await pair.mirror.round()).kind, "full");
  await pair.assertSame();
  // Once: from here on as ever.
  await pair.change(["c"]);
  assertEquals((await pair.mirror.round()).kind, "increment");
  await pair.assertSame();

  await using other = await MirrorPair.make();
  await other.change(["x"]);
  const foreign = new Mirror(other.source, pair.line);
  const wrong = await assertRejects(() => foreign.round(), VolcastError, "it has volume");
  assertEquals(wrong.kind, "diverged");
  assertEquals(other.snapshots(), []);
});

test("Mirror refuses a standby that was promoted, or that is in a newer line of history", async () => {
  await using pair = await MirrorPair.make();
  await pair.change(["a"]);
  await pair.mirror.round();
  const told = { ...pair.standby.receiver!.position() };
  for (
    const [change, text] of [
      [{ role: "origin" }, "it is an origin now"],
      [{ epoch: 2 }, "line of history 2"],
    ] as const
  ) {
    const mirror = new Mirror(pair.source, {
      name: "other",
      position: () => Promise.resolve({ ...told, ...change }),
      take: () => Promise.reject(new Error("nothing may be sent")),
    });
    const error = await assertRejects(() => mirror.round(), VolcastError, text);
    assertEquals(error.kind, "diverged");
    assertStringIncludes(error.hint, "resync");
  }
  // A replica is no source.
  const mirror = new Mirror(pair.standby, pair.line);
  assertEquals((await assertRejects(() => mirror.round(), VolcastError)).kind, "read-only");
});

test("Mirror keeps a snapshot that somebody else came to need, and tells when the volume is full", async () => {
  await using pair = await MirrorPair.make(4 * 2 ** 20);
  await pair.change(["a"]);
  const first = await pair.mirror.round();
  await pair.volume.exclusive((w) => w.setPointer("stable", first.top));
  await pair.change(["a"]);
  const second = await pair.mirror.round();
  assertEquals(pair.snapshots(), [first.name, second.name]);
  const path = `${pair.directory}/small.vol`;
  const volume = await createVolumeFile(path, 2 ** 20);
  const full = new Mirror({ volume, volumeIfAny: volume }, pair.line, { name: "other" });
  await volume.exclusive(({ fs }) => {
    const ino = fs.create(INO.root, "all", { type: "file" });
    for (let at = 0;; at += 4096) {
      try {
        fs.write(ino, at, crypto.getRandomValues(new Uint8Array(4096)));
      } catch {
        return;
      }
    }
  });
  pair.line.position = () => Promise.resolve({ node: "other", role: "replica" });
  const error = await assertRejects(() => full.round(), VolcastError);
  assertEquals([error.kind, full.status.failures], ["full", 1]);
  await volume.close();
});
