/**
 * Crash simulation: a scenario's work is recorded once; then power goes at every moment of it, in many
 * ways each, and what is found must be as it should.
 *
 * Of every disk found:
 * 1. It opens, and fsck finds nothing.
 * 2. The root is one that was in force, not older than what was acknowledged by then; so is the local state.
 * 3. Every block under a plane of what it keeps is what it was (I2), byte by byte.
 * 4. All that was acknowledged is there.
 * 5. The work goes on: the next publish, the next pull. So it does after another crash while it went on.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { forEachRunOfPage, PAGE_BITS } from "../../src/core/mod.ts";
import { type BlockStore, MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume, type VolumeOptions } from "../../src/volume/mod.ts";
import { tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { copyOf, CrashStore } from "../helpers/stores.ts";
import { blockOf, CrashStates, type FoundDisks } from "./crash_states.ts";

/** Notes what was acknowledged: the state that a volume shows now, and what must be in it from now on. */
export type Acknowledge = (fact?: Fact) => void;
/** Whether something is in a volume. */
export type Fact = (volume: Volume) => boolean;

/** When power went. */
export interface CrashMoment {
  readonly moment: number;
  /** The moment of a second crash, while the work went on after the first. */
  readonly second?: number;
  /** While it goes on to a second crash: the time of that. */
  readonly now?: () => number;
}

/** What a scenario plays on. */
export interface Scene {
  readonly disks: readonly MemoryStore[];
  /** The store on the disks; by default the only disk. */
  readonly store?: (disks: readonly BlockStore[]) => BlockStore;
  readonly open?: (store: BlockStore) => Volume;
  /** What is recorded. */
  readonly work: (volume: Volume, acknowledge: Acknowledge, now: () => number) => Promise<void>;
  /** Looks for more than what is true of all volumes. @throws */
  readonly check?: (volume: Volume, store: BlockStore) => void;
  /** What comes next, whatever was found: it must come to an end, more than once. @throws */
  readonly next: (volume: Volume, at: CrashMoment) => Promise<void>;
  /** Gives back what the scene has besides. */
  readonly close?: () => Promise<void>;
}

/** Something that a volume does. */
export interface Scenario {
  readonly name: string;
  readonly begin: (random: Random) => Promise<Scene>;
}

/** A mistake made on purpose, that the simulation must see. */
export interface Mistake {
  /** The disk as the mistaken volume has it. */
  readonly wrap?: (disk: CrashStore) => BlockStore;
  /** Number of a sync (from 1 on) -> whether it does nothing. */
  readonly brokenSync?: (number: number) => boolean;
  readonly spoil?: (volume: Volume) => Promise<void>;
}

/** How much is tried. */
export interface CrashOptions {
  readonly seed: number;
  /** Disks at each of 120 moments; more at each where there are fewer moments, and fewer where more. */
  readonly statesEach: number;
  readonly mistake?: Mistake;
  /** Only this moment. */
  readonly cut?: number;
  /** Only this state of it. */
  readonly state?: number;
  /** Problems after which it ends; 5 by default. */
  readonly most?: number;
}

/** Something that is wrong. */
export interface Problem {
  readonly cut: number;
  readonly state: number;
  readonly problem: string;
}

/** What was tried and found. */
export interface CrashReport {
  readonly cuts: number;
  /** Distinct disks, those of second crashes included. */
  readonly states: number;
  /** Those found after a crash while the work went on after a crash. */
  readonly secondCrashes: number;
  /** Roots in force, one after the other. */
  readonly roots: number;
  readonly problems: readonly Problem[];
}

/** Options of volumes here: nothing happens by the clock. */
export const QUIET: VolumeOptions = { checkpointMs: 2 ** 31 - 1, cacheBytes: 2 ** 22 };

/** Options with a clock that makes equal runs equal. */
export function quiet(options: VolumeOptions = {}): VolumeOptions {
  return { ...QUIET, now: tickingClock(), ...options };
}

/** Plays a scenario and tries its crashes. What it finds is in the report; it does not throw for that. */
export async function simulateCrashes(
  scenario: Scenario,
  options: CrashOptions,
): Promise<CrashReport> {
  return await withChance(options.seed, async () => {
    const scene = await scenario.begin(new Random(options.seed));
    try {
      const simulation = new Simulation(scene, options);
      return await simulation.run();
    } finally {
      await scene.close?.();
    }
  });
}

/** What a root in force is known by, and what is true of it. */
interface KnownRoot {
  readonly index: number;
  /** Blocks under planes, as they are read. */
  readonly blocks: ReadonlyMap<number, Uint8Array>;
  readonly facts: readonly boolean[];
}

interface Verdict {
  readonly problem?: string;
  readonly root: number;
  readonly local: string;
  readonly known?: KnownRoot;
}

class Simulation {
  readonly #scene: Scene;
  readonly #options: CrashOptions;
  readonly #clock = { now: 0 };
  readonly #roots = new Map<string, KnownRoot>();
  /** Local states, one after the other; one that was there before may come again. */
  readonly #locals: string[] = [];
  /** For each moment the number of the local state that was written last. */
  readonly #localAt: number[] = [];
  readonly #acknowledged: { moment: number; root: string; local: string; fact?: Fact }[] = [];
  readonly #verdicts = new Map<string, Verdict>();
  readonly #problems: Problem[] = [];
  #recorded: CrashStore[] = [];
  /** Disks found after second crashes. */
  readonly #second = new Set<string>();

  constructor(scene: Scene, options: CrashOptions) {
    this.#scene = scene;
    this.#options = options;
  }

  async run(): Promise<CrashReport> {
    await this.#record();
    this.#learn();
    const states = this.#states();
    const { cut, state, statesEach, most = 5 } = this.#options;
    for (let moment = 0; moment <= this.#clock.now; moment++) {
      if (this.#problems.length >= most) break;
      states.advance(moment);
      if (cut !== undefined && moment !== cut) continue;
      // Nothing can be lost: there is one disk only.
      const count = states.unsynced === 0
        ? 1
        : Math.max(2, Math.round(statesEach * 120 / this.#clock.now));
      const [first, end] = state === undefined ? [0, count] : [state, state + 1];
      for (let number = first; number < end && this.#problems.length < most; number++) {
        const random = new Random(mixed(this.#options.seed, moment, number));
        await this.#try(states.state(number, random), { moment, number, random });
      }
    }
    const secondCrashes = [...this.#second].filter((hash) => !this.#verdicts.has(hash)).length;
    return {
      cuts: this.#clock.now + 1,
      states: this.#verdicts.size + secondCrashes,
      secondCrashes,
      roots: this.#roots.size,
      problems: this.#problems,
    };
  }

  async #record(): Promise<void> {
    const { mistake = {} } = this.#options;
    this.#recorded = this.#scene.disks.map((disk) => new CrashStore(disk, this.#clock));
    const disks = this.#recorded.map((disk) => {
      disk.brokenSync = mistake.brokenSync ?? (() => false);
      return mistake.wrap?.(disk) ?? disk;
    });
    const volume = this.#open(disks);
    await mistake.spoil?.(volume);
    const acknowledge = (fact?: Fact) =>
      void this.#acknowledged.push({
        moment: this.#clock.now,
        root: rootKey(volume),
        local: localKey(volume),
        ...(fact === undefined ? {} : { fact }),
      });
    acknowledge();
    await this.#scene.work(volume, acknowledge, () => this.#clock.now);
    acknowledge();
    volume.abandon();
  }

  /** Looks at all moments with nothing lost: these are the states that there may be. */
  #learn(): void {
    const states = this.#states();
    for (let moment = 0; moment <= this.#clock.now; moment++) {
      states.advance(moment);
      const { disks } = states.whole();
      const volume = this.#open(disks);
      const root = rootKey(volume);
      const local = localKey(volume);
      if (this.#locals.at(-1) !== local) this.#locals.push(local);
      this.#localAt.push(this.#locals.length - 1);
      if (!this.#roots.has(root)) {
        this.#roots.set(root, {
          index: this.#roots.size,
          blocks: keptBlocks(volume, this.#storeOf(volume, disks)),
          facts: this.#acknowledged.map(({ fact }) => fact === undefined || fact(volume)),
        });
      }
      volume.abandon();
    }
  }

  async #try(
    found: FoundDisks,
    at: { moment: number; number: number; random: Random },
  ): Promise<void> {
    let verdict = this.#verdicts.get(found.hash);
    if (verdict === undefined) {
      verdict = await this.#judge(found.disks, at);
      this.#verdicts.set(found.hash, verdict);
    }
    const problem = verdict.problem ?? this.#missing(verdict, at.moment);
    if (problem !== undefined) {
      this.#problems.push({ cut: at.moment, state: at.number, problem });
    }
  }

  /** Everything that does not depend on the moment. */
  async #judge(
    disks: readonly MemoryStore[],
    { moment, random }: { moment: number; random: Random },
  ): Promise<Verdict> {
    const none = { root: -1, local: "" };
    let volume: Volume | undefined;
    try {
      const again = random.oneIn(6) ? disks.map(copyOf) : undefined;
      volume = this.#open(disks);
      const known = this.#roots.get(rootKey(volume));
      if (known === undefined) return { ...none, problem: `never in force: ${rootKey(volume)}` };
      const local = localKey(volume);
      if (!this.#locals.includes(local)) return { ...none, problem: `never there: ${local}` };
      this.#check(volume, known, disks);
      await this.#scene.next(volume, { moment });
      checkClean(volume);
      volume.abandon();
      volume = undefined;
      if (again !== undefined) await this.#crashAgain(again, known, { moment, random });
      return { root: known.index, local, known };
    } catch (error) {
      return {
        ...none,
        problem: error instanceof Error ? error.stack ?? error.message : `${error}`,
      };
    } finally {
      volume?.abandon();
    }
  }

  #check(volume: Volume, known: KnownRoot, disks: readonly MemoryStore[]): void {
    checkClean(volume);
    const store = this.#storeOf(volume, disks);
    for (const [vbn, wanted] of known.blocks) {
      const block = blockOf(store, vbn);
      if (block === wanted || Buffer.compare(block, wanted) === 0) continue;
      throw new Error(`VBN ${vbn} is not what it was`);
    }
    this.#scene.check?.(volume, store);
  }

  /** Power goes while the work goes on after a crash. */
  async #crashAgain(
    disks: readonly MemoryStore[],
    before: KnownRoot,
    { moment, random }: { moment: number; random: Random },
  ): Promise<void> {
    const clock = { now: 0 };
    const recorded = disks.map((disk) => new CrashStore(disk, clock));
    const first = this.#open(recorded);
    const found = rootKey(first);
    await this.#scene.next(first, { moment, now: () => clock.now });
    const last = rootKey(first);
    first.abandon();
    const states = new CrashStates(
      disks.map((initial, i) => ({ initial, recorded: recorded[i] })),
    );
    const cuts = Array.from({ length: 4 }, () => random.below(clock.now + 1)).sort((a, b) => a - b);
    for (const cut of [...new Set([...cuts, clock.now])]) {
      states.advance(cut);
      const { disks: again, hash } = states.state(random.below(4), random);
      const volume = this.#open(again);
      try {
        const root = rootKey(volume);
        if (cut === clock.now && root !== last) throw new Error(`${root} after ${last}`);
        if (root === found) this.#check(volume, before, again);
        else if (sequenceOf(root) < sequenceOf(found)) throw new Error(`${root} after ${found}`);
        else checkClean(volume);
        await this.#scene.next(volume, { moment, second: cut });
        checkClean(volume);
      } catch (error) {
        const text = error instanceof Error ? error.stack ?? error.message : `${error}`;
        throw new Error(`after a second crash, at ${cut} of ${clock.now}: ${text}`);
      } finally {
        volume.abandon();
      }
      this.#second.add(hash);
    }
  }

  /** What was acknowledged by a moment, and is not there. */
  #missing({ root, local, known }: Verdict, moment: number): string | undefined {
    const found = this.#localBy(local, moment, -1);
    for (const [i, one] of this.#acknowledged.entries()) {
      if (one.moment > moment) break;
      if (root < (this.#roots.get(one.root)?.index ?? Infinity)) {
        return `root ${root} was found, acknowledged was ${one.root}`;
      }
      if (found < this.#localBy(one.local, one.moment, Infinity)) {
        return `the local state ${local} was found, acknowledged was ${one.local}`;
      }
      if (known?.facts[i] === false) return `something acknowledged at ${one.moment} is not there`;
    }
  }

  /** The last time up to a moment that a local state was written. */
  #localBy(local: string, moment: number, otherwise: number): number {
    const index = this.#locals.lastIndexOf(local, this.#localAt[moment]);
    return index < 0 ? otherwise : index;
  }

  #open(disks: readonly BlockStore[]): Volume {
    const { store = ([disk]: readonly BlockStore[]) => disk, open } = this.#scene;
    return open?.(store(disks)) ?? Volume.open(store(disks), quiet());
  }

  /** What a volume's blocks are read from; straight from the disk where that is the same. */
  #storeOf(volume: Volume, disks: readonly MemoryStore[]): BlockStore {
    const isPlain = this.#scene.store === undefined && volume.hasRoot &&
      volume.superblock.remap === undefined;
    return isPlain ? disks[0] : volume.io.store;
  }

  #states(): CrashStates {
    return new CrashStates(
      this.#scene.disks.map((initial, i) => ({ initial, recorded: this.#recorded[i] })),
    );
  }
}

function rootKey(volume: Volume): string {
  return volume.hasRoot ? text(volume.superblock) : "no root";
}

function localKey(volume: Volume): string {
  return text(volume.local);
}

/** The same text for equal values, whatever the order of their fields. */
function text(value: unknown): string {
  return JSON.stringify(value, (_, one) => {
    if (typeof one === "bigint") return String(one);
    if (typeof one !== "object" || one === null || Array.isArray(one)) return one;
    return Object.fromEntries(Object.entries(one).sort(([a], [b]) => a < b ? -1 : 1));
  });
}

function sequenceOf(root: string): number {
  return root.startsWith("{") ? JSON.parse(root).sequence : 0;
}

function checkClean(volume: Volume): void {
  if (!volume.hasRoot) return;
  const [finding] = fsck(volume).findings;
  if (finding !== undefined) throw new Error(`fsck: ${finding.snapshot}: ${finding.problem}`);
}

/** Every block under a plane of what a volume keeps, as it is read. */
function keptBlocks(volume: Volume, store: BlockStore): Map<number, Uint8Array> {
  const blocks = new Map<number, Uint8Array>();
  if (!volume.hasRoot) return blocks;
  for (const snapshot of [...volume.keptSnapshots(), volume.current, volume.active]) {
    const plane = volume.plane(snapshot);
    for (const index of plane.pages()) {
      forEachRunOfPage(plane.page(index), (start, count) => {
        for (let bit = start; bit < start + count; bit++) {
          const vbn = index * PAGE_BITS + bit;
          if (!blocks.has(vbn)) blocks.set(vbn, blockOf(store, vbn));
        }
      });
    }
  }
  return blocks;
}

/** A seed for one state. */
function mixed(...parts: readonly number[]): number {
  return parts.reduce((seed, part) => new Random(seed ^ Math.imul(part + 1, 0x9e3779b1)).word(), 1);
}

/** Runs something with the host's chance and clock replaced, so that its blocks come again with the seed. */
async function withChance<T>(seed: number, work: () => Promise<T>): Promise<T> {
  const random = new Random(seed ^ 0x5eed);
  const { getRandomValues, randomUUID } = crypto;
  const { now } = Date;
  let time = 1_700_000_000_000;
  Date.now = () => ++time;
  crypto.getRandomValues = (array) => {
    const bytes = new Uint8Array(
      array!.buffer as ArrayBuffer,
      array!.byteOffset,
      array!.byteLength,
    );
    bytes.set(random.bytes(bytes.length));
    return array;
  };
  crypto.randomUUID = () => {
    const hex = Array.from({ length: 32 }, () => random.below(16).toString(16)).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-") as ReturnType<
      typeof randomUUID
    >;
  };
  try {
    return await work();
  } finally {
    Date.now = now;
    crypto.getRandomValues = getRandomValues;
    crypto.randomUUID = randomUUID;
  }
}
