/**
 * A block store over several: units of 256 blocks go to one member after the other, so that a long
 * read or write, and an image stream, use all of them.
 *
 * Invariants:
 * 1. A VBN lies in the unit `vbn / 256`, which lies in member `unit % count`.
 * 2. A header says which member of which stripe a file is; it is never changed.
 * 3. `sync` has made the writes of every member durable when it is done.
 *
 * @module
 */

import { damaged, type VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  decodeStripeHeader,
  encodeStripeHeader,
  memberBlocksOf,
  STRIPE_DATA_START,
  STRIPE_UNIT,
  type StripeHeader,
} from "../format/mod.ts";
import { type BlockStore, checkRun, type ReadPart } from "./block_store.ts";

/** See the module. */
export class StripedStore implements BlockStore {
  readonly capacity: number;
  readonly #members: readonly BlockStore[];

  private constructor(members: readonly BlockStore[], capacity: number) {
    this.#members = members;
    this.capacity = capacity;
  }

  /**
   * Makes a stripe of new members; durable after the first `sync`.
   *
   * @param stripe.names Paths under which members find each other.
   * @param stripe.stripeId 32 hexadecimal digits.
   */
  static create(
    members: readonly BlockStore[],
    stripe: { capacity: number; names: readonly string[]; stripeId: string },
  ): StripedStore {
    const memberBlocks = memberBlocksOf(stripe.capacity, members.length);
    members.forEach((member, index) =>
      member.write(0, encodeStripeHeader({ ...stripe, memberBlocks, index }))
    );
    return new StripedStore(members, stripe.capacity);
  }

  /**
   * Opens a stripe.
   *
   * @param members All of them, in order. @param paths What they are called in messages.
   * @throws {VolcastError} `damaged`, naming the member that is not what it should be.
   */
  static open(members: readonly BlockStore[], paths: readonly string[]): StripedStore {
    const headers = members.map((member, i) => {
      const header = readStripeHeader(member);
      if (header !== undefined) return header;
      throw damaged(`Cannot open ${paths[i]}: it is no member of a striped volume`);
    });
    checkMembers(headers, paths);
    const { capacity, memberBlocks } = headers[0];
    members.forEach((member, i) => {
      if (member.capacity >= memberBlocks) return;
      throw damaged(
        `Cannot open ${
          paths[i]
        }: it has ${member.capacity} blocks, a member of this stripe ${memberBlocks}`,
        "The file was cut off: copy it again from where it came",
      );
    });
    return new StripedStore(members, capacity);
  }

  /** One member that can only be read is enough. */
  get readOnly(): VolcastError | undefined {
    return this.#members.find((member) => member.readOnly !== undefined)?.readOnly;
  }

  read(vbn: number, target: Uint8Array): void {
    checkRun(this.capacity, vbn, target.length);
    this.#split(vbn, target, (member, at, part) => this.#members[member].read(at, part));
  }

  write(vbn: number, source: Uint8Array): void {
    checkRun(this.capacity, vbn, source.length);
    this.#split(vbn, source, (member, at, part) => this.#members[member].write(at, part));
  }

  async readParallel(parts: readonly ReadPart[]): Promise<void> {
    const shares: ReadPart[][] = this.#members.map(() => []);
    for (const { vbn, target } of parts) {
      checkRun(this.capacity, vbn, target.length);
      this.#split(
        vbn,
        target,
        (member, at, part) => shares[member].push({ vbn: at, target: part }),
      );
    }
    await all(this.#members.map(async (member, i) => {
      if (shares[i].length === 0) return;
      if (member.readParallel !== undefined) return await member.readParallel(shares[i]);
      for (const part of shares[i]) member.read(part.vbn, part.target);
    }));
  }

  async sync(): Promise<void> {
    await all(this.#members.map((member) => member.sync()));
  }

  async retry(): Promise<void> {
    await all(this.#members.map((member) => member.retry?.() ?? Promise.resolve()));
  }

  close(): void {
    for (const member of this.#members) member.close();
  }

  /** Cuts a run where units end. */
  #split(
    vbn: number,
    bytes: Uint8Array,
    visit: (member: number, at: number, part: Uint8Array) => void,
  ): void {
    const { length } = this.#members;
    const total = bytes.length / BLOCK_SIZE;
    for (let done = 0; done < total;) {
      const unit = Math.floor((vbn + done) / STRIPE_UNIT);
      const within = (vbn + done) % STRIPE_UNIT;
      const count = Math.min(total - done, STRIPE_UNIT - within);
      const at = STRIPE_DATA_START + Math.floor(unit / length) * STRIPE_UNIT + within;
      visit(unit % length, at, bytes.subarray(done * BLOCK_SIZE, (done + count) * BLOCK_SIZE));
      done += count;
    }
  }
}

/** The stripe header of a member, `undefined` where there is none. @throws {VolcastError} `damaged`. */
export function readStripeHeader(store: BlockStore): StripeHeader | undefined {
  if (store.capacity < 1) return undefined;
  const block = new Uint8Array(BLOCK_SIZE);
  store.read(0, block);
  return decodeStripeHeader(block);
}

/** Whether these are all members of one stripe, in order. */
function checkMembers(headers: readonly StripeHeader[], paths: readonly string[]): void {
  const [{ stripeId, names }] = headers;
  const foreign = headers.findIndex((header) => header.stripeId !== stripeId);
  if (foreign > 0) {
    throw damaged(
      `Cannot open the striped volume: ${paths[foreign]} belongs to the stripe ` +
        `${headers[foreign].stripeId}, ${paths[0]} to ${stripeId}`,
      "Give the members of one volume",
    );
  }
  const indexes = headers.map((header) => header.index);
  const missing = names.filter((_, i) => !indexes.includes(i));
  if (missing.length > 0 || headers.length !== names.length) {
    throw damaged(
      `Cannot open the striped volume: ${headers.length} members are given, it has ${names.length}` +
        (missing.length === 0 ? "" : `; ${missing.join(", ")} is missing`),
      "Give each member once",
    );
  }
  if (indexes.some((index, i) => index !== i)) throw swapped(indexes, paths);
}

function swapped(indexes: readonly number[], paths: readonly string[]): VolcastError {
  const wrong = indexes.findIndex((index, i) => index !== i);
  const inOrder = paths.map((_, i) => paths[indexes.indexOf(i)]);
  return damaged(
    `Cannot open the striped volume: ${paths[wrong]} is member ${indexes[wrong] + 1} of ` +
      `${paths.length}, and stands where member ${wrong + 1} should`,
    `The right order is: ${inOrder.join(",")}`,
  );
}

/** Waits for all, also when one fails: nothing goes on behind the caller's back. */
async function all(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
