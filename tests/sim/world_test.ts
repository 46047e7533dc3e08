import { assert } from "@std/assert";
import { Marks, ShadowFile } from "../../src/volume/mod.ts";
import { reachedFrom } from "../helpers/replicas.ts";
import { flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { type Faults, World } from "./world.ts";

const FIRST = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const STEPS = Number(Deno.env.get("VOLCAST_STEPS") ?? 400);

const counts: Record<string, number> = {};

for (let seed = FIRST; seed < FIRST + 6; seed++) {
  test(`a world in which everything happens loses and mixes nothing (seed ${seed})`, async () => {
    const world = await World.live(seed, STEPS);
    for (const [what, count] of Object.entries(world.counts)) {
      counts[what] = (counts[what] ?? 0) + count;
    }
  });
}

test("each of these has happened in those worlds, or little was tested", () => {
  if (FIRST !== 1 || STEPS !== 400) return;
  const wanted = [
    "pulls",
    "pulls with history",
    "taken back",
    "full images",
    "planes brought",
    "shadows",
    "images since shadows",
    "images made twice",
    "deleted",
    "expressions applied",
    "fragments",
    "tapes",
    "mirror rounds",
    "copies",
    "takeovers",
    "resyncs",
    "diverged",
    "crashes",
  ];
  for (const what of wanted) assert(counts[what] > 0, `${what}: ${JSON.stringify(counts)}`);
});

/** Whether one of some worlds sees a mistake. */
async function isSeen(faults: Faults): Promise<boolean> {
  for (let seed = 1; seed <= 12; seed++) {
    try {
      await World.live(seed, 200, faults);
    } catch (error) {
      assert(error instanceof Error && error.message.startsWith(`Seed ${seed}, step `));
      return true;
    }
  }
  return false;
}

test("such a world sees a block that an image lacks", async () => {
  let images = 0;
  const image = (_: Uint8Array, { blocks }: { blocks: ReadonlyMap<number, Uint8Array> }) =>
    new Set(++images === 20 ? [...blocks.keys()].slice(-1) : []);
  assert(await isSeen({ image }));
});

test("such a world sees shadows that keep the bits of blocks that were used again", async () => {
  const { clear } = ShadowFile.prototype;
  try {
    ShadowFile.prototype.clear = () => {};
    assert(await isSeen({}));
  } finally {
    ShadowFile.prototype.clear = clear;
  }
});

test("such a world sees marks that forget what was given back", async () => {
  const { freed } = Marks.prototype;
  try {
    Marks.prototype.freed = () => {};
    assert(await isSeen({}));
  } finally {
    Marks.prototype.freed = freed;
  }
});

test("such a world sees a bit that is turned on a replica's disk", async () => {
  const flip = (world: World, step: number) => {
    if (step !== 100) return;
    const { store, volume } = world.replicaInMemory();
    const [vbn] = [...reachedFrom(volume, volume.current)].slice(-1);
    flipBit(store, vbn, 17);
  };
  assert(await isSeen({ flip }));
});
