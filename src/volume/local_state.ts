/**
 * The local zone: what this node knows for itself and never replicates.
 *
 * Invariants:
 * 1. Two slots are written in turn; the newer valid one counts, so that a crash leaves the old state
 *    or the new one.
 * 2. Nothing here lies under a plane (I4).
 *
 * @module
 */

import { z } from "zod";
import { damaged, divCeil, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  byteSize,
  checksum,
  defineLayout,
  type Extent,
  MAX_COUNTER,
  SNAPSHOT_ID_PATTERN,
  type Zone,
} from "../format/mod.ts";
import type { BlockStore } from "../store/mod.ts";

/** Table of what precedes the JSON text of a slot. */
export const LOCAL_SLOT_LAYOUT = defineLayout("local state slot", 32, [
  ["magic", "u32", 4, "'VCLS'"],
  ["length", "u32", 4, "bytes of JSON behind this record"],
  ["sequence", "u64", 8, "number of this state; its parity is its slot"],
  ["crc", "u32", 4, "checksum of the JSON"],
  ["_reserved", "zero", 12, "reserved"],
]);

const MAGIC = 0x534c4356;
const snapshotId = z.string().regex(SNAPSHOT_ID_PATTERN);

/** A site below this node: where it stands. */
export const SITE_STATE = z.object({
  /** Id of the master snapshot that the site confirmed last. */
  snapshot: snapshotId.optional(),
  /** Snapshots that the site's own children still stand on. */
  needs: z.array(snapshotId).default([]),
  /** When the site confirmed, ms since 1970. */
  confirmedAt: z.number().int().optional(),
  /** A mirror that is not made yet: the mark of the process that does; see `replication/mirror_sites.ts`. */
  beginning: z.string().optional(),
});
/** See {@linkcode SITE_STATE}. */
export type SiteState = z.infer<typeof SITE_STATE>;

const TRANSFER = z.object({
  top: snapshotId,
  base: snapshotId.optional(),
  /** Which image it is; records of older versions do not say, and are not gone on with. */
  image: z.string().regex(/^[0-9a-f]{32}$/).optional(),
  /** Frames that are durable. */
  frames: z.number().int().nonnegative(),
});

const BASE_IMAGE = z.object({
  /** Its top. */
  top: snapshotId,
  /** Path of the image's file, or of the directory with its segments. */
  path: z.string(),
});
/** The image that an incremental mirror stands on. */
export type BaseImage = z.infer<typeof BASE_IMAGE>;

/** A release that was current here before an older one became so again. */
export const RETRACTED = z.object({
  name: z.string(),
  cp: z.number().int().nonnegative(),
  root: z.object({ vbn: z.number().int().nonnegative(), crc: z.number().int().nonnegative() }),
  /** When it was taken, ns since 1970. */
  time: z.string().regex(/^-?\d{1,19}$/),
  blockCount: z.number().int().nonnegative(),
  /** Snapshots that were regular in its root, the newest of them. */
  regular: z.array(snapshotId),
});
/** See {@linkcode RETRACTED}. */
export type Retracted = z.infer<typeof RETRACTED>;

const SCRUB_PLACE = z.object({
  /** When the pass under way began, ms since 1970; absent between two. */
  startedAt: z.number().int().optional(),
  /** Roots of this consistency point and of newer ones were looked at in it. */
  through: z.number().int().nonnegative().optional(),
  /** Block of the inode file at which the pass goes on. */
  next: z.number().int().nonnegative().default(0),
  /** When a pass was complete last, ms since 1970. */
  completedAt: z.number().int().optional(),
});
/** How far the scrub of a volume is. */
export type ScrubPlace = z.infer<typeof SCRUB_PLACE>;

const MOVE = z.object({
  /** Of the origin, when it was moved there. */
  epoch: z.number().int().nonnegative(),
  cp: z.number().int().nonnegative(),
});
const MOVED = MOVE.extend({ snapshot: snapshotId });
/** When a pointer came to mean a snapshot, see `moved.ts`. */
export type Moved = z.infer<typeof MOVED>;

const LOCAL_STATE = z.object({
  site: z.string().optional(),
  /** Snapshots whose blocks are all here; the current root's own is implied. */
  held: z.array(snapshotId).default([]),
  sites: z.record(z.string(), SITE_STATE).default({}),
  /** Shadows that the pin budget made; they go when no site stands on them any more. */
  shadowed: z.array(snapshotId).optional(),
  /** Releases that were gone back from: sites below may stand on them still. */
  retracted: z.array(RETRACTED).optional(),
  /** At an origin: when pointers were moved to older snapshots, by these. */
  movedTo: z.record(snapshotId, MOVE).optional(),
  /** At a replica: when the pointer that it follows was moved to what is here, and to what was told last. */
  moved: z.array(MOVED).max(2).optional(),
  /** An image that is coming in. */
  transfer: TRANSFER.optional(),
  /** Number of the newest seal that was made or seen here. */
  sealSequence: z.number().int().nonnegative().optional(),
  /** Seals by the pointer that they are for, base64. */
  seals: z.record(z.string(), z.string().max(2048)).optional(),
  /** Sums of the content of snapshots by id, base64. */
  sums: z.record(snapshotId, z.string().max(4096)).optional(),
  /** How far the scrub is. */
  scrub: SCRUB_PLACE.optional(),
  /** Of an incremental mirror: what is not in its file is there. */
  base: BASE_IMAGE.optional(),
});
/** Everything in the local zone. */
export type LocalState = z.infer<typeof LOCAL_STATE>;

const OWNER = z.object({ pid: z.number().int(), url: z.string().optional() });
/** Who has a volume open. */
export type Owner = z.infer<typeof OWNER>;

/** The state of a volume that was just made. */
export const EMPTY_LOCAL_STATE: LocalState = { held: [], sites: {} };

/** Reads and writes the local zone. */
export class LocalZone {
  readonly #store: BlockStore;
  readonly #zone: Zone;
  #sequence = 0;

  constructor(store: BlockStore, zone: Zone) {
    this.#store = store;
    this.#zone = zone;
  }

  /** The newest valid state; an empty one where none was ever written. */
  read(): LocalState {
    let best: { sequence: number; json: string } | undefined;
    for (const slot of this.#zone.localSlots) {
      const found = readJson(this.#store, slot);
      if (found !== undefined && found.sequence > (best?.sequence ?? -1)) best = found;
    }
    if (best === undefined) return structuredClone(EMPTY_LOCAL_STATE);
    this.#sequence = best.sequence;
    const parsed = LOCAL_STATE.safeParse(parseJson(best.json));
    if (!parsed.success) {
      throw damaged(`Cannot read the local zone: ${z.prettifyError(parsed.error)}`);
    }
    return parsed.data;
  }

  /** Looks whether a state has room. @throws {VolcastError} `full`, before anything is written. */
  check(state: LocalState): void {
    const byteCount = new TextEncoder().encode(JSON.stringify(state)).length;
    checkRoom(LOCAL_SLOT_LAYOUT.size + byteCount, this.#zone.localSlots[0]);
  }

  /** Writes a state into the older slot and makes it durable. It was checked before. */
  async write(state: LocalState): Promise<void> {
    const sequence = this.#sequence + 1;
    writeJson(this.#store, this.#zone.localSlots[sequence % 2], sequence, JSON.stringify(state));
    await this.#store.sync();
    this.#sequence = sequence;
  }

  /** Notes who has the volume open, for the message another process gets. Best effort, not durable. */
  writeOwner(owner: Owner | undefined): void {
    writeJson(this.#store, this.#zone.owner, 0, JSON.stringify(owner ?? {}));
  }
}

/** Who has the volume open, read without its lock. */
export function readOwner(store: BlockStore, zone: Zone): Owner | undefined {
  const found = readJson(store, zone.owner);
  const parsed = OWNER.safeParse(found === undefined ? undefined : parseJson(found.json));
  return parsed.success ? parsed.data : undefined;
}

/** The value of a JSON text; `undefined` where it is none, which no schema takes. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readJson(
  store: BlockStore,
  extent: Extent,
): { sequence: number; json: string } | undefined {
  const head = new Uint8Array(BLOCK_SIZE);
  store.read(extent.start, head);
  const view = new DataView(head.buffer);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  const record = LOCAL_SLOT_LAYOUT.read(head);
  const total = LOCAL_SLOT_LAYOUT.size + record.length;
  if (total > byteSize(extent) || record.sequence >= MAX_COUNTER) return undefined;
  const bytes = new Uint8Array(divCeil(total, BLOCK_SIZE) * BLOCK_SIZE);
  store.read(extent.start, bytes);
  const json = bytes.subarray(LOCAL_SLOT_LAYOUT.size, total);
  if (checksum(json) !== record.crc) return undefined;
  return { sequence: record.sequence, json: new TextDecoder().decode(json) };
}

function writeJson(store: BlockStore, extent: Extent, sequence: number, text: string): void {
  const json = new TextEncoder().encode(text);
  const total = LOCAL_SLOT_LAYOUT.size + json.length;
  checkRoom(total, extent);
  const bytes = new Uint8Array(divCeil(total, BLOCK_SIZE) * BLOCK_SIZE);
  LOCAL_SLOT_LAYOUT.write(
    { magic: MAGIC, length: json.length, sequence, crc: checksum(json) },
    bytes,
  );
  bytes.set(json, LOCAL_SLOT_LAYOUT.size);
  store.write(extent.start, bytes);
}

function checkRoom(byteCount: number, extent: Extent): void {
  if (byteCount <= byteSize(extent)) return;
  throw new VolcastError(
    "full",
    `Cannot write the local zone: ${byteCount} bytes of state, the limit is ${byteSize(extent)}`,
    "Forget sites that are gone (DELETE /sites/NAME), or make a larger volume",
  );
}
