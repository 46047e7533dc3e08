/**
 * Which root is in force at a node, and how that changes: the superblocks.
 *
 * Invariants:
 * 1. The two slots are written in turn, so that the one in force is never written over. The newest
 *    valid one counts.
 * 2. One superblock is one step: a crash leaves the state before it or the state after it.
 * 3. In memory a superblock is in force once it is durable, never before.
 *
 * States, and the steps that lead from one to the next:
 *
 * ```
 * (none)  --commit--> origin      --commit---> origin
 * (none)  --apply---> replica     --apply----> replica
 * replica --branch--> branched    --branch---> branched    local changes, beside the applied root
 * branched -flush---> replica                              before an image is applied
 * replica, branched  --promote--> origin                   takeover: a new epoch begins
 * origin, replica, branched --go-back--> replica           resync: to an older snapshot
 * replica --apply with a map--> staged                     some blocks lie elsewhere; see `staging.ts`
 * staged  --settle--> replica                              all are in their places
 * ```
 *
 * What may be trusted: in each state the root with all below it, and the snapshots it lists that are
 * held; when branched also the branch's root and the snapshots that it lists.
 *
 * @module
 */

import { assert, damaged } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  decodeSuperblock,
  encodeSuperblock,
  type Pointer,
  type RemapHead,
  type Superblock,
  type Zone,
} from "../format/mod.ts";
import type { BlockStore } from "../store/mod.ts";
import type { BlockIo } from "./block_io.ts";

/** A root and the consistency point that made it. */
export interface RootPlace {
  readonly cp: number;
  readonly root: Pointer;
}

/** What moves the root. Everything that the new root reaches is durable before. */
export type Step =
  /** A consistency point of an origin. */
  | ({ readonly kind: "commit" } & RootPlace)
  /** A received root becomes the current one. */
  | ({
    readonly kind: "apply";
    readonly name: string;
    readonly time: bigint;
    /** Where the map of its staged blocks begins, if there are some. */
    readonly remap?: RemapHead | undefined;
  } & RootPlace)
  /** All staged blocks are in their places. */
  | { readonly kind: "settle" }
  /** A consistency point of local changes at a replica; its applied root stays. */
  | ({ readonly kind: "branch" } & RootPlace)
  /** The local changes go. */
  | { readonly kind: "flush" }
  /** A consistency point that makes a replica an origin. */
  | ({ readonly kind: "promote" } & RootPlace)
  /** An older snapshot becomes the applied root; whatever came after it goes. */
  | ({ readonly kind: "go-back"; readonly name: string; readonly time: bigint } & RootPlace);

/** What a volume is whatever its root: the fields of a superblock that never change. */
export type Identity = { readonly volumeId: string; readonly zone: Zone };

/** See the module. */
export class Superblocks {
  readonly #io: BlockIo;
  readonly #identity: Identity;
  #inForce: Superblock | undefined;
  #isMoving = false;

  /** @param inForce What was read; absent for a volume that has no root yet. */
  constructor(io: BlockIo, identity: Identity, inForce?: Superblock) {
    this.#io = io;
    this.#identity = identity;
    this.#inForce = inForce;
  }

  /** The superblock in force, `undefined` until a first root is there. */
  get inForce(): Superblock | undefined {
    return this.#inForce;
  }

  /**
   * Writes the superblock that a step leads to and makes it durable.
   * @param adopted Called in the same turn in which it comes into force: nobody may see the new root
   *   with what was read from the old one.
   */
  async move(step: Step, adopted: () => void): Promise<void> {
    const next = afterStep(this.#identity, this.#inForce, step);
    this.#isMoving = true;
    try {
      this.#io.writeRun(next.sequence % 2, encodeSuperblock(next));
      await this.#io.store.sync();
    } finally {
      this.#isMoving = false;
    }
    this.#inForce = next;
    adopted();
  }

  /**
   * A step failed: the one that was to come into force may be in its slot, or in the host's cache for it.
   * The one in force takes its place, durably; so a crash finds no other.
   */
  async rollBack(): Promise<void> {
    const inForce = this.#inForce;
    if (inForce === undefined) return;
    this.#io.writeRun((inForce.sequence + 1) % 2, encodeSuperblock(inForce));
    await this.#io.store.sync();
  }

  /**
   * Slots that are bad: what is in force is in neither of them as it should be, or nothing valid is there.
   * While a step is being written nothing is: one of them is between two states.
   */
  bad(): number[] {
    const inForce = this.#inForce;
    if (inForce === undefined || this.#isMoving) return [];
    const read = [0, 1].map((vbn) => {
      const block = new Uint8Array(BLOCK_SIZE);
      this.#io.store.read(vbn, block);
      return decodeSuperblock(block);
    });
    // The first state of a volume is in one slot, and the other was never written.
    const isWritten = (slot: number) => inForce.sequence > 1 || slot === inForce.sequence % 2;
    const newest = read.findIndex((found) => found?.sequence === inForce.sequence);
    return [0, 1].filter((slot) =>
      isWritten(slot) &&
      (read[slot] === undefined || (newest < 0 && slot === inForce.sequence % 2))
    );
  }

  /**
   * Puts the superblock in force into slots that are bad. In the other slot it is a second copy of itself,
   * until the next step has its place there; so at each moment one slot has it.
   */
  async heal(): Promise<number[]> {
    const slots = this.bad();
    for (const slot of slots) this.#io.writeRun(slot, encodeSuperblock(this.#inForce!));
    await this.#io.store.sync();
    return slots;
  }
}

/** The superblock behind a step; see the states in the module. */
export function afterStep(
  { volumeId, zone }: Identity,
  before: Superblock | undefined,
  step: Step,
): Superblock {
  const next = {
    volumeId,
    capacity: zone.capacity,
    dataStart: zone.data.start,
    sequence: (before?.sequence ?? 0) + 1,
  };
  assert(
    step.kind === "settle" || before?.remap === undefined,
    "staged blocks go to their places before anything else",
  );
  switch (step.kind) {
    case "commit":
      assert(before?.role !== "replica", "an origin makes consistency points");
      return { ...next, role: "origin", cp: step.cp, root: step.root };
    case "promote":
      assert(before?.role === "replica", "a replica is promoted");
      return { ...next, role: "origin", cp: step.cp, root: step.root };
    case "branch":
      assert(before?.role === "replica", "a replica has local changes");
      return { ...before, ...next, branch: { cp: step.cp, root: step.root } };
    case "flush": {
      assert(before?.branch !== undefined, "there are local changes to flush");
      const { branch: _, ...applied } = before;
      return { ...applied, ...next };
    }
    case "settle": {
      assert(before?.remap !== undefined, "there are staged blocks");
      const { remap: _, ...settled } = before;
      return { ...settled, ...next };
    }
    case "apply":
      assert(before?.role !== "origin", "images come into replicas");
      assert(before?.branch === undefined, "local changes are flushed before an image is applied");
      break;
    case "go-back":
      assert(before !== undefined && step.cp <= before.cp, "a volume goes back to what it was");
  }
  const applied = { name: step.name, time: step.time };
  const remap = step.kind === "apply" ? step.remap : undefined;
  return {
    ...next,
    role: "replica",
    cp: step.cp,
    root: step.root,
    applied,
    ...(remap === undefined ? {} : { remap }),
  };
}

/** The newest valid superblock of a store. */
export function readSuperblock(store: BlockStore): Superblock {
  const slots: Superblock[] = [];
  if (store.capacity >= 2) {
    for (const vbn of [0, 1]) {
      const block = new Uint8Array(BLOCK_SIZE);
      store.read(vbn, block);
      const superblock = decodeSuperblock(block);
      if (superblock !== undefined) slots.push(superblock);
    }
  }
  const newest = slots.sort((a, b) => b.sequence - a.sequence)[0];
  if (newest === undefined) {
    throw damaged(
      "Cannot open the volume: it has no valid superblock",
      "It is not a volcast volume, or both superblocks are damaged",
    );
  }
  return newest;
}
