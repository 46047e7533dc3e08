/**
 * What lies on media: segments of images, packed files with their maps, members of stripes. Their checksums
 * are right, or bytes are changed behind them.
 *
 * @module
 */

import {
  checksum,
  MAP_BLOCK_LAYOUT,
  MAP_ENTRY_LAYOUT,
  memberBlocksOf,
  PACKED_HEADER_LAYOUT,
  seal,
  sealHeader,
  SEGMENT_HEADER_LAYOUT,
  STRIPE_LAYOUT,
} from "../../../src/format/mod.ts";
import {
  Image,
  ImageStore,
  inspectMedium,
  joinSegments,
  Pieces,
  piecesOf,
} from "../../../src/image/mod.ts";
import { type BlockStore, MemoryStore, PackedStore, StripedStore } from "../../../src/store/mod.ts";
import { Volume } from "../../../src/volume/mod.ts";
import { MEMBERS } from "../../helpers/arrangements.ts";
import { mediumOf, segmentsOf } from "../../helpers/pieces.ts";
import type { Random } from "../../helpers/random.ts";
import { copyOf } from "../../helpers/stores.ts";
import { streamOf } from "../../helpers/streams.ts";
import { GuardStore } from "../guard_store.ts";
import { applySteps, byteStep, fieldChange, fromHex, joined } from "../mutate.ts";
import { BLOCKS, makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import { useVolume } from "../use_volume.ts";
import type { Watch } from "../watch.ts";

const NEAR = [0, 1, 2, 3, 4, 5, 64, 100, 500, BLOCKS - 1, BLOCKS, BLOCKS + 1];
/** Blocks that a packed file may have. */
const FILE_BLOCKS = 1000;

interface Media {
  readonly segments: readonly Uint8Array[];
  readonly packed: MemoryStore;
  readonly stripe: readonly MemoryStore[];
  readonly healthy: () => Volume;
}

/** See the module. */
export const media: Target = {
  name: "media",
  limits: { work: 150_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    const volume = Volume.open(copyOf(scene.origin), OPTIONS);
    const image = new Image(volume, volume.resolve("s3"));
    const segments = await segmentsOf(image, { segmentBytes: 120_000, recordBytes: 4096 });
    volume.abandon();
    const made: Media = {
      segments,
      packed: await packedOf(scene.origin),
      stripe: await stripeOf(scene.origin),
      healthy: () => Volume.open(copyOf(scene.origin), OPTIONS),
    };
    return {
      make(random) {
        const kind = random.pick(["segments", "segments", "packed", "packed", "stripe"]);
        const steps: Step[] = [{ op: "media", kind }];
        for (let i = random.pick([1, 1, 2, 3]); i > 0; i--) {
          steps.push(makeStep(random, made, kind));
        }
        return steps;
      },
      async run(input, watch) {
        const kind = input.find(({ op }) => op === "media")?.kind;
        if (kind === "packed") await runPacked(made, input, watch);
        else if (kind === "stripe") await runStripe(made, input, watch);
        else await runSegments(made, input, watch);
      },
    };
  },
};

/** A volume in a packed file. */
async function packedOf(store: MemoryStore): Promise<MemoryStore> {
  const file = new MemoryStore(FILE_BLOCKS);
  const packed = PackedStore.create(file, store.capacity);
  let count = 0;
  for (const [vbn, block] of store.blocks) {
    packed.write(vbn, block);
    if (++count % 40 === 0) await packed.sync();
  }
  await packed.sync();
  return file;
}

async function stripeOf(store: MemoryStore): Promise<MemoryStore[]> {
  const members = MEMBERS.map(() => new MemoryStore(memberBlocksOf(store.capacity, 3)));
  const stripe = { capacity: store.capacity, names: MEMBERS, stripeId: "ab".repeat(16) };
  const striped = StripedStore.create(members, stripe);
  for (const [vbn, block] of store.blocks) striped.write(vbn, block);
  await striped.sync();
  return members;
}

function makeStep(random: Random, made: Media, kind: string): Step {
  if (kind === "segments") {
    const which = random.below(made.segments.length);
    const { length } = made.segments[which];
    if (random.oneIn(2)) {
      const { offset, hex } = fieldChange(random, SEGMENT_HEADER_LAYOUT, [...NEAR, length]);
      return { op: "segment", which, offset, hex };
    }
    if (random.oneIn(5)) return { op: "order", which, to: random.below(made.segments.length) };
    return { ...byteStep(random, random.oneIn(2) ? 4096 : length), which, raw: true };
  }
  if (kind === "stripe") {
    const { offset, hex } = fieldChange(random, STRIPE_LAYOUT, NEAR);
    return { op: "member", which: random.below(3), offset, hex };
  }
  switch (random.below(4)) {
    case 0: {
      const { offset, hex } = fieldChange(random, PACKED_HEADER_LAYOUT, NEAR);
      return { op: "head", offset, hex };
    }
    case 1: {
      const { offset, hex } = fieldChange(random, MAP_BLOCK_LAYOUT, NEAR);
      return { op: "map", link: random.below(4), offset, hex };
    }
    case 2: {
      const { offset, hex } = fieldChange(random, MAP_ENTRY_LAYOUT, NEAR);
      const at = MAP_BLOCK_LAYOUT.size + MAP_ENTRY_LAYOUT.size * random.below(60) + offset;
      return { op: "map", link: random.below(4), offset: at, hex };
    }
    default:
      return { op: "block", vbn: random.below(600), offset: random.below(4096), hex: "ff" };
  }
}

async function runSegments(made: Media, input: Input, watch: Watch): Promise<void> {
  const parts = made.segments.map((part) => new Uint8Array(part));
  for (const step of input) {
    const which = Number(step.which) % parts.length;
    if (step.op === "segment") {
      const header = parts[which].subarray(0, SEGMENT_HEADER_LAYOUT.size);
      header.set(
        fromHex(String(step.hex)).subarray(0, 4096 - Number(step.offset)),
        Number(step.offset),
      );
      seal(header);
    } else if (step.op === "order") {
      const to = Number(step.to) % parts.length;
      [parts[which], parts[to]] = [parts[to], parts[which]];
    } else if (step.raw === true) parts[which] = applySteps(parts[which], [step]);
  }
  const all = joined(...parts);
  for (const check of [true, false]) {
    await watch.attempt("inspect", async () => {
      for await (const { at } of inspectMedium(mediumOf("a", all), { check })) {
        watch.spend(10, `a finding at ${at}`);
      }
    });
  }
  await watch.attempt("pipe", async () => {
    for await (const part of joinSegments(streamOf(all))) watch.spend(part.length / 4096, "bytes");
  });
  await watch.attempt("read single blocks", async () => {
    const pieces = [];
    for (const [i, part] of parts.entries()) {
      pieces.push(...await piecesOf(mediumOf(`part ${i}`, part), () => watch.spend(1, "a note")));
    }
    const found = new Pieces(pieces, () => watch.spend(1, "a note"));
    found.missing();
    found.missingSegments();
    found.checkComplete();
    const store = await ImageStore.open([found]);
    for (const vbn of [0, 66, 67, 100, 300]) {
      try {
        store.block(vbn);
      } catch (error) {
        watch.refused("a block", error);
      }
    }
  });
}

async function runPacked(made: Media, input: Input, watch: Watch): Promise<void> {
  const file = copyOf(made.packed);
  for (const step of input) {
    const bytes = fromHex(String(step.hex ?? ""));
    const offset = Math.min(Number(step.offset), 4095);
    if (step.op === "block") change(file, Number(step.vbn), offset, bytes);
    else if (step.op === "head") changeHeaders(file, (block) => put(block, offset, bytes));
    else if (step.op === "map") changeMap(file, Number(step.link), offset, bytes);
  }
  const guard = new GuardStore(file, watch);
  const store = await watch.attempt("open packed", () => PackedStore.open(guard));
  if (store === undefined) return;
  await watch.attempt("packed", async () => {
    store.countIn(0, store.capacity);
    store.write(5, new Uint8Array(4096).fill(1));
    store.discard(5, 1);
    await store.sync();
    PackedStore.open(guard);
  });
  if (store.capacity === BLOCKS) await useOver(store, watch, made.healthy);
}

/** Opens the volume on a store made of others, through a copy in memory. */
async function useOver(store: BlockStore, watch: Watch, healthy: () => Volume): Promise<void> {
  const copy = new MemoryStore(BLOCKS);
  const whole = await watch.attempt("copy", () => {
    const block = new Uint8Array(4096);
    for (let vbn = 0; vbn < BLOCKS; vbn++) {
      store.read(vbn, block);
      if (block.some((byte) => byte !== 0)) copy.write(vbn, block);
    }
    return true;
  });
  if (whole) await useVolume(copy, watch, healthy);
}

async function runStripe(made: Media, input: Input, watch: Watch): Promise<void> {
  const members = made.stripe.map(copyOf);
  for (const step of input) {
    if (step.op !== "member") continue;
    const block = blockOf(members[Number(step.which) % 3], 0);
    put(block, Number(step.offset), fromHex(String(step.hex)));
    members[Number(step.which) % 3].write(0, sealHeader(block));
  }
  const guards = members.map((member) => new GuardStore(member, watch));
  const store = await watch.attempt("open stripe", () => StripedStore.open(guards, MEMBERS));
  if (store === undefined) return;
  await watch.attempt("stripe", async () => {
    const edge = store.capacity - 1;
    const block = new Uint8Array(4096);
    for (const vbn of [0, 255, 256, edge]) store.read(vbn, block);
    store.write(edge, block);
    await store.sync();
  });
  if (store.capacity === BLOCKS) await useOver(store, watch, made.healthy);
}

/** Changes the newest block of a map and those before it, and gives each pointer the right checksum. */
function changeMap(file: MemoryStore, link: number, offset: number, bytes: Uint8Array): void {
  // As numbers alone: what else the records say may be wrong by now.
  const numberIn = (block: Uint8Array<ArrayBuffer>, at: number) =>
    new DataView(block.buffer).getUint32(at, true);
  const chain = [numberIn(newestHeader(file), PACKED_HEADER_LAYOUT.offsetOf("mapHead"))];
  while (chain.length <= link) {
    if (chain[0] >= FILE_BLOCKS) return;
    const previous = numberIn(
      blockOf(file, chain.at(-1)!),
      MAP_BLOCK_LAYOUT.offsetOf("previous"),
    );
    if (previous < 2 || previous >= FILE_BLOCKS) break;
    chain.push(previous);
  }
  const changed = chain.at(-1)!;
  if (changed >= FILE_BLOCKS) return;
  change(file, changed, offset, bytes);
  for (let i = chain.length - 1; i > 0; i--) {
    const above = blockOf(file, chain[i - 1]);
    const crc = checksum(blockOf(file, chain[i]));
    new DataView(above.buffer).setUint32(MAP_BLOCK_LAYOUT.offsetOf("previousCrc"), crc, true);
    file.write(chain[i - 1], above);
  }
  changeHeaders(file, (block) => {
    const crc = checksum(blockOf(file, chain[0]));
    new DataView(block.buffer).setUint32(PACKED_HEADER_LAYOUT.offsetOf("mapCrc"), crc, true);
  });
}

function newestHeader(file: MemoryStore): Uint8Array<ArrayBuffer> {
  const [a, b] = [0, 1].map((slot) => blockOf(file, slot));
  const sequenceOf = (block: Uint8Array<ArrayBuffer>) =>
    new DataView(block.buffer).getBigUint64(PACKED_HEADER_LAYOUT.offsetOf("sequence"), true);
  return sequenceOf(a) > sequenceOf(b) ? a : b;
}

function changeHeaders(file: MemoryStore, work: (block: Uint8Array<ArrayBuffer>) => void): void {
  const newest = newestHeader(file);
  work(newest);
  // Only this one is left.
  file.write(0, sealHeader(newest));
  file.write(1, new Uint8Array(4096));
}

function change(file: MemoryStore, vbn: number, offset: number, bytes: Uint8Array): void {
  const block = blockOf(file, vbn);
  put(block, offset, bytes);
  file.write(vbn, block);
}

function put(block: Uint8Array, offset: number, bytes: Uint8Array): void {
  block.set(bytes.subarray(0, Math.max(0, block.length - offset)), offset);
}

function blockOf(store: MemoryStore, vbn: number): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(4096);
  store.read(vbn, block);
  return block;
}
