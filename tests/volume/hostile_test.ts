// What no input of the fuzzer shows in a short time: tests/fuzz has all else.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { checksum } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockCache, BlockIo, BlockTree, Volume } from "../../src/volume/mod.ts";
import { sameChecksum } from "../helpers/forge_checksum.ts";
import { blockAt } from "../helpers/replicas.ts";
import { test } from "../helpers/strict.ts";

/** A block of pointers that all point at it, with the right checksum, and pointers to it. */
function circle(store: MemoryStore, vbn: number): Uint8Array<ArrayBuffer> {
  const empty = new Uint8Array(4096);
  const pointer = new Uint8Array(new Uint32Array([vbn, checksum(empty)]).buffer);
  const pointers = new Uint8Array(511 * 8);
  for (let at = 0; at < pointers.length; at += 8) pointers.set(pointer, at);
  store.write(vbn, sameChecksum(empty, pointers, 0));
  return pointer;
}

test("a tree whose pointers go in circles is walked no further than the volume is large", () => {
  const store = new MemoryStore(300);
  const io = new BlockIo(store, new BlockCache(0));
  const slots = new Uint8Array(128);
  slots.set(circle(store, 100));
  const tree = new BlockTree(io, 5, slots);
  const other = new BlockTree(io, 5, new Uint8Array(128));
  let visits = 0;
  const visit = () => {
    if (++visits > 1000) throw new Error("It goes on for ever");
    return true;
  };
  const walks: (() => void)[] = [
    () => tree.forEachPointer(visit),
    () => {
      for (const _ of tree.differing(other)) visit();
    },
  ];
  for (const walk of walks) {
    visits = 0;
    assertEquals(assertThrows(walk, VolcastError).kind, "damaged");
    assert(visits <= 601, `${visits} visits`);
  }
});

test("Volume.heal writes nothing that no plane covers", async () => {
  const store = new MemoryStore(300);
  const volume = await Volume.create(store);
  const bytes = new Uint8Array(4096).fill(7);
  const { data } = volume.zone;
  for (const vbn of [0, 1, 2, data.start - 1, data.start + data.count, 2 ** 32 - 1]) {
    const before = vbn < 300 ? blockAt(store, vbn) : undefined;
    const heal = () => volume.heal({ vbn, crc: checksum(bytes) }, bytes);
    assertEquals(assertThrows(heal, VolcastError).kind, "damaged");
    if (before !== undefined) assertEquals(blockAt(store, vbn), before);
  }
  await volume.close();
});
