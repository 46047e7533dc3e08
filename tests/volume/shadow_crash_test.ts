// A loss of power at every write, while shadows are made and deleted and while their blocks are used
// again: whatever disk is found, no shadow has a block that is not what it was.

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume, type Writer } from "../../src/volume/mod.ts";
import { tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { checkShadows, type Contents, contentsOf } from "../helpers/shadow_history.ts";
import { CrashStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

interface Run {
  readonly store: CrashStore;
  /** What each snapshot's blocks held when it was taken. */
  readonly had: Map<string, Contents>;
}

/** Snapshots and shadows of a small volume, whose blocks come around several times. */
async function run(spoil: (writer: Writer) => void = () => {}): Promise<Run> {
  const initial = new MemoryStore(400);
  await (await Volume.create(initial, { now: tickingClock() })).close();
  const store = new CrashStore(initial);
  const volume = Volume.open(store, { now: tickingClock() });
  const random = new Random(3);
  const had = new Map<string, Contents>();
  const write = () =>
    volume.exclusive(async (writer) => {
      spoil(writer);
      const { fs } = writer;
      for (const name of ["x", "y"]) {
        const ino = fs.lookup(2, name) ?? fs.create(2, name, { type: "file" });
        fs.write(ino, random.below(10) * 4096, random.bytes(random.between(4096, 60_000)));
      }
      await writer.checkpoint();
    });
  for (let round = 0; round < 9; round++) {
    await write();
    const taken = await volume.exclusive((writer) => writer.takeSnapshot(`s${round}`));
    had.set(taken.id, contentsOf(store, volume, taken));
    await write();
    if (round >= 1) await volume.exclusive((writer) => writer.shadowSnapshot(idOf(volume, round)));
    await write();
    if (round === 6) {
      await volume.exclusive((writer) => writer.deleteSnapshot(volume.shadows()[1].id));
    }
    for (let i = 0; i < 3; i++) await write();
  }
  volume.abandon();
  return { store, had };
}

/** The snapshot before the last one. */
function idOf(volume: Volume, round: number): string {
  return volume.resolve(`s${round - 1}`).id;
}

/** What is wrong with the disks that may be found, and what was looked at in them. */
function problems({ store, had }: Run, random: Random, disksEach: number) {
  const found: string[] = [];
  const totals = { reused: 0, saved: 0, shadows: 0 };
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < disksEach; i++) {
      const disk = i === 0 ? store.whole(count) : store.crashed(count, random);
      const volume = Volume.open(disk);
      try {
        const { reused, saved } = checkShadows(disk, volume, had);
        totals.reused += reused;
        totals.saved += saved;
        totals.shadows += volume.shadows().length;
        const [finding] = fsck(volume).findings;
        if (finding !== undefined) found.push(finding.problem);
      } catch (error) {
        found.push(String(error));
      } finally {
        volume.abandon();
      }
    }
  }
  return { found, totals };
}

test("no shadow has a block that was used again, after a crash at every write and sync", async () => {
  const whole = await run();
  assert(whole.store.events.length > 400, `${whole.store.events.length} events`);
  const { found, totals } = problems(whole, new Random(1), 4);
  assertEquals(found, []);
  assert(totals.reused > 10_000 && totals.saved > 10_000, JSON.stringify(totals));
  assert(totals.shadows > 2000, `${totals.shadows} shadows seen`);
});

test("a volume found after a crash goes on with its shadows", async () => {
  const { store, had } = await run();
  const random = new Random(5);
  let reused = 0;
  for (let count = 100; count <= store.events.length; count += 37) {
    const disk = store.crashed(count, random);
    const volume = Volume.open(disk, { now: tickingClock() });
    for (let i = 0; i < 8; i++) {
      await volume.exclusive(async (writer) => {
        const { fs } = writer;
        const ino = fs.lookup(2, "x") ?? fs.create(2, "x", { type: "file" });
        fs.write(ino, 0, random.bytes(60_000));
        await writer.checkpoint();
      });
      reused += checkShadows(disk, volume, had).reused;
    }
    assertEquals(fsck(volume).findings, []);
    await volume.close();
  }
  assert(reused > 1000, `${reused} blocks used again`);
});

test("the crash test sees bits that are cleared one consistency point too late", async () => {
  const late: (() => void)[] = [];
  const broken = await run(({ space }) => {
    const { shadows } = space;
    if (shadows === undefined) return;
    for (const clear of late.splice(0)) clear();
    if (Object.hasOwn(shadows, "clear")) return;
    const clear = shadows.clear.bind(shadows);
    shadows.clear = (...run) => void late.push(() => clear(...run));
  });
  assertNotEquals(problems(broken, new Random(2), 1).found, []);
});
