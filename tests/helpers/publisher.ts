/**
 * A publisher at work on disks that remember, and what may be found on them after a loss of power at
 * any moment. The volume lies on one disk, or on a store that is made of one or several.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume } from "../../src/volume/mod.ts";
import { skipBlocks, tickingClock } from "./history.ts";
import { Random } from "./random.ts";
import { stateOf } from "./replicas.ts";
import { CrashStore } from "./stores.ts";

/** How a volume lies on disks. */
export interface Arrangement {
  /** Makes a store for `capacity` blocks over new disks. */
  create(capacity: number): { store: BlockStore; disks: MemoryStore[] };
  /** The store that lies on disks. */
  open(disks: readonly BlockStore[]): BlockStore;
}

/** The volume is the disk. */
export const ON_ONE_DISK: Arrangement = {
  create(capacity) {
    const store = new MemoryStore(capacity);
    return { store, disks: [store] };
  },
  open: ([disk]) => disk,
};

/** Disks with a small volume of a few files, closed. */
export async function prepared(
  capacity: number,
  arrangement = ON_ONE_DISK,
): Promise<MemoryStore[]> {
  const { store, disks } = arrangement.create(capacity);
  const volume = await Volume.create(store, { now: tickingClock() });
  await volume.exclusive(({ fs }) => {
    for (let i = 0; i < 20; i++) {
      const ino = fs.create(2, `old${i}`, { type: "file" });
      fs.write(ino, 0, new Random(i).bytes(i * 700));
    }
  });
  await volume.close();
  return disks;
}

/**
 * What a publisher does: change, checkpoint, snapshot with its pointer, delete the old one.
 *
 * @param stride Blocks left out before each round, so that a volume is used in all its width.
 */
export async function publish(
  volume: Volume,
  acknowledged: (cp: number) => void,
  stride = 0,
): Promise<void> {
  const done = () => acknowledged(volume.superblock.cp);
  const random = new Random(7);
  for (let round = 0; round < 4; round++) {
    if (stride > 0) await skipBlocks(volume, stride);
    await volume.exclusive(async (writer) => {
      const { fs } = writer;
      const ino = fs.create(2, `new${round}`, { type: "file" });
      fs.write(ino, 0, random.bytes(random.between(1, 30_000)));
      fs.write(fs.resolve(`/old${round}`), 100, random.bytes(5000));
      fs.rename({ parent: 2, name: `old${round + 8}` }, { parent: 2, name: `moved${round}` });
      fs.remove(2, `old${round + 13}`);
      fs.setExtendedAttributes(ino, { xattrs: new Map([["user.a", random.bytes(5000)]]) });
      await writer.checkpoint();
    });
    done();
    await volume.exclusive((writer) =>
      writer.takeSnapshot(`release${round}`, { pointers: ["master"] })
    );
    done();
    if (round > 0) {
      const old = volume.resolve(`release${round - 1}`).id;
      await volume.exclusive((writer) => writer.deleteSnapshot(old));
      done();
    }
    await volume.exclusive(async (writer) => {
      writer.fs.truncate(writer.fs.resolve("/new0"), 10);
      writer.fs.write(writer.fs.resolve("/old1"), 0, random.bytes(9000));
      await writer.checkpoint();
    });
    done();
  }
}

/** A publisher's work, and everything that is true of it. */
export interface Run {
  readonly disks: readonly CrashStore[];
  /** Moments at which power may go: 0 to this. */
  readonly moments: number;
  /** Consistency points that were acknowledged, with the moment of that. */
  readonly acknowledged: readonly { moment: number; cp: number }[];
  /** What each consistency point holds. */
  readonly states: ReadonlyMap<number, unknown>;
  readonly arrangement: Arrangement;
}

/** Runs the publisher, and notes what is true at each moment. */
export async function run(
  options: {
    arrangement?: Arrangement;
    brokenSync?: (number: number) => boolean;
    /** See {@linkcode publish}. */
    stride?: number;
    /** Work between opening and publishing. */
    before?: (store: BlockStore) => void;
  } = {},
): Promise<Run> {
  const { arrangement = ON_ONE_DISK } = options;
  const clock = { now: 0 };
  const disks = (await prepared(700, arrangement)).map((disk) => new CrashStore(disk, clock));
  for (const disk of disks) disk.brokenSync = options.brokenSync ?? (() => false);
  const store = arrangement.open(disks);
  options.before?.(store);
  const volume = Volume.open(store, { now: tickingClock() });
  const acknowledged = [{ moment: 0, cp: volume.superblock.cp }];
  await publish(
    volume,
    (cp) => acknowledged.push({ moment: clock.now, cp }),
    options.stride,
  );
  volume.abandon();
  const states = new Map<number, unknown>();
  const moments = clock.now;
  // Whatever the order of writes, with all of them there every root shows what it should.
  for (let moment = 0; moment <= moments; moment++) {
    const whole = arrangement.open(disks.map((disk) => disk.whole(disk.countAt(moment))));
    const found = Volume.open(whole);
    if (!states.has(found.superblock.cp)) states.set(found.superblock.cp, stateOf(found));
    // A snapshot and the pointer to it come at once: no root shows a release that is not the master.
    assertEquals(found.find("master")?.id, found.snapshots().at(-1)?.id);
    found.abandon();
  }
  return { disks, moments, acknowledged, states, arrangement };
}

/** Disks that may be found when power goes at a moment. */
export function crashedDisks({ disks }: Run, moment: number, random: Random): MemoryStore[] {
  return disks.map((disk) => disk.crashed(disk.countAt(moment), random));
}

/** What is wrong with disks found after a crash; `undefined` when nothing is. */
export function problemOf(
  { acknowledged, states, arrangement }: Run,
  moment: number,
  disks: readonly MemoryStore[],
): unknown {
  let volume: Volume | undefined;
  try {
    volume = Volume.open(arrangement.open(disks));
    const { cp } = volume.superblock;
    const least = Math.max(
      ...acknowledged.filter((ack) => ack.moment <= moment).map((ack) => ack.cp),
    );
    if (cp < least) return `CP ${cp} was found, ${least} was acknowledged`;
    assert(states.has(cp), `CP ${cp} was never made`);
    const { findings } = fsck(volume);
    if (findings.length > 0) return findings;
    assertEquals(stateOf(volume), states.get(cp));
    return undefined;
  } catch (error) {
    return error;
  } finally {
    volume?.abandon();
  }
}

/** Everything that is wrong after crashes at every moment, `disksEach` times each. */
export function problems(run: Run, random: Random, disksEach: number): unknown[] {
  const found: unknown[] = [];
  for (let moment = 0; moment <= run.moments; moment++) {
    for (let i = 0; i < disksEach; i++) {
      const problem = problemOf(run, moment, crashedDisks(run, moment, random));
      if (problem !== undefined) found.push(problem);
    }
  }
  return found;
}
