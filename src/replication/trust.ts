/**
 * Whom a node believes: keys whose seals it asks for before an image becomes current.
 *
 * What a seal stops, at whatever node on the way: content that nobody sealed (forged, or changed at a
 * parent), a snapshot that its origin does not publish under this pointer, an older release shown again
 * (rolled back), and one shown for longer than its origin meant it to be (frozen).
 *
 * Invariants:
 * 1. Nothing becomes current unless a seal of a trusted key names it, and the sum of all blocks under its
 *    plane, as they lie here, is the one that was signed.
 * 2. No seal is accepted with a lower number than one that was accepted before.
 * 3. Before a block is asked for, the seal is known to be signed, of this volume, of this pointer, and not
 *    expired.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { PlaneSum, VolcastError } from "../core/mod.ts";
import {
  decodeSeal,
  equalBytes,
  idOf,
  type Seal,
  sealedId,
  type StreamHeader,
  type UnverifiedSeal,
} from "../format/mod.ts";
import { type ArrivedRoot, sumOfArrived } from "../image/mod.ts";
import type { LocalState, Volume } from "../volume/mod.ts";
import { isSigned, publicText } from "./seal_keys.ts";

/** Clocks may differ by this much, ns. */
const SKEW_NS = 300_000_000_000n;

/** Settings of {@linkcode Trust}. */
export interface TrustOptions {
  /** Public keys, 32 bytes each. */
  readonly keys: readonly Uint8Array[];
  /** What the origin calls the pointer that is followed; `master` by default. */
  readonly pointer?: string | undefined;
  /** ns since 1970. */
  readonly now?: () => bigint;
}

/** What a seal is to be of. */
export interface Offered {
  readonly volumeId: string;
  /** Id of the snapshot. */
  readonly top: string;
  /** As it came; absent where none did. */
  readonly seal?: Uint8Array | undefined;
  /** Whose offer it is, for messages. */
  readonly from: string;
}

/** See the module. */
export class Trust {
  readonly #keys: readonly Uint8Array[];
  readonly #pointer: string;
  readonly #now: () => bigint;

  constructor({ keys, pointer = "master", now }: TrustOptions) {
    this.#keys = keys;
    this.#pointer = pointer;
    this.#now = now ?? (() => BigInt(Date.now()) * 1_000_000n);
  }

  /**
   * Looks at what is offered (invariants 2 and 3).
   * @param volume What is here, if anything is.
   * @throws {VolcastError} `untrusted`, saying why.
   */
  check({ volumeId, top, seal, from }: Offered, volume: Volume | undefined): Seal {
    const refuse = (reason: string, hint = ""): never => {
      throw new VolcastError("untrusted", `Cannot trust ${top} of ${from}: ${reason}`, hint);
    };
    if (seal === undefined) {
      return refuse(
        "it has no seal",
        "Seal it at the origin: volcast serve --sign KEY, or volcast seal VOLUME --sign KEY",
      );
    }
    const read = this.#read(seal, refuse);
    if (read.volumeId !== volumeId || sealedId(read) !== top) {
      refuse(`its seal is of ${sealedId(read)} of volume ${read.volumeId}`);
    }
    if (read.pointer !== this.#pointer) {
      refuse(`its seal is for the pointer '${read.pointer}', not '${this.#pointer}'`);
    }
    const now = this.#now();
    if (read.expiresAt <= now) {
      refuse(
        `its seal expired at ${showTime(read.expiresAt)}, it is ${showTime(now)} here`,
        "The origin renews seals while it serves with --sign. If it does, a node on the way holds back " +
          "what it has, or a clock is wrong",
      );
    }
    if (read.sealedAt > now + SKEW_NS) {
      refuse(
        `its seal was made at ${showTime(read.sealedAt)}, it is ${showTime(now)} here`,
        "Set the clock right",
      );
    }
    const last = volume?.local.sealSequence ?? 0;
    if (read.sequence < last) {
      refuse(
        `its seal has number ${read.sequence}, number ${last} was seen already: it is an older release`,
        "A node on the way shows what is out of date. It will be asked again",
      );
    }
    return read;
  }

  /** Why what is current here does not count any more; `undefined` while it does. */
  whyStale(volume: Volume): string | undefined {
    const bytes = sealFor(volume, volume.current.id, this.#pointer);
    if (bytes === undefined) return "nobody who is trusted has sealed what is here";
    const { expiresAt } = decodeSeal(bytes);
    return expiresAt > this.#now() ? undefined : `its seal expired at ${showTime(expiresAt)}`;
  }

  /** A seal of a trusted key, whatever it is of. */
  #read(bytes: Uint8Array, refuse: (reason: string, hint?: string) => never): UnverifiedSeal {
    const seal = decodeSeal(bytes);
    if (!this.#keys.some((key) => equalBytes(key, seal.publicKey))) {
      refuse(
        `its seal is of the key ${publicText(seal.publicKey).trim()}, which is not trusted`,
        "If the origin has a new key, add its public line to the file of --trust",
      );
    }
    if (!isSigned(seal)) refuse("the signature of its seal is wrong");
    return seal;
  }

  /**
   * Compares an image's header with its seal.
   * @throws {VolcastError} `untrusted`.
   */
  checkHeader(seal: Seal, header: StreamHeader): void {
    const { name, time, root } = header.top;
    const { snapshot } = seal;
    const isIt = header.volumeId === seal.volumeId && idOf(header.top) === sealedId(seal) &&
      name === snapshot.name && time === snapshot.time && root.vbn === snapshot.root.vbn;
    if (isIt) return;
    throw new VolcastError(
      "untrusted",
      `Cannot trust the image: it says that it is '${name}' (${
        idOf(header.top)
      }), the seal is of ` +
        `'${snapshot.name}' (${sealedId(seal)})`,
    );
  }

  /**
   * Computes the sum of what has come in, and compares it with what was signed (invariant 1); then notes
   * it beside the seal, for the next increment.
   * @throws {VolcastError} `untrusted`; the caller makes nothing current then.
   */
  async checkContent(bytes: Uint8Array, seal: Seal, arrived: ArrivedRoot): Promise<void> {
    const { volume } = arrived;
    const known = volume.hasRoot ? knownSum(volume.local, volume.current.id) : undefined;
    const sum = await sumOfArrived(arrived, known);
    if (!equalBytes(sum.digest, seal.digest)) {
      throw new VolcastError(
        "untrusted",
        `Cannot trust '${seal.snapshot.name}' (${
          sealedId(seal)
        }): its content is not what was sealed`,
        "A node on the way has changed it. What is here stays; another parent is asked, or the same " +
          "one again",
      );
    }
    await volume.updateLocal((state) => noteSeal(state, bytes, seal, sum));
  }
}

/** The sum of a snapshot, where it was noted. */
export function knownSum(local: Readonly<LocalState>, id: string): PlaneSum | undefined {
  const text = local.sums?.[id];
  return text === undefined
    ? undefined
    : PlaneSum.from(new Uint8Array(Buffer.from(text, "base64")));
}

/** Notes a seal, and the sum that it stands for where that was computed here. */
export function noteSeal(
  state: LocalState,
  bytes: Uint8Array,
  seal: Seal,
  sum?: PlaneSum,
): void {
  const id = sealedId(seal);
  state.sealSequence = Math.max(state.sealSequence ?? 0, seal.sequence);
  state.seals = { ...state.seals, [seal.pointer]: Buffer.from(bytes).toString("base64") };
  if (sum !== undefined) {
    state.sums = { ...state.sums, [id]: Buffer.from(sum.bytes).toString("base64") };
  }
  // A sum is of use as long as a seal is of its snapshot.
  const sealed = new Set(Object.values(state.seals).map((text) => sealedId(sealOf(text))));
  for (const known of Object.keys(state.sums ?? {})) {
    if (!sealed.has(known)) delete state.sums![known];
  }
}

/** The seal of a snapshot that is known here: that for a pointer before others. */
export function sealFor(volume: Volume, top: string, pointer: string): Uint8Array | undefined {
  const seals = volume.local.seals ?? {};
  const names = [pointer, ...Object.keys(seals)].filter((name) => Object.hasOwn(seals, name));
  const name = names.find((name) => sealedId(sealOf(seals[name])) === top);
  return name === undefined ? undefined : new Uint8Array(Buffer.from(seals[name], "base64"));
}

/** A seal as the local zone has it. */
export function sealOf(text: string): UnverifiedSeal {
  return decodeSeal(new Uint8Array(Buffer.from(text, "base64")));
}

function showTime(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}
