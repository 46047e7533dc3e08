/**
 * Cutting the power at every write and sync of something that a volume does.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume, type VolumeOptions } from "../../src/volume/mod.ts";
import { describe } from "./describe.ts";
import { tickingClock } from "./history.ts";
import { Random } from "./random.ts";
import { stateOf } from "./replicas.ts";
import { CrashStore } from "./stores.ts";

/** All that a volume shows, local changes included, as text. */
export function fullState(volume: Volume): string {
  const view = volume.view("active");
  const active = describe(view.fs, { all: true });
  view.release();
  const local = volume.localSnapshots().map((one) => ({
    ...one,
    lines: describe(volume.fileSystem(one), { all: true }),
  }));
  return JSON.stringify(
    { role: volume.role, history: volume.history, state: stateOf(volume), active, local },
    (_, value) => typeof value === "bigint" ? String(value) : value,
  );
}

/**
 * Runs `work` on a store that remembers, then opens what may be found after a loss of power at each of
 * its writes and syncs: always clean, and always one of the states that it went through in order.
 *
 * @returns The states in order, the last one being what must be there in the end.
 */
export async function everyCut(
  initial: MemoryStore,
  work: (volume: Volume) => Promise<void>,
  options: { seed: number; disksEach?: number; volume?: VolumeOptions },
): Promise<string[]> {
  const store = new CrashStore(initial);
  const open = { now: tickingClock(), ...options.volume };
  const volume = Volume.open(store, open);
  await work(volume);
  volume.abandon();
  const states: string[] = [];
  for (let count = 0; count <= store.events.length; count++) {
    const found = Volume.open(store.whole(count), open);
    const state = fullState(found);
    if (!states.includes(state)) states.push(state);
    found.abandon();
  }
  const random = new Random(options.seed);
  for (let count = 0; count <= store.events.length; count++) {
    for (let i = 0; i < (options.disksEach ?? 6); i++) {
      const found = Volume.open(store.crashed(count, random), open);
      assertEquals(fsck(found).findings, [], `cut ${count}`);
      const state = fullState(found);
      assert(states.includes(state), `cut ${count}: a state that was never there`);
      if (count === store.events.length) assertEquals(state, states.at(-1), "it was acknowledged");
      found.abandon();
    }
  }
  return states;
}
