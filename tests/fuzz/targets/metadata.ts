/**
 * Volumes whose metadata lies and whose checksums are right: what comes from a hostile origin.
 *
 * @module
 */

import {
  BLOCK_SIZE,
  checksum,
  DIRECTORY_PAGE_LAYOUT,
  type Field,
  INO,
  INODE_LAYOUT,
  INODE_SIZE,
  INODES_PER_BLOCK,
  POINTER_LAYOUT,
  ROOT_LAYOUT,
  SNAPSHOT_LAYOUT,
  SUPERBLOCK_LAYOUT,
  zoneOf,
} from "../../../src/format/mod.ts";
import { type BlockStore, MemoryStore } from "../../../src/store/mod.ts";
import { LOCAL_SLOT_LAYOUT, Volume } from "../../../src/volume/mod.ts";
import type { Random } from "../../helpers/random.ts";
import { Anatomy, forged, type Place } from "../forge.ts";
import { fieldChange, number, toHex } from "../mutate.ts";
import { BLOCKS, makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import { useVolume } from "../use_volume.ts";

/** Numbers near limits of the volumes here. */
const NEAR = [0, 1, 2, 5, 16, 63, 66, 67, 68, 700, BLOCKS - 1, BLOCKS, BLOCKS + 1, 32768];
const VOLUMES = ["origin", "replica", "branched"] as const;

type Layout = { fields: readonly Field[]; offsetOf(name: never): number; size: number };

/** See the module. */
export const metadata: Target = {
  name: "metadata",
  limits: { work: 150_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    const anatomies = {
      origin: new Anatomy(scene.origin),
      replica: new Anatomy(scene.replica),
      branched: new Anatomy(scene.branched),
    };
    return {
      make(random) {
        const volume = random.pick(VOLUMES);
        const maker = new Maker(random, anatomies[volume]);
        const count = random.pick([1, 1, 1, 2, 2, 3, 6]);
        const steps: Step[] = [{ op: "volume", volume }];
        for (let i = 0; i < count; i++) steps.push(maker.step());
        return steps;
      },
      async run(input: Input, watch) {
        const chosen = input.find(({ op }) => op === "volume")?.volume ?? "origin";
        const volume = VOLUMES.find((name) => name === chosen)!;
        const store = forged(anatomies[volume], input);
        for (const step of input) if (step.op === "local") writeLocal(store, step);
        const healthy = () => Volume.open(new Frozen(scene[volume]), OPTIONS);
        await useVolume(store, watch, healthy, volume === "branched" ? { localWrites: true } : {});
      },
    };
  },
};

/** A store that keeps what it has. */
class Frozen implements BlockStore {
  readonly #under: MemoryStore;
  constructor(under: MemoryStore) {
    this.#under = under;
  }
  get capacity(): number {
    return this.#under.capacity;
  }
  read(vbn: number, target: Uint8Array): void {
    this.#under.read(vbn, target);
  }
  write(): void {}
  sync(): Promise<void> {
    return Promise.resolve();
  }
  close(): void {}
}

/** Gives a volume a local state of its own, with the right checksum. */
function writeLocal(store: MemoryStore, step: Step): void {
  const json = new TextEncoder().encode(String(step.text));
  const bytes = new Uint8Array(Math.ceil((LOCAL_SLOT_LAYOUT.size + json.length) / 4096) * 4096);
  const record = {
    magic: 0x534c4356,
    length: Number(step.length ?? json.length),
    sequence: Number(step.sequence ?? 1000),
    crc: checksum(json),
  };
  LOCAL_SLOT_LAYOUT.write(record, bytes);
  bytes.set(json, LOCAL_SLOT_LAYOUT.size);
  store.write(zoneOf(store.capacity).localSlots[0].start, bytes);
}

/** Makes steps for a volume. */
export class Maker {
  readonly #random: Random;
  readonly #anatomy: Anatomy;
  readonly #addresses: readonly string[];

  constructor(random: Random, anatomy: Anatomy) {
    this.#random = random;
    this.#anatomy = anatomy;
    this.#addresses = [...anatomy.places.keys()];
  }

  step(): Step {
    const random = this.#random;
    const kinds: (() => Step)[] = [
      () => this.#inode(),
      () => this.#inode(),
      () => this.#inode(),
      () => this.#pointer(),
      () => this.#pointer(),
      () => this.#slot(),
      () => this.#slot(),
      () => this.#directory(),
      () => this.#directory(),
      () => this.#directory(),
      () => this.#record(),
      () => this.#plane(),
      () => this.#plane(),
      () => this.#field("super", SUPERBLOCK_LAYOUT),
      () => this.#root(),
      () => this.#anywhere(),
      () => this.#copy(),
      () => this.#local(),
    ];
    return random.pick(kinds)();
  }

  #pickAddress(wanted: (place: Place, address: string) => boolean): string {
    const found = this.#addresses.filter((address) =>
      wanted(this.#anatomy.places.get(address)!, address)
    );
    // What is read first matters most.
    const active = found.filter((address) => address.startsWith("active/"));
    const pool = active.length > 0 && this.#random.oneIn(2) ? active : found;
    return pool.length === 0 ? "super" : this.#random.pick(pool);
  }

  #set(at: string, offset: number, hex: string): Step {
    const step: Step = { op: "set", at, offset, hex };
    return this.#random.oneIn(12) ? { ...step, same: true } : step;
  }

  #field(at: string, layout: Layout, base = 0, wanted?: string[]): Step {
    const { offset, hex } = fieldChange(this.#random, layout, NEAR, wanted);
    return this.#set(at, base + offset, hex);
  }

  #root(): Step {
    const at = this.#pickAddress(({ use }) => use === "root");
    if (this.#random.oneIn(2)) return this.#field(at, ROOT_LAYOUT);
    return this.#field(at, INODE_LAYOUT, ROOT_LAYOUT.offsetOf("inodeFile"));
  }

  /** Where an inode lies: its block, and the byte there. */
  #placeOfInode(): { at: string; base: number } {
    const at = this.#pickAddress(({ use }) => use === "inodes");
    const [name, , , index] = at.split("/");
    const here = (this.#anatomy.inodes.get(name) ?? []).filter((ino) =>
      Math.floor(ino / INODES_PER_BLOCK) === Number(index)
    );
    const ino = here.length > 0 && !this.#random.oneIn(10)
      ? this.#random.pick(here)
      : this.#random.below(INODES_PER_BLOCK);
    return { at, base: (ino % INODES_PER_BLOCK) * INODE_SIZE };
  }

  #inode(): Step {
    const { at, base } = this.#placeOfInode();
    const wanted = ["mode", "nlink", "size", "height", "attributeHeight", "attributeSize", "rdev"];
    if (this.#random.oneIn(3)) return this.#field(at, INODE_LAYOUT, base);
    if (this.#random.oneIn(6)) {
      // Another height: the pointers mean another level.
      return this.#set(at, base + INODE_LAYOUT.offsetOf("height"), `0${this.#random.below(7)}`);
    }
    if (this.#random.oneIn(5)) {
      const type = this.#random.pick(["00a1", "0041", "0081", "0061", "0011", "00c1", "00f1"]);
      return this.#set(at, base, `${type}0000`);
    }
    return this.#field(at, INODE_LAYOUT, base, wanted);
  }

  #target(): string {
    if (this.#random.oneIn(5)) return String(number(this.#random, NEAR));
    return this.#random.pick(this.#addresses);
  }

  /** A pointer in an inode. */
  #slot(): Step {
    const { at, base } = this.#placeOfInode();
    const offset = base + INODE_LAYOUT.offsetOf("slots") +
      8 * this.#random.pick([0, 0, 1, 2, this.#random.below(16)]);
    return { op: "point", at, offset, to: this.#target() };
  }

  /** A pointer in a block of pointers; now and then to the block itself. */
  #pointer(): Step {
    const at = this.#pickAddress(({ use }) => use === "pointers");
    const offset = 8 * this.#random.pick([0, 0, 1, 2, 511, this.#random.below(510)]);
    if (this.#random.oneIn(3)) {
      return { op: "point", at, offset: offset % 4080, to: at, same: true };
    }
    return { op: "point", at, offset, to: this.#target() };
  }

  #directories(): string {
    const isDirectory = (place: Place) => {
      if (place.use !== "content" || place.ino === INO.blockMap) return false;
      const block = new Uint8Array(BLOCK_SIZE);
      this.#anatomy.store.read(place.vbn, block);
      const count = block[2] + block[3] * 256;
      return (block[0] === 1 || block[0] === 2 || block[0] === 3) && block[1] === 0 && count < 500;
    };
    return this.#pickAddress(isDirectory);
  }

  #directory(): Step {
    const random = this.#random;
    const at = this.#directories();
    const block = new Uint8Array(BLOCK_SIZE);
    this.#anatomy.store.read(this.#anatomy.places.get(at)!.vbn, block);
    const view = new DataView(block.buffer);
    const count = Math.max(1, Math.min(500, view.getUint16(2, true)));
    const entry = 16 + 2 * random.pick([0, random.below(count), count - 1]);
    const start = Math.min(4088, view.getUint16(entry, true));
    const inodes = [...this.#anatomy.inodes.values()].flat();
    switch (random.below(8)) {
      case 0:
      case 1:
        return this.#field(at, DIRECTORY_PAGE_LAYOUT);
      case 2:
        return this.#set(at, entry, toHex(random.pick([random.bytes(2), block.slice(16, 18)])));
      case 3: {
        const ino = random.oneIn(3) ? number(random, NEAR) : random.pick(inodes);
        return this.#set(at, start, toHex(new Uint8Array(new Uint32Array([ino]).buffer)));
      }
      case 4:
        return this.#set(at, start + 4, `0${random.below(9)}`);
      case 5:
        return this.#set(at, start + 5, toHex(random.bytes(1)));
      case 6: {
        // Another name of some length: dots, slashes, NUL, what is no UTF-8.
        const name = random.pick(["2e", "2e2e", "2f", "00", "ff", "2e2e2f", "612f62"]);
        return this.#set(at, start + 5, toHex(new Uint8Array([name.length / 2])) + name);
      }
      default:
        return this.#set(at, start + 6, random.pick(["2f", "00", "ff", "2e2e", "2e2e2f"]));
    }
  }

  #record(): Step {
    const random = this.#random;
    const [ino, layout]: [number, Layout] = random.oneIn(3)
      ? [INO.pointers, POINTER_LAYOUT]
      : [INO.snapshots, SNAPSHOT_LAYOUT];
    const at = this.#pickAddress((place) => place.use === "content" && place.ino === ino);
    const base = 512 * random.pick([0, 0, 1, 2, 3, random.below(8)]);
    if (layout === SNAPSHOT_LAYOUT && random.oneIn(4)) {
      const offset = base + SNAPSHOT_LAYOUT.offsetOf("rootVbn");
      return { op: "point", at, offset, to: this.#target() };
    }
    return this.#field(at, layout, base);
  }

  #plane(): Step {
    const random = this.#random;
    const planes: number[] = [INO.blockMap, INO.summary, INO.shadows];
    const at = this.#pickAddress((place) => place.use === "content" && planes.includes(place.ino));
    // Blocks in use that are said to be free, free ones said to be used, and bits behind the end.
    const offset = random.pick([0, 8, random.below(190), random.below(BLOCK_SIZE)]);
    const length = random.pick([1, 1, 4, 64]);
    const hex = random.pick(["00", "ff", toHex(random.bytes(1))]).repeat(length);
    return this.#set(at, offset, hex);
  }

  #anywhere(): Step {
    const at = this.#random.pick(this.#addresses);
    const count = this.#random.pick([1, 1, 2, 4, 8]);
    return this.#set(at, this.#random.below(BLOCK_SIZE), toHex(this.#random.bytes(count)));
  }

  /** A block in the place of another one. */
  #copy(): Step {
    const at = this.#pickAddress(({ use }) => use !== "super");
    return { op: "copy", at, to: this.#random.pick(this.#addresses) };
  }

  #local(): Step {
    const random = this.#random;
    const text = random.pick([
      "{",
      "null",
      "[]",
      "7",
      '"x"',
      "[".repeat(20_000),
      '{"held":["1-00000000"]}',
      '{"held":7}',
      '{"transfer":{"top":"1-00000000","frames":9007199254740993}}',
      '{"sites":{"__proto__":{"needs":[]}}}',
      `{"sites":{"${"x".repeat(5000)}":{}}}`,
      '{"held":[],"site":"\\ud800"}',
    ]);
    const sequence = random.oneIn(4) ? number(random, [1000]) : 1000;
    const step: Step = { op: "local", text, sequence: Math.min(sequence, 2 ** 53 - 1) };
    return random.oneIn(4) ? { ...step, length: number(random, NEAR) % 2 ** 32 } : step;
  }
}
