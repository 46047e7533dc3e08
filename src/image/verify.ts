/**
 * What has to be so before an image may become current.
 *
 * @module
 */

import {
  BitPlane,
  type Clock,
  damaged,
  difference,
  equalPlanes,
  hasBit,
  intersection,
  isEmpty,
  paced,
  pageCountOf,
  type Plane,
  popcount,
  sum,
  VolcastError,
} from "../core/mod.ts";
import {
  decodeRoot,
  idOf,
  INO,
  type Pointer,
  type Root,
  snapshotId,
  type StreamHeader,
  type StreamSnapshot,
} from "../format/mod.ts";
import {
  attributeTree,
  type BlockIo,
  type BlockUse,
  ContentChecker,
  FileSystem,
  PlaneFile,
  readListedRoot,
  type Snapshot,
  type TreePlace,
  type Volume,
  walkSteps,
} from "../volume/mod.ts";
import type { StreamFront } from "./stream_index.ts";

/**
 * Whether an image restores a snapshot, as far as its header tells.
 * @throws {VolcastError} `unsupported`.
 */
export function checkRestorable(header: StreamHeader): void {
  if (header.fragment === true) {
    throw new VolcastError(
      "unsupported",
      "Cannot apply the image: it is a fragment, no snapshot is whole in it, alone or with a base",
      "Apply images such as 'june5', 'june5 - june3' or 'june5 + june4 - june3'; " +
        "volcast plan says what an expression restores",
    );
  }
}

/** The snapshots that an image restores, oldest first; the newest is the header's. */
export function topsOf({ header, terms }: StreamFront): StreamSnapshot[] {
  return [...terms.filter(({ role }) => role === "top"), header.top];
}

/** The bases of an image that are whole here. What it has of their blocks is compared, not written. */
export function basesHere(volume: Volume, { header, terms }: StreamFront): Snapshot[] {
  if (!volume.hasRoot || header.base === undefined) return [];
  const bases = [...terms.filter(({ role }) => role !== "top"), header.base];
  const ids = new Set(bases.map(idOf));
  return volume.snapshots().filter(({ id }) => ids.has(id));
}

/** The sum of the planes of snapshots, `undefined` without any. */
export function planeOfAll(volume: Volume, snapshots: readonly Snapshot[]): Plane | undefined {
  return snapshots.length === 0
    ? undefined
    : sum(...snapshots.map((snapshot) => volume.plane(snapshot)));
}

/**
 * Whether an image can be applied to a volume, as far as its header and its terms tell.
 * @throws {VolcastError} `unsupported` for a fragment; `diverged`, naming the missing link; `nothing`
 *   when it is current already.
 */
export function checkFits(volume: Volume, front: StreamFront): void {
  const { header } = front;
  checkRestorable(header);
  checkSameVolume(volume, header);
  if (!volume.hasRoot) {
    if (header.base === undefined) return;
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it is the increment since ${called(header.base)}, and there is no ` +
        "volume yet",
      "Apply a full image first",
    );
  }
  if (volume.role === "origin") {
    throw new VolcastError(
      "diverged",
      "Cannot apply the image: the volume is an origin and has changes of its own",
      "Apply it to a replica, or to a path that does not exist yet",
    );
  }
  const { current } = volume;
  if (idOf(header.top) === current.id) {
    throw new VolcastError("nothing", `The volume is at ${called(current)} already`);
  }
  checkBases(volume, front);
}

/**
 * Whether an image is one of a volume, and of its size.
 * @param what What cannot be done otherwise, for the message.
 * @throws {VolcastError} `diverged`.
 */
export function checkSameVolume(
  volume: Volume,
  header: StreamHeader,
  what = "apply the image",
): void {
  if (header.volumeId !== volume.volumeId) {
    throw new VolcastError(
      "diverged",
      `Cannot ${what}: it is of volume ${header.volumeId}, this is volume ${volume.volumeId}`,
      "Use a copy of its own volume, or a path that does not exist yet",
    );
  }
  const { zone } = volume;
  if (header.capacity !== zone.capacity || header.dataStart !== zone.data.start) {
    throw new VolcastError(
      "diverged",
      `Cannot ${what}: it is of a volume of ${header.capacity} blocks, this one has ${zone.capacity}`,
    );
  }
}

/** The current snapshot must be a base, and where several are required the others must be here. */
function checkBases(volume: Volume, { header, terms }: StreamFront): void {
  const { current } = volume;
  if (header.base === undefined) {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it is a full one, and the volume is at ${called(current)}`,
      `Apply the image that leads from '${current.name}' to '${header.top.name}', or put the full one ` +
        "in the volume's place: volcast apply --replace",
    );
  }
  const required = terms.filter(({ role }) => role === "required");
  const alternatives = terms.filter(({ role }) => role === "alternative");
  const here = new Set(volume.snapshots().map(({ id }) => id));
  const missing = required.length === 0 ? [] : [...required, header.base]
    .filter((base) => !here.has(idOf(base)));
  if (missing.length > 0) {
    throw new VolcastError(
      "diverged",
      `Cannot apply the image: it stands on ${
        listed([...required, header.base], "and")
      } together; ` +
        `the volume is at ${called(current)} and lacks ${listed(missing, "and")}`,
      "Apply an image that brings what is missing first, for example a copy that keeps history",
    );
  }
  const bases = [...alternatives, ...required, header.base];
  if (bases.some((base) => idOf(base) === current.id)) return;
  throw new VolcastError(
    "diverged",
    `Cannot apply the image: its base is ${
      listed([...alternatives, header.base], "or")
    }, the volume is at ${called(current)}`,
    `Apply the image that leads from '${current.name}' to '${header.base.name}' first`,
  );
}

function called(snapshot: StreamSnapshot): string {
  return `'${snapshot.name}' (${idOf(snapshot)})`;
}

function listed(snapshots: readonly StreamSnapshot[], word: string): string {
  return snapshots.map(called).join(` ${word} `);
}

/** A snapshot that is whole here, from which an image leads on. */
interface Base {
  readonly fs: FileSystem;
  readonly root: Pointer;
}

/** What came in, and where. */
export interface Received extends StreamFront {
  /** Blocks that came in and were not here. */
  readonly received: Plane;
  /** Blocks of snapshots that were whole here before. */
  readonly known: Plane | undefined;
  /** The blocks as they will be: some may be staged. */
  readonly io: BlockIo;
}

/**
 * Whether everything that the new roots reach is here: invariant 2 of applying (I6).
 * @throws {VolcastError} `damaged`, naming what is missing or wrong.
 */
export async function verifyReceived(volume: Volume, image: Received): Promise<void> {
  const { received, known } = image;
  // Of the tops that were looked through: what they reach of the blocks received, and their planes there.
  const reached = new BitPlane(received.pageCount);
  const covered = new BitPlane(received.pageCount);
  const bases = known === undefined
    ? []
    : basesHere(volume, image).map((base) => ({ fs: volume.fileSystem(base), root: base.root }));
  const before: Base[] = [];
  for (const top of topsOf(image)) {
    const root = checkRoot(image, top);
    const seen = await walkReceived(image, top, {
      reached,
      bases,
      before,
      capacity: volume.zone.capacity,
      clock: volume.options.clock,
    });
    const { tree } = new FileSystem(image.io, root).open(INO.blockMap);
    const plane = new PlaneFile(tree, pageCountOf(volume.zone.capacity));
    checkCount(root, popcount(plane));
    const missing = difference(known === undefined ? plane : difference(plane, known), received);
    const here = BitPlane.copyOf(intersection(received, plane));
    if (!isEmpty(missing) || !equalPlanes(difference(here, covered), seen)) throw otherBlocks();
    reached.add(seen);
    covered.add(here);
    before.push({ fs: new FileSystem(image.io, root), root: top.root });
  }
  if (!equalPlanes(received, reached)) throw otherBlocks();
  checkListed(volume, image);
}

/**
 * Whether the new root can be opened, and lists each snapshot that comes along or is here where its root
 * lies: an id does not say where that is, and from the flip on it is read there.
 */
function checkListed(volume: Volume, image: Received): void {
  const { header, io } = image;
  const { snapshots } = readListedRoot(
    new FileSystem(io, checkRoot(image, header.top)),
    { volumeId: volume.volumeId, cp: header.top.cp },
    "apply the image",
  );
  const here = volume.hasRoot ? volume.snapshots() : [];
  const rootOf = new Map<string, number>();
  for (const { id, root } of here) rootOf.set(id, root.vbn);
  for (const top of topsOf(image)) rootOf.set(idOf(top), top.root.vbn);
  for (const record of snapshots) {
    const id = snapshotId(record);
    const vbn = rootOf.get(id) ?? record.root.vbn;
    if (record.root.vbn === vbn) continue;
    throw damaged(
      `Cannot apply the image: its root lists ${id} with its root at VBN ${record.root.vbn}, it is at ${vbn}`,
    );
  }
}

/** A block that the base has and the top uses must be in the top's plane: the base may go. */
function checkCount({ blockCount }: Root, claimed: number): void {
  if (claimed === blockCount) return;
  throw damaged(
    `Cannot apply the image: its block map names ${claimed} blocks, its root counts ${blockCount}`,
  );
}

function otherBlocks(): VolcastError {
  return damaged(
    "Cannot apply the image: the blocks in it are not those that its top has and its base has not",
  );
}

/** The superblock will repeat what the header says, and a root that contradicts it cannot be opened. */
function checkRoot({ io, header }: Received, top: StreamSnapshot): Root {
  const root = decodeRoot(io.read(top.root));
  if (root.volumeId === header.volumeId && root.cp === top.cp) return root;
  throw damaged(
    `Cannot apply the image: its header says volume ${header.volumeId} and CP ${top.cp}, its ` +
      `root ${root.volumeId} and ${root.cp}`,
  );
}

/**
 * Checks all below a root that came in and that no root before has reached. @returns Those blocks.
 *
 * A block that was not sent is the base's, and so is all below it: the base has the same pointer in the same
 * place, since blocks that a snapshot has never move from one file, or one place in it, to another. With a
 * shadow as the base that is looked at, not taken for granted: a wrong plane would leave old content under a
 * new pointer. So every pointer from a block that came in is checked, and below blocks that did not there may
 * be some that did. An inode with the base's very bytes has the base's pointers: they are looked at only then.
 */
async function walkReceived(
  { io, header, received, known }: Received,
  top: StreamSnapshot,
  { reached, bases, before, capacity, clock }: {
    reached: BitPlane;
    bases: readonly Base[];
    /** The tops that were looked through. */
    before: readonly Base[];
    capacity: number;
    clock: Clock;
  },
): Promise<BitPlane> {
  const isShadow = header.shadowState !== undefined;
  const seen = new BitPlane(received.pageCount);
  let failure: unknown;
  const content = new ContentChecker(io, (_, error) => failure ??= error);
  const isKnown = known === undefined || isShadow
    ? undefined
    : (ino: number, block: Uint8Array, offset: number) =>
      bases.some(({ fs }) => fs.isStored(ino, block, offset));
  const steps = walkSteps(io, top.root, (pointer, use, ino, parent, place) => {
    const { vbn } = pointer;
    if (vbn >= capacity) {
      throw damaged(`Cannot apply the image: it points at VBN ${vbn} of ${capacity} blocks`);
    }
    if (!hasBit(received, vbn)) {
      if (known !== undefined && hasBit(known, vbn)) {
        if (isShadow) {
          if (use === "content" && hasBit(received, parent)) content.add(pointer);
          return true;
        }
        if (bases.some((base) => hasPointer(io, base, pointer, { ...place, use, ino }))) {
          return false;
        }
        throw damaged(
          `Cannot apply the image: VBN ${vbn} was not sent, and no base has it in its place with the ` +
            "same checksum",
        );
      }
      throw damaged(
        `Cannot apply the image: VBN ${vbn} is in use and neither in the image nor in its base`,
      );
    }
    // No root uses a block twice; a forged one that does could make this walk endless.
    if (seen.has(vbn)) throw damaged(`Cannot apply the image: VBN ${vbn} is used twice`);
    const isNew = !reached.has(vbn);
    if (isNew) seen.set(vbn);
    else if (!before.some((base) => hasPointer(io, base, pointer, { ...place, use, ino }))) {
      throw damaged(`Cannot apply the image: VBN ${vbn} is used in two places`);
    }
    if (use === "content") content.add(pointer);
    // The same block as below another top: if it is what this pointer means, so is all below it.
    else if (!isNew) io.read(pointer);
    return isNew;
  }, { isKnown });
  // Readers are served meanwhile.
  await paced(steps, clock);
  content.flush();
  if (failure !== undefined) throw failure;
  return seen;
}

/** Whether a snapshot that is whole has this very pointer in the same place. */
function hasPointer(
  io: BlockIo,
  { fs, root }: Base,
  pointer: Pointer,
  { use, ino, level, index, isAttribute }: TreePlace & { use: BlockUse; ino: number },
): boolean {
  // A top may be here already, and then it is a base as well.
  if (use === "root") return root.vbn === pointer.vbn && root.crc === pointer.crc;
  let tree = fs.inodeFileTree;
  if (ino !== 0) {
    if (ino >= fs.inodeLimit || fs.readInode(ino).mode === 0) return false;
    tree = isAttribute ? attributeTree(io, fs.open(ino).inode) : fs.open(ino).tree;
  }
  const { vbn, crc } = tree.pointerAt(level, index);
  return vbn === pointer.vbn && crc === pointer.crc;
}
