/**
 * Replicas, and comparing them with where they came from block by block.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  applyImage,
  Image,
  type ImageSource,
  resolveExpression,
  selectHistory,
  selectImage,
} from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type Snapshot, Volume, walkRoot } from "../../src/volume/mod.ts";
import { describe } from "./describe.ts";
import { assertClean } from "./history.ts";
import { copyOf } from "./stores.ts";
import { sourceOf, sourceOfImage } from "./streams.ts";

/** A replica with the store it lies on. */
export interface Replica {
  readonly store: MemoryStore;
  volume: Volume;
}

/** A new replica from a full image. */
export async function replicaOf(origin: Volume, ref: string): Promise<Replica> {
  const store = new MemoryStore(origin.zone.capacity);
  const volume = Volume.incoming(store, origin.volumeId);
  await applyImage(volume, sourceOfImage(new Image(origin, origin.resolve(ref))));
  return { store, volume };
}

/** A new replica that has these snapshots, the newest of them current. */
export async function replicaWith(origin: Volume, refs: readonly string[]): Promise<Replica> {
  const store = new MemoryStore(origin.zone.capacity);
  const volume = Volume.incoming(store, origin.volumeId);
  const selected = selectHistory(origin, { snapshots: refs.join(",") });
  await applyImage(volume, sourceOfImage(Image.of(origin, selected)));
  return { store, volume };
}

/** The image of an expression. */
export function imageOfText(volume: Volume, text: string): Image {
  return Image.of(volume, selectImage(volume, resolveExpression(volume, text)));
}

/** The image that leads from one snapshot of a volume to another. */
export function imageOf(volume: Volume, top: string, base?: string): Image {
  return new Image(
    volume,
    volume.resolve(top),
    base === undefined ? undefined : volume.resolve(base),
  );
}

/** Brings a replica to a snapshot of its parent; its own may be a shadow there by now. */
export async function advance(replica: Volume, parent: Volume, ref: string): Promise<void> {
  const base = parent.resolveBase(replica.current.id);
  const image = new Image(parent, parent.resolve(ref), base);
  await applyImage(replica, sourceOfImage(image), { drainMs: 0 });
}

/** VBNs that a root reaches, found without looking at any plane. */
export function reachedFrom(volume: Volume, snapshot: Snapshot): Set<number> {
  const reached = new Set<number>();
  walkRoot(volume.io, snapshot.root, (pointer) => {
    assert(!reached.has(pointer.vbn), `VBN ${pointer.vbn} is reached twice`);
    reached.add(pointer.vbn);
    return true;
  });
  return reached;
}

/** VBNs of a plane, bit by bit. */
export function bitsOf(volume: Volume, snapshot: Snapshot): Set<number> {
  const plane = volume.plane(snapshot);
  const bits = new Set<number>();
  let page = plane.page(0);
  for (let vbn = 0; vbn < volume.zone.capacity; vbn++) {
    if (vbn % 32768 === 0) page = plane.page(vbn / 32768);
    if ((page[(vbn % 32768) >> 5] >>> (vbn % 32) & 1) === 1) bits.add(vbn);
  }
  return bits;
}

/** One block as it lies in a store. */
export function blockAt(store: MemoryStore, vbn: number): Uint8Array {
  const block = new Uint8Array(4096);
  store.read(vbn, block);
  return block;
}

/** I4: every block under a snapshot's plane is the same at both, and so is what it shows. */
export function assertSame(
  origin: { volume: Volume; store: MemoryStore },
  replica: { volume: Volume; store: MemoryStore },
  id: string,
): void {
  const here = origin.volume.resolve(id);
  const there = replica.volume.resolve(id);
  assertEquals(there.root, here.root);
  for (const vbn of reachedFrom(origin.volume, here)) {
    const a = blockAt(origin.store, vbn);
    const b = blockAt(replica.store, vbn);
    assert(a.every((byte, i) => byte === b[i]), `VBN ${vbn} differs`);
  }
  assertEquals(bitsOf(replica.volume, there), bitsOf(origin.volume, here));
  assertEquals(
    describe(replica.volume.fileSystem(there), { all: true }),
    describe(origin.volume.fileSystem(here), { all: true }),
  );
}

/** What a replica is and holds: two equal states show the same to everybody. */
export function stateOf(volume: Volume): unknown {
  const views = volume.snapshots().map(({ id }) => {
    const view = volume.view(id);
    const lines = describe(view.fs, { all: true });
    view.release();
    return { id, lines };
  });
  return { current: volume.current, pointers: volume.pointers(), views };
}

/** A replica is as it was: in memory, and as a new process finds it. */
export function assertUnchanged(replica: Replica, before: unknown): void {
  assertEquals(stateOf(replica.volume), before);
  assertClean(replica.volume);
  const found = Volume.open(replica.store);
  assertEquals(stateOf(found), before);
  assertClean(found);
  found.abandon();
}

/** A twin of a replica, to do something to. */
export function twin(replica: Replica): Replica {
  const store = copyOf(replica.store);
  return { store, volume: Volume.open(store) };
}

/** A replica like this one refuses an image as damaged or of another history, and is as it was. */
export async function assertRefuses(
  replica: Replica,
  image: Uint8Array,
  what: string,
): Promise<void> {
  const target = twin(replica);
  const before = stateOf(target.volume);
  const error = await assertRejects(
    () => applyImage(target.volume, sourceOf(image)),
    VolcastError,
    undefined,
    what,
  );
  assert(["damaged", "diverged"].includes(error.kind), `${what}: ${error.message}`);
  assertUnchanged(target, before);
  target.volume.abandon();
}

/** A source that fails at once: nothing should be asked of it. */
export const NO_SOURCE: ImageSource = {
  open: () => Promise.reject(new Error("nothing was to be read")),
  retry: () => Promise.resolve(false),
};
