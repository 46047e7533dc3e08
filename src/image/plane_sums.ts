/**
 * The sum of all blocks under a snapshot's plane (see `PlaneSum`), from that of another snapshot where it
 * is known: only blocks in which the two differ are read.
 *
 * Invariants:
 * 1. At an origin a block is added only if it has the checksum that the pointer to it says: what rotted
 *    on the disk is not sealed.
 * 2. A block counts as unchanged only if it is under both planes and did not come in: nothing is written
 *    under the planes of snapshots that are kept (I2).
 *
 * @module
 */

import {
  difference,
  intersection,
  paced,
  type Plane,
  PlaneSum,
  VolcastError,
} from "../core/mod.ts";
import { BLOCK_SIZE, FRAME_BLOCKS, idOf, type StreamHeader } from "../format/mod.ts";
import { type BlockIo, PlaneFile, type Snapshot, type Volume } from "../volume/mod.ts";
import { ByteReader, cutIsDamage } from "./byte_reader.ts";
import { Checksums } from "./checksums.ts";
import { blocksOf, framesOf } from "./frame_reader.ts";
import { FrameCursor } from "./frames.ts";
import { readIndex, type StreamIndex } from "./stream_index.ts";
import { checkSameVolume } from "./verify.ts";

/** A snapshot whose sum is known. */
export interface KnownSum {
  readonly snapshot: Snapshot;
  readonly sum: PlaneSum;
}

/**
 * The sum of a snapshot that is here.
 * @param known Of another snapshot that is here.
 * @throws {VolcastError} `damaged`, naming a block that is not what the pointer to it says.
 */
export async function sumOf(
  volume: Volume,
  snapshot: Snapshot,
  known?: KnownSum,
): Promise<PlaneSum> {
  const views = [snapshot, ...(known === undefined ? [] : [known.snapshot])]
    .map(({ id }) => volume.view(id));
  try {
    const top = volume.plane(snapshot);
    const sum = known === undefined ? new PlaneSum() : known.sum.copy();
    if (known === undefined) {
      await paced(checkedSteps(volume, snapshot, top, (vbn, block) => sum.add(vbn, block)));
      return sum;
    }
    const base = volume.plane(known.snapshot);
    await paced(
      checkedSteps(
        volume,
        known.snapshot,
        difference(base, top),
        (vbn, block) => sum.subtract(vbn, block),
      ),
    );
    await paced(
      checkedSteps(volume, snapshot, difference(top, base), (vbn, block) => sum.add(vbn, block)),
    );
    return sum;
  } finally {
    for (const view of views) view.release();
  }
}

/** What has come in and is verified, before it becomes current. */
export interface ArrivedRoot {
  readonly volume: Volume;
  /** Plane of the new top, as it says itself. */
  readonly plane: PlaneFile;
  /** Blocks that came in. */
  readonly received: Plane;
  /** The blocks as they will be. */
  readonly io: BlockIo;
}

/**
 * The sum of a top that has come in.
 * @param current Sum of the root in force, if it is known.
 */
export async function sumOfArrived(
  { volume, plane, received, io }: ArrivedRoot,
  current?: PlaneSum,
): Promise<PlaneSum> {
  const sum = current === undefined ? new PlaneSum() : current.copy();
  const add = (vbn: number, block: Uint8Array) => sum.add(vbn, block);
  if (current === undefined) {
    await paced(steps(io, plane, add));
    return sum;
  }
  const base = volume.plane(volume.current);
  const unchanged = difference(intersection(base, plane), received);
  await paced(
    steps(volume.io, difference(base, unchanged), (vbn, block) => sum.subtract(vbn, block)),
  );
  await paced(steps(io, difference(plane, unchanged), add));
  return sum;
}

/**
 * The sum of the top of an image as it comes, whatever is written of it.
 *
 * @param accept Called with the header before anything is read of the rest; throws to refuse it.
 * @param on A volume that has the image's base; needed for an increment.
 * @throws {VolcastError} `damaged`; `diverged` without the base.
 */
export async function sumOfStream(
  stream: ReadableStream<Uint8Array>,
  accept: (header: StreamHeader) => void,
  on?: Volume,
): Promise<PlaneSum> {
  const reader = new ByteReader(stream);
  try {
    const index = await readIndex(reader, ({ header }) => accept(header));
    const sum = await sumOfBase(index, on);
    for await (const frame of framesOf(reader, index.plane)) {
      for (const [vbn, block] of blocksOf(frame)) sum.add(vbn, block);
    }
    return sum;
  } catch (error) {
    throw cutIsDamage(error);
  } finally {
    await reader.cancel();
  }
}

/** What is left of an image's base in its top. */
async function sumOfBase(
  { header, plane, deallocated }: StreamIndex,
  on: Volume | undefined,
): Promise<PlaneSum> {
  const sum = new PlaneSum();
  const { base } = header;
  if (base === undefined) return sum;
  const snapshot = on?.find(idOf(base));
  if (on === undefined || snapshot === undefined) {
    throw new VolcastError(
      "diverged",
      `Cannot verify the image: its base '${base.name}' (${idOf(base)}) is ${
        on === undefined ? "not given" : "not in the volume"
      }`,
      "Name a volume that has it: --on VOLUME",
    );
  }
  checkSameVolume(on, header, "verify the image");
  const kept = difference(difference(on.plane(snapshot), deallocated), plane);
  await paced(checkedSteps(on, snapshot, kept, (vbn, block) => sum.add(vbn, block)));
  return sum;
}

type Take = (vbn: number, block: Uint8Array) => void;

function* checkedSteps(
  { io, volumeId }: Volume,
  snapshot: Snapshot,
  plane: Plane,
  take: Take,
): Generator<unknown> {
  const checksums = new Checksums(io, {
    name: `sum ${volumeId} ${snapshot.id}`,
    roots: [snapshot.root],
  });
  yield* steps(io, plane, take, checksums);
}

function* steps(io: BlockIo, plane: Plane, take: Take, checksums?: Checksums): Generator<unknown> {
  const buffer = new Uint8Array(FRAME_BLOCKS * BLOCK_SIZE);
  const frames = new FrameCursor(plane);
  for (let run = frames.current; run !== undefined; run = frames.current) {
    const blocks = buffer.subarray(0, run.count * BLOCK_SIZE);
    if (checksums !== undefined) yield* checksums.prepare(run.start);
    io.store.read(run.start, blocks);
    checksums?.check(run.start, blocks);
    for (let i = 0; i < run.count; i++) {
      take(run.start + i, blocks.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
      if (i % 64 === 63) yield;
    }
    frames.advance();
    yield;
  }
}
