/**
 * The scrub: every block is looked at as it lies on the disk, at a set rate, beside the readers; what is
 * bad is healed from other nodes.
 *
 * A *pass* looks at the newest root, then at what older ones have besides. A root that was looked at goes
 * away under it whenever something is published or pulled: the pass goes on with the one that came, at
 * the place where it was. So what has been here since the pass began was looked at when it is complete,
 * and what came meanwhile is looked at by the next one.
 *
 * Invariants:
 * 1. Nothing is held between two slices of work: a pull or a consistency point never waits for the scrub.
 *    In a slice nobody else runs, and its root is in use then.
 * 2. A block is left out only if it lies under the plane of a newer root and that of an older one: such a
 *    block is in all roots between, one of which was looked at.
 * 3. Bytes looked at in a time are not more than the rate says, whatever was missed before.
 *
 * States: idle -> (due, or asked for) looking -> idle. Bad blocks are tried again from both.
 *
 * @module
 */

import { BitPlane, messageOf, Pace, pageCountOf, pause, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import { type BadBlock, listOfBlocks, lookAtRoot, membership, rootsOf } from "../image/mod.ts";
import type { BlockUse, ScrubPlace, Snapshot, Volume } from "../volume/mod.ts";
import { Healer, type Relative } from "./healer.ts";
import type { Node } from "./node.ts";

/** Settings of a {@linkcode Scrub}. */
export interface ScrubOptions {
  /** Bytes that are looked at in a second, at most. */
  readonly bytesPerSecond: number;
  /** Time from the end of a pass to the next one, ms; 7 days by default. */
  readonly everyMs?: number;
  /** Who is asked for what is bad, in this order. */
  readonly relatives: readonly Relative[];
  readonly log: (text: string) => void;
  /** Time before what is bad is tried again, ms; 30,000 by default. */
  readonly retryMs?: number;
}

/** How a scrub is going. */
export interface ScrubStatus {
  readonly bytesPerSecond: number;
  /** When the pass under way began, ISO 8601; `null` between two. */
  readonly startedAt: string | null;
  /** When a pass was complete last. */
  readonly completedAt: string | null;
  /** Since this server started. */
  readonly checkedBlocks: number;
  readonly foundBlocks: number;
  readonly healedBlocks: number;
  /** How many are bad now, and which: VBNs as numbers and ranges. */
  readonly badBlocks: number;
  readonly bad: string;
  /** Paths and metafiles that have them. */
  readonly affected: readonly string[];
}

const WEEK_MS = 7 * 86_400_000;
/** Time between two notes of the place in the local zone, ms. */
const NOTE_MS = 30_000;
/** Time between two looks for a volume that is not there yet, ms. */
const VOLUME_MS = 1000;
/** How often a root is looked at again since what leads to its blocks was healed. */
const MAX_ROUNDS = 64;
/** Bad blocks that are told of one by one in a pass. */
const MAX_TOLD = 20;

/** A root, and from where on it is looked at. */
interface Look {
  readonly root: Snapshot;
  /** Whether it is the newest one: another may take its place. */
  readonly isFront: boolean;
  /** Blocks that a newer root has too. */
  readonly known: (vbn: number) => boolean;
}

/** See the module. */
export class Scrub {
  readonly healer: Healer;
  readonly #node: Node;
  readonly #options: ScrubOptions;
  #volume: Volume | undefined;
  /** How far the scrub of that volume is; what the local zone says is behind it now and then. */
  #place: ScrubPlace = { next: 0 };
  #checkedBlocks = 0;
  #told = 0;
  /** When the next slice may begin, by the clock of `performance`. */
  #dueAt = 0;
  #notedAt = 0;
  /** Before which nobody is asked again, since nobody had anything. */
  #askAfter = 0;
  readonly #pace = new Pace();
  /** Content below the block of the inode file at which the pass is that was looked at already. */
  #seen: { readonly plane: BitPlane; readonly next: number } | undefined;
  #isAsked = false;
  #hasNews = false;
  #wake = (): void => {};

  constructor(node: Node, options: ScrubOptions) {
    this.#node = node;
    this.#options = options;
    this.healer = new Healer(node, options);
  }

  /** How it goes. */
  get status(): ScrubStatus {
    const place = this.#place;
    const time = (ms: number | undefined) => ms === undefined ? null : new Date(ms).toISOString();
    const bad = [...this.healer.bad.values()];
    return {
      bytesPerSecond: this.#options.bytesPerSecond,
      startedAt: time(place?.startedAt),
      completedAt: time(place?.completedAt),
      checkedBlocks: this.#checkedBlocks,
      foundBlocks: this.healer.foundCount,
      healedBlocks: this.healer.healedCount,
      badBlocks: bad.length,
      bad: listOfBlocks(bad.map(({ vbn }) => vbn).sort((a, b) => a - b)),
      affected: [...new Set(bad.flatMap(({ owners }) => owners ?? []))].sort(),
    };
  }

  /** Asks for a pass now, whenever the last one was; one that is under way is that. */
  begin(): void {
    this.#isAsked = true;
    this.#wake();
  }

  /** Runs until `signal` fires; failures are told and tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { retryMs = 30_000, log } = this.#options;
    const abort = () => this.#wake();
    signal.addEventListener("abort", abort);
    let told: string | undefined;
    while (!signal.aborted) {
      const volume = this.#node.volumeIfAny;
      // A replica's first image may come in at any time.
      let waitMs = Math.min(retryMs, VOLUME_MS);
      try {
        if (volume?.hasRoot && !volume.isClosed) waitMs = await this.#round(volume, signal);
        told = undefined;
      } catch (error) {
        if (signal.aborted) break;
        waitMs = retryMs;
        const text = `Cannot scrub: ${messageOf(error)}`;
        if (text !== told) log(text);
        told = text;
      }
      await this.#sleep(Math.min(waitMs, 2 ** 30), signal);
    }
    signal.removeEventListener("abort", abort);
  }

  /** Heals what is known to be bad, and makes a pass if it is time. @returns How long there is nothing to do. */
  async #round(volume: Volume, signal: AbortSignal): Promise<number> {
    const { everyMs = WEEK_MS, retryMs = 30_000 } = this.#options;
    this.#meet(volume);
    const before = this.healer.bad.size;
    if (await this.#heal(volume, signal) && this.healer.bad.size === 0 && before > 0) {
      await this.#note(volume);
    }
    const { startedAt, completedAt } = this.#place;
    // A pass that ended in the future says nothing: the clock was set back since.
    const sinceMs = completedAt === undefined || completedAt > Date.now()
      ? Infinity
      : Date.now() - completedAt;
    if (this.#isAsked || startedAt !== undefined || sinceMs >= everyMs) {
      this.#isAsked = false;
      await this.#pass(volume, signal);
      return 0;
    }
    const untilDue = everyMs - sinceMs;
    return this.healer.bad.size > 0 ? Math.min(retryMs, untilDue) : untilDue;
  }

  /** A volume that was not looked at before: it tells how far it is, and of bad blocks that readers meet. */
  #meet(volume: Volume): void {
    if (this.#volume !== volume) {
      this.#volume = volume;
      this.#place = volume.local.scrub ?? { next: 0 };
      this.#seen = undefined;
      this.healer.bad.clear();
    }
    volume.io.noted = (pointer, io) => {
      // What lay elsewhere for an older root says nothing of where it lies now.
      if (io !== volume.io || !this.healer.note(volume, pointer)) return;
      this.#hasNews = true;
      this.#options.log(`VBN ${pointer.vbn} is bad, a reader met it`);
      this.#wake();
    };
  }

  /** @returns Whether anything was healed. */
  async #heal(volume: Volume, signal: AbortSignal): Promise<boolean> {
    this.#hasNews = false;
    const hadMetadata = [...this.healer.bad.values()].some(({ found }) =>
      found !== undefined && found.use !== "content"
    );
    const healed = await this.healer.heal(volume, signal);
    // What is below was not looked at.
    if (healed > 0 && hadMetadata && this.#place.startedAt === undefined) this.#isAsked = true;
    return healed > 0;
  }

  async #pass(volume: Volume, signal: AbortSignal): Promise<void> {
    const began = performance.now();
    const counts = [this.#checkedBlocks, this.healer.foundCount, this.healer.healedCount];
    const { startedAt = Date.now() } = this.#place;
    this.#place = { ...this.#place, startedAt };
    this.#told = 0;
    await this.#note(volume);
    await this.#healSlots(volume);
    while (this.#isHere(volume, signal)) {
      const look = nextLook(volume, this.#place.through);
      if (look === undefined) return await this.#complete(volume, began, counts);
      await this.#look(volume, look, signal);
    }
    // A server that ends goes on from here when it starts again.
    if (this.#node.volumeIfAny === volume && !volume.isClosed) await this.#note(volume);
  }

  /** Looks at a root to its end, or until it is not in use any more; `#place` says from where to go on. */
  async #look(volume: Volume, look: Look, signal: AbortSignal): Promise<void> {
    const { root, isFront } = look;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const hidden: BadBlock[] = [];
      const isWhole = await this.#lookOnce(volume, look, hidden, signal);
      if (!isWhole) {
        // What replaces the newest root is looked at from here on. One that is gone has nothing to look at.
        if (!isFront) this.#place = { ...this.#place, next: 0 };
        return;
      }
      if (!hidden.some(({ vbn }) => !this.healer.bad.has(vbn))) break;
      // What lies below can be reached now.
      this.#place = { ...this.#place, next: 0 };
      this.#seen = undefined;
    }
    this.#seen = undefined;
    this.#place = { ...this.#place, through: root.cp, next: 0 };
  }

  /** @param hidden Gets bad blocks below which nothing could be looked at. @returns Whether it came to the end. */
  async #lookOnce(
    volume: Volume,
    { root, isFront, known }: Look,
    hidden: BadBlock[],
    signal: AbortSignal,
  ): Promise<boolean> {
    const { io } = volume;
    const isInUse = () =>
      this.#isHere(volume, signal) && volume.io === io &&
      (isFront ? volume.active.id === root.id : volume.find(root.id) !== undefined);
    const isKnown = (vbn: number, use: BlockUse) =>
      known(vbn) || (use === "content" && this.#isSeen(volume, vbn));
    const found = (block: BadBlock) => {
      if (block.use !== "content") hidden.push(block);
      this.#found(volume, block);
    };
    const steps = lookAtRoot(io.store, root, { from: this.#place.next, isKnown, found });
    for (const { blocks, next } of steps) {
      this.#checkedBlocks += blocks;
      this.#place = { ...this.#place, next };
      await this.#afterSlice(volume, blocks, signal);
      if (!isInUse()) return false;
      if (performance.now() - this.#notedAt >= NOTE_MS) await this.#note(volume);
    }
    if (this.#hasNews) await this.#heal(volume, signal);
    return isInUse();
  }

  /** Notes that content was looked at. @returns Whether it had been. */
  #isSeen(volume: Volume, vbn: number): boolean {
    const { next } = this.#place;
    if (this.#seen?.next !== next) {
      this.#seen = { plane: new BitPlane(pageCountOf(volume.zone.capacity)), next };
    }
    const { plane } = this.#seen!;
    if (plane.has(vbn)) return true;
    plane.set(vbn);
    return false;
  }

  #found(volume: Volume, block: BadBlock): void {
    if (!this.healer.note(volume, block, block)) return;
    this.#hasNews = true;
    if (++this.#told > MAX_TOLD) return;
    const more = this.#told === MAX_TOLD ? "; more of them are only counted" : "";
    const text = `VBN ${block.vbn} is bad, in '${block.snapshot.name}'${more}`;
    this.#options.log(text);
    this.#node.events.emit({ type: "scrub", result: "bad", message: text });
  }

  /** Heals what was found, and waits as long as the rate says; others run meanwhile. */
  async #afterSlice(volume: Volume, blocks: number, signal: AbortSignal): Promise<void> {
    if (this.#hasNews && performance.now() >= this.#askAfter) {
      const isBetter = await this.#heal(volume, signal);
      if (!isBetter && this.healer.bad.size > 0) {
        this.#askAfter = performance.now() + (this.#options.retryMs ?? 30_000);
      }
    }
    const ms = blocks * BLOCK_SIZE / this.#options.bytesPerSecond * 1000;
    const now = performance.now();
    this.#dueAt = Math.max(this.#dueAt, now) + ms;
    // A timer is not exact: shorter waits are added up.
    if (this.#dueAt - now >= 4) await pause(this.#dueAt - now, signal);
    else await this.#pace.turn();
  }

  async #healSlots(volume: Volume): Promise<void> {
    const slots = await volume.healSuperblocks();
    if (slots.length === 0) return;
    const text = `Wrote the superblock in VBN ${slots.join(" and ")} again: it was bad`;
    this.#options.log(text);
    this.#node.events.emit({ type: "scrub", result: "healed", message: text });
  }

  async #complete(
    volume: Volume,
    began: number,
    [checked, found, healed]: readonly number[],
  ): Promise<void> {
    this.#place = { next: 0, completedAt: Date.now() };
    await this.#note(volume);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const foundNow = this.healer.foundCount - found;
    const what = foundNow === 0
      ? "every block is as it should be"
      : `${foundNow} were bad, ${this.healer.healedCount - healed} healed`;
    const text = `Scrubbed ${this.#checkedBlocks - checked} blocks in ${seconds} s: ${what}`;
    this.#options.log(text);
    this.#node.events.emit({ type: "scrub", result: "complete", message: text });
  }

  /**
   * Notes the place durably. While something is bad, what is noted is that a pass has just begun: a server
   * that starts again must find it again.
   */
  async #note(volume: Volume): Promise<void> {
    this.#notedAt = performance.now();
    const { startedAt = Date.now(), completedAt } = this.#place;
    const anew = { startedAt, next: 0, ...(completedAt === undefined ? {} : { completedAt }) };
    const place = this.healer.bad.size > 0 ? anew : this.#place;
    await volume.updateLocal((local) => {
      local.scrub = place;
    });
  }

  #isHere(volume: Volume, signal: AbortSignal): boolean {
    return !signal.aborted && this.#node.volumeIfAny === volume && !volume.isClosed;
  }

  #sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (ms <= 0 || this.#isAsked || this.#hasNews || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }
}

/** The newest root first, then older ones without what is in the next newer one. */
function nextLook(volume: Volume, through: number | undefined): Look | undefined {
  if (through === undefined) {
    return { root: volume.active, isFront: true, known: () => false };
  }
  const byAge = rootsOf(volume).sort((a, b) => a.cp - b.cp);
  const root = byAge.findLast(({ cp }) => cp < through);
  if (root === undefined) return undefined;
  const newer = byAge.find(({ cp }) => cp > root.cp);
  if (newer === undefined) return { root, isFront: false, known: () => false };
  let isInNewer: ((vbn: number) => boolean) | undefined;
  const known = (vbn: number): boolean => {
    try {
      isInNewer ??= membership(volume.plane(newer));
      return isInNewer(vbn);
    } catch (error) {
      // A page of the plane that is bad leaves nothing out.
      if (!(error instanceof VolcastError)) throw error;
      return false;
    }
  };
  return { root, isFront: false, known };
}
