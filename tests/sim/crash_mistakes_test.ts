// Volumes with mistakes made on purpose: the crash simulation must see each of them.

import { assert, assertEquals } from "@std/assert";
import { PAGE_BITS } from "../../src/core/mod.ts";
import type { BlockStore } from "../../src/store/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import type { CrashStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { SCENARIOS } from "./crash_scenarios.ts";
import { type Mistake, type Problem, simulateCrashes } from "./crash_sim.ts";

/** A mistake is seen, in the words that it should be seen in, and seen again by its numbers. */
function seen(what: string, name: string, mistake: Mistake, says: RegExp): void {
  test(`the crash simulation sees ${what}`, async () => {
    const scenario = SCENARIOS.find((one) => one.name === name)!;
    const options = { seed: 1, statesEach: 20, most: 1 };
    const [first] = (await simulateCrashes(scenario, { ...options, mistake })).problems;
    assert(first !== undefined, "nothing was seen");
    assert(says.test(first.problem), first.problem);
    // The very disk comes again from its numbers.
    const { cut, state } = first;
    const again = await simulateCrashes(scenario, { ...options, mistake, cut, state });
    assertEquals(again.problems.map(inShort), [inShort(first)]);
  });
}

/** Without the calls that led to it. */
function inShort({ cut, state, problem }: Problem): unknown {
  return { cut, state, problem: problem.split("\n")[0] };
}

/** A disk with other writes and syncs than it is asked for. */
class MistakenDisk implements BlockStore {
  readonly #disk: CrashStore;
  readonly #placeOf: (vbn: number) => number;
  readonly #isLost: (written: readonly number[]) => boolean;
  #written: number[] = [];

  constructor(
    disk: CrashStore,
    mistakes: {
      placeOf?: (vbn: number) => number;
      /** Whether a sync does nothing, by what was written since the one before. */
      isLost?: (written: readonly number[]) => boolean;
    },
  ) {
    this.#disk = disk;
    this.#placeOf = mistakes.placeOf ?? ((vbn) => vbn);
    this.#isLost = mistakes.isLost ?? (() => false);
  }

  get capacity(): number {
    return this.#disk.capacity;
  }

  read(vbn: number, target: Uint8Array): void {
    this.#disk.read(vbn, target);
  }

  write(vbn: number, source: Uint8Array): void {
    this.#written.push(vbn);
    this.#disk.write(this.#placeOf(vbn), source);
  }

  async sync(): Promise<void> {
    const isLost = this.#isLost(this.#written);
    this.#written = [];
    if (!isLost) await this.#disk.sync();
  }

  close(): void {}
}

/** The volume gives out what was freed at once, though the root on disk still has it. */
async function reuseAtOnce(volume: Volume): Promise<void> {
  await volume.exclusive(({ space, fs }) => {
    const freed: number[] = [];
    // Content only: metadata in the wrong place would be missed without any crash.
    let isContent = false;
    const write = fs.write.bind(fs);
    fs.write = (...run) => {
      isContent = true;
      try {
        return write(...run);
      } finally {
        isContent = false;
      }
    };
    const free = space.free.bind(space);
    const allocateRun = space.allocateRun.bind(space);
    space.free = (vbn) => {
      const before = space.freeCount;
      free(vbn);
      // Given out in this consistency point: it may be used again.
      if (space.freeCount > before) return;
      const kept = space.summary.block(Math.floor(vbn / PAGE_BITS))[(vbn % PAGE_BITS) >>> 3];
      // No snapshot has it: while nothing crashes, nobody misses it.
      if ((kept >>> (vbn & 7) & 1) === 0) freed.push(vbn);
    };
    space.allocateRun = (most) => {
      const start = isContent ? freed.pop() : undefined;
      if (start === undefined) return allocateRun(most);
      const bytes = space.map.writableBlock(Math.floor(start / PAGE_BITS));
      bytes[(start % PAGE_BITS) >>> 3] |= 1 << (start & 7);
      space.mapCount++;
      return { start, count: 1 };
    };
  });
}

/** The volume says that a consistency point is there when it has just begun. */
function acknowledgeEarly(volume: Volume): Promise<void> {
  const checkpoint = volume.checkpoint.bind(volume);
  volume.checkpoint = () => {
    // What becomes of it when power goes is nobody's concern.
    checkpoint().catch(() => {});
    return Promise.resolve();
  };
  return Promise.resolve();
}

seen(
  "a superblock that is written before its blocks are durable",
  "publish",
  { brokenSync: (number) => number % 2 === 1 },
  /checksum|fsck|damaged|VBN|was never/i,
);
seen(
  "an acknowledgement before the superblock is durable",
  "publish",
  { brokenSync: (number) => number % 2 === 0 },
  /acknowledged was/,
);
seen(
  "a superblock that is written over the one in force",
  "publish",
  { wrap: (disk) => new MistakenDisk(disk, { placeOf: (vbn) => vbn === 1 ? 0 : vbn }) },
  /acknowledged was|no valid superblock|never in force|checksum/,
);
seen(
  "a block that is used again in the consistency point that freed it",
  "files of all kinds",
  { spoil: reuseAtOnce },
  /checksum|fsck|damaged|not what it was/i,
);
seen(
  "a local zone that is written and not made durable",
  "local zone",
  {
    wrap: (disk) =>
      new MistakenDisk(disk, { isLost: (written) => written.every((vbn) => vbn >= 3 && vbn < 67) }),
  },
  /the local state .* acknowledged was/,
);
seen(
  "a map of staged blocks that is not durable before the flip",
  "image since a shadow",
  // The blocks, the local zone, the map; then the superblock.
  { brokenSync: (number) => number === 3 },
  /checksum|map of staged|damaged/i,
);
seen(
  "a write that is acknowledged before its consistency point",
  "writers that share consistency points",
  { spoil: acknowledgeEarly },
  /something acknowledged|acknowledged was/,
);
