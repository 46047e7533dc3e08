/**
 * An origin seals what its pointers name, and renews the seals before they expire.
 *
 * Invariants:
 * 1. The number of seals grows with each: a crash may leave one out, none comes twice.
 * 2. The sum of a snapshot follows from that of another one that was sealed, where that is still here;
 *    so sealing a release costs what changed.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { messageOf, type PlaneSum, VolcastError } from "../core/mod.ts";
import { equalBytes, sealedId } from "../format/mod.ts";
import { type KnownSum, sumOf } from "../image/mod.ts";
import type { Snapshot, Volume } from "../volume/mod.ts";
import type { Node } from "./node.ts";
import type { SigningKey } from "./seal_keys.ts";
import { knownSum, noteSeal, sealOf } from "./trust.ts";

/** Most pointers that are sealed. */
const MAX_POINTERS = 8;

/** Settings of {@linkcode sealPointers}. */
export interface SealOptions {
  readonly key: SigningKey;
  /** How long a seal counts, ms. */
  readonly lifetimeMs: number;
  /** Seals anew what has a seal that counts for long yet. */
  readonly renew?: boolean;
  /** ns since 1970. */
  readonly now?: () => bigint;
}

/** A pointer that got a seal. */
export interface Sealed {
  readonly pointer: string;
  readonly snapshot: Snapshot;
  readonly sequence: number;
  readonly expiresAt: bigint;
}

/**
 * Seals what the pointers name, as far as that has no seal, or one of which half the time is over.
 * @throws {VolcastError} `read-only` at a replica, `full` for too many pointers, `damaged`.
 */
export async function sealPointers(volume: Volume, options: SealOptions): Promise<Sealed[]> {
  if (volume.role !== "origin") {
    throw new VolcastError(
      "read-only",
      "Cannot seal: this is a replica, and what it has is sealed where it was made",
      "Promote it first, if it has taken over",
    );
  }
  const pointers = volume.pointers();
  if (pointers.length > MAX_POINTERS) {
    throw new VolcastError(
      "full",
      `Cannot seal ${pointers.length} pointers: the limit is ${MAX_POINTERS}`,
    );
  }
  const sealed: Sealed[] = [];
  for (const { name, snapshot: id } of pointers) {
    const snapshot = volume.find(id);
    if (snapshot === undefined || !isDue(volume, { name, id }, options)) continue;
    sealed.push(await sealOne(volume, name, snapshot, options));
  }
  const gone = Object.keys(volume.local.seals ?? {})
    .filter((name) => !pointers.some((pointer) => pointer.name === name));
  if (gone.length > 0) {
    await volume.updateLocal((state) => {
      for (const name of gone) delete state.seals![name];
    });
  }
  return sealed;
}

function nowOf({ now }: SealOptions): bigint {
  return now?.() ?? BigInt(Date.now()) * 1_000_000n;
}

function isDue(
  volume: Volume,
  { name, id }: { name: string; id: string },
  options: SealOptions,
): boolean {
  const text = volume.local.seals?.[name];
  if (text === undefined || options.renew) return true;
  const seal = sealOf(text);
  const left = seal.expiresAt - nowOf(options);
  const lifetime = BigInt(Math.round(options.lifetimeMs)) * 1_000_000n;
  // One that counts for longer than is wanted now is replaced as well.
  return sealedId(seal) !== id || !equalBytes(seal.publicKey, options.key.publicKey) ||
    left < lifetime / 2n || left > lifetime;
}

async function sealOne(
  volume: Volume,
  pointer: string,
  snapshot: Snapshot,
  options: SealOptions,
): Promise<Sealed> {
  const sum = knownSum(volume.local, snapshot.id) ??
    await sumOf(volume, snapshot, nearestKnown(volume, snapshot));
  return await note(volume, { pointer, snapshot, sum }, options);
}

async function note(
  volume: Volume,
  { pointer, snapshot, sum }: { pointer: string; snapshot: Snapshot; sum: PlaneSum },
  options: SealOptions,
): Promise<Sealed> {
  const { key, lifetimeMs } = options;
  const sealedAt = nowOf(options);
  const expiresAt = sealedAt + BigInt(Math.round(lifetimeMs)) * 1_000_000n;
  const sequence = (volume.local.sealSequence ?? 0) + 1;
  const bytes = key.seal({
    volumeId: volume.volumeId,
    sequence,
    sealedAt,
    expiresAt,
    snapshot,
    pointer,
    digest: sum.digest,
  });
  const seal = sealOf(Buffer.from(bytes).toString("base64"));
  await volume.updateLocal((state) => noteSeal(state, bytes, seal, sum));
  return { pointer, snapshot, sequence, expiresAt };
}

/** The snapshot with a known sum that is nearest in time, if one is here. */
function nearestKnown(volume: Volume, snapshot: Snapshot): KnownSum | undefined {
  const known = volume.snapshots()
    .filter(({ id }) => volume.local.sums?.[id] !== undefined)
    .sort((a, b) => Math.abs(a.cp - snapshot.cp) - Math.abs(b.cp - snapshot.cp))[0];
  const sum = known && knownSum(volume.local, known.id);
  return known && sum && { snapshot: known, sum };
}

/** Keeps a node's pointers sealed until `signal` fires: after each change, and before seals expire. */
export async function keepSealed(
  node: Node,
  options: SealOptions & { readonly log: (text: string) => void },
  signal: AbortSignal,
): Promise<void> {
  let wake = () => {};
  let changed = false;
  let told: string | undefined;
  // What fails again for the same reason is told once.
  const log = (text: string) => {
    if (text !== told) options.log(text);
    told = text;
  };
  const seal = () =>
    node.sealing ??= sealNow(node, { ...options, log }).finally(() => node.sealing = undefined);
  const forget = node.onChange(() => {
    changed = true;
    void seal();
    wake();
  });
  signal.addEventListener("abort", () => wake());
  while (!signal.aborted) {
    changed = false;
    await seal();
    if (changed) continue;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(options.lifetimeMs / 4, 3_600_000));
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (signal.aborted) wake();
    });
  }
  forget();
}

async function sealNow(
  node: Node,
  options: SealOptions & { readonly log: (text: string) => void },
): Promise<void> {
  const volume = node.volumeIfAny;
  if (volume === undefined || volume.role !== "origin") return;
  try {
    for (const { pointer, snapshot, expiresAt } of await sealPointers(volume, options)) {
      const until = new Date(Number(expiresAt / 1_000_000n)).toISOString();
      options.log(`Sealed '${snapshot.name}' (${snapshot.id}) for '${pointer}' until ${until}`);
    }
  } catch (error) {
    options.log(`Cannot seal: ${messageOf(error)}`);
  }
}
