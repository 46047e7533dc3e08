/**
 * Healing a volume that is served: what is bad is asked for at other nodes, and put back in its place.
 *
 * Invariants:
 * 1. A block is written only while a lease holds a root that has it, in the view in which it was found bad,
 *    and only with the bytes that the pointer says: nobody can have been given its place meanwhile, and
 *    what is there afterwards is what was there first (I2).
 * 2. What is bad here is in `bad` until it was read back good, or until no root has it any more.
 * 3. A node that gives something else, or cannot be reached, is named, and the next one is asked.
 *
 * @module
 */

import { hasBit, messageOf, paced, shortList, VolcastError } from "../core/mod.ts";
import type { Pointer } from "../format/mod.ts";
import { type BadBlock, type CheckedRoot, healFrom, rootsOf } from "../image/mod.ts";
import {
  attributeTree,
  BlockCache,
  BlockIo,
  type Lease,
  ownerSteps,
  type Volume,
} from "../volume/mod.ts";
import type { Node } from "./node.ts";

/** Another node that may have what is bad here. */
export interface Relative {
  /** Its URL. */
  readonly name: string;
  /**
   * Chosen blocks of a snapshot, as an image that is a fragment.
   * @throws {VolcastError} `not-found` when it has not got the snapshot, `io` when it cannot be reached.
   */
  blocks(
    volumeId: string,
    top: string,
    vbns: readonly number[],
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>>;
}

/** A block that is bad here now. */
export interface Ailing extends Pointer {
  /** As the look at a root found it; absent where a reader met it first. */
  readonly found?: BadBlock;
  /** Ids of roots that were here then. */
  readonly roots: ReadonlySet<string>;
  /** Paths, or what a metafile is called; known when nobody could heal it. */
  owners?: readonly string[];
}

/** Most bad blocks that are known at once: a disk with more is lost. */
const MAX_AILING = 65_536;

/** See the module. */
export class Healer {
  /** What is bad, by VBN. */
  readonly bad = new Map<number, Ailing>();
  /** Blocks found bad and healed since this began. */
  foundCount = 0;
  healedCount = 0;
  readonly #node: Node;
  readonly #relatives: readonly Relative[];
  readonly #log: (text: string) => void;
  /** What was said last of what cannot be healed, and of nodes that did not help. */
  #told = "";
  readonly #toldOf = new Map<string, string>();

  constructor(
    node: Node,
    options: { relatives: readonly Relative[]; log: (text: string) => void },
  ) {
    this.#node = node;
    this.#relatives = options.relatives;
    this.#log = options.log;
  }

  /** Notes a bad block. @returns Whether that is news. */
  note(volume: Volume, pointer: Pointer, found?: BadBlock): boolean {
    const known = this.bad.get(pointer.vbn);
    const isKnown = known !== undefined && known.crc === pointer.crc;
    if (isKnown && (known.found !== undefined || found === undefined)) return false;
    if (!isKnown && this.bad.size >= MAX_AILING) return false;
    const roots = new Set(rootsOf(volume).map(({ id }) => id));
    const { vbn, crc } = pointer;
    this.bad.set(vbn, { vbn, crc, roots, ...(found === undefined ? {} : { found }) });
    if (!isKnown) this.foundCount++;
    return !isKnown;
  }

  /** Tries to heal all that is bad. @returns How many blocks are good again. */
  async heal(volume: Volume, signal: AbortSignal): Promise<number> {
    const { io } = volume;
    const raw = new BlockIo(io.store, new BlockCache(0));
    const wanted = this.#wanted(volume, raw);
    const asked = [...wanted.keys()];
    if (asked.length === 0) return 0;
    const healedBefore = this.healedCount;
    const leases = new Map<string, Lease>();
    for (const root of new Set([...wanted.values()].flat())) {
      leases.set(root.id, volume.leases.take(root, volume.active.cp));
    }
    const isSame = () =>
      this.#node.volumeIfAny === volume && !volume.isClosed && volume.io === io &&
      !signal.aborted;
    try {
      for (const relative of this.#relatives) {
        await this.#ask(relative, { volume, raw, wanted, leases, isSame, signal });
        if (!isSame()) return this.healedCount - healedBefore;
        if (wanted.size === 0) break;
      }
    } finally {
      for (const lease of leases.values()) lease.release();
    }
    await this.#tell(volume, asked, signal);
    return this.healedCount - healedBefore;
  }

  /** Which roots each bad block can be asked for under; what is good again, or nobody's, is forgotten. */
  #wanted(volume: Volume, raw: BlockIo): Map<number, CheckedRoot[]> {
    const wanted = new Map<number, CheckedRoot[]>();
    const roots = rootsOf(volume);
    for (const block of [...this.bad.values()]) {
      if (isGood(raw, block)) {
        this.bad.delete(block.vbn);
        continue;
      }
      const having = roots.filter((root) => has(volume, root, block));
      if (having.length === 0) this.bad.delete(block.vbn);
      else wanted.set(block.vbn, having);
    }
    return wanted;
  }

  /** Asks one node, under one root after the other, since it may hold one and not another. */
  async #ask(
    relative: Relative,
    { volume, raw, wanted, leases, isSame, signal }: {
      volume: Volume;
      raw: BlockIo;
      wanted: Map<number, CheckedRoot[]>;
      leases: ReadonlyMap<string, Lease>;
      isSame: () => boolean;
      signal: AbortSignal;
    },
  ): Promise<void> {
    const refused = new Set<number>();
    let healed = 0;
    try {
      const most = Math.max(...[...wanted.values()].map((roots) => roots.length));
      for (let turn = 0; turn < most; turn++) {
        const under = new Map<number, CheckedRoot>();
        for (const [vbn, roots] of wanted) if (turn < roots.length) under.set(vbn, roots[turn]);
        const blocks = [...under].map(([vbn, snapshot]): BadBlock => {
          const { crc, found } = this.bad.get(vbn)!;
          return { use: "content", ino: 0, ...found, vbn, crc, snapshot };
        });
        if (blocks.length === 0) continue;
        const patient = {
          heal: (pointer: Pointer, bytes: Uint8Array): void => {
            if (!isSame()) throw changedMeanwhile();
            leases.get(under.get(pointer.vbn)!.id)!.check();
            volume.heal(pointer, bytes);
          },
          syncHealed: () => volume.syncHealed(),
          refused: (vbn: number): void => void refused.add(vbn),
        };
        const vbns = await healFrom(
          patient,
          blocks,
          ({ id }, list) => relative.blocks(volume.volumeId, id, list, signal),
        );
        healed += this.#readBack(vbns, raw, wanted);
      }
      if (refused.size === 0) this.#toldOf.delete(relative.name);
    } catch (error) {
      if (!(error instanceof VolcastError) || volume.poisoned !== undefined) throw error;
      if (isSame()) this.#tellOf(relative, messageOf(error));
    }
    if (refused.size > 0) {
      this.#tellOf(
        relative,
        `${relative.name} gave ${refused.size} blocks that are not what the pointers to them say: ` +
          `VBN ${shortList([...refused].map(String))}`,
      );
    }
    if (healed === 0) return;
    this.healedCount += healed;
    const text = `Healed ${healed} ${healed === 1 ? "block" : "blocks"} from ${relative.name}`;
    this.#log(text);
    this.#node.events.emit({ type: "scrub", result: "healed", message: text });
  }

  /** @returns How many of them are good as they lie on the disk now. */
  #readBack(
    vbns: readonly number[],
    raw: BlockIo,
    wanted: Map<number, CheckedRoot[]>,
  ): number {
    let healed = 0;
    for (const vbn of vbns) {
      wanted.delete(vbn);
      const block = this.bad.get(vbn);
      if (block === undefined) continue;
      if (!isGood(raw, block)) {
        this.#log(`VBN ${vbn} was written again and is bad still: the disk does not keep it`);
        continue;
      }
      this.bad.delete(vbn);
      healed++;
    }
    return healed;
  }

  /** Says what nobody could heal of what was asked for, and whose it is; once for each set of it. */
  async #tell(volume: Volume, asked: readonly number[], signal: AbortSignal): Promise<void> {
    const left = asked.flatMap((vbn) => this.bad.get(vbn) ?? []);
    const key = left.map(({ vbn }) => vbn).join(" ");
    if (key === this.#told) return;
    this.#told = key;
    if (left.length === 0) return;
    await this.#nameOwners(volume, left);
    if (signal.aborted) return;
    const owners = [...new Set(left.flatMap((block) => block.owners ?? []))];
    const text =
      `No node had ${left.length} bad ${left.length === 1 ? "block" : "blocks"}, VBN ${
        shortList(left.map(({ vbn }) => String(vbn)))
      }${
        owners.length === 0 ? "" : `, of ${shortList(owners)}`
      }: reading them gives errors. Name a node ` +
      "that holds a snapshot with them: --repair-from URL; what is on no other node comes only from a copy " +
      "of the files: publish it again";
    this.#log(text);
    this.#node.events.emit({ type: "scrub", result: "bad", message: text });
  }

  async #nameOwners(volume: Volume, left: readonly Ailing[]): Promise<void> {
    const byRoot = Map.groupBy(
      left.flatMap((block) => block.found === undefined ? [] : [block]),
      ({ found }) => found!.snapshot,
    );
    for (const [root, blocks] of byRoot) {
      const lease = volume.leases.take(root, volume.active.cp);
      try {
        const inos = new Set(blocks.map(({ found }) => found!.ino));
        const names = new Map<number, string[]>();
        await paced(ownersInto(names, ownerSteps(volume.fileSystem(root), inos)));
        for (const block of blocks) block.owners = names.get(block.found!.ino) ?? [];
      } catch (error) {
        // Its root cannot be read: whose the blocks are is not known, and it will be tried again.
        if (!(error instanceof VolcastError)) throw error;
      } finally {
        lease.release();
      }
    }
  }

  #tellOf({ name }: Relative, text: string): void {
    if (this.#toldOf.get(name) === text) return;
    this.#toldOf.set(name, text);
    this.#log(text);
  }
}

function* ownersInto(
  names: Map<number, string[]>,
  steps: Generator<undefined, Map<number, string[]>>,
): Generator<undefined> {
  for (const [ino, owners] of yield* steps) names.set(ino, owners);
}

function isGood(raw: BlockIo, pointer: Pointer): boolean {
  try {
    raw.read(pointer);
    return true;
  } catch (error) {
    if (!(error instanceof VolcastError)) throw error;
    return false;
  }
}

/**
 * Whether a root has a block with the content that is missed. One that was here when it was found bad has
 * it if its plane has its VBN; a later state of the active file system may have something else there.
 */
function has(volume: Volume, root: CheckedRoot, { vbn, crc, roots, found }: Ailing): boolean {
  try {
    if (root.id === found?.snapshot.id) return true;
    const plane = volume.plane(root);
    if (!hasBit(plane, vbn)) return false;
    return roots.has(root.id) || (found !== undefined && pointsAt(volume, root, found, crc));
  } catch (error) {
    // Its block map cannot be read now: asking costs little.
    if (!(error instanceof VolcastError)) throw error;
    return true;
  }
}

/** Whether the inode that a block was of still has it. */
function pointsAt(volume: Volume, root: CheckedRoot, { vbn, ino }: BadBlock, crc: number): boolean {
  const fs = volume.fileSystem(root);
  let isThere = false;
  const visit = (pointer: Pointer): boolean => {
    if (pointer.vbn === vbn && pointer.crc === crc) isThere = true;
    return !isThere;
  };
  if (ino === 0) fs.inodeFileTree.forEachPointer(visit);
  else {
    const inode = fs.readInode(ino);
    fs.open(ino).tree.forEachPointer(visit);
    if (inode.attributeHeight > 0) attributeTree(volume.io, inode).forEachPointer(visit);
  }
  return isThere;
}

function changedMeanwhile(): VolcastError {
  return new VolcastError("busy", "Cannot heal: another volume came into this one's place");
}
