/**
 * Image streams that are well-formed and lie: all checksums, counts and the digest are right, or bytes are
 * changed behind them. They go wherever a stream goes: into replicas, beside them, and to those that only
 * look.
 *
 * @module
 */

import { BLOCK_SIZE, checksum, STREAM_HEADER_LAYOUT } from "../../../src/format/mod.ts";
import {
  applyImage,
  badBlocks,
  healFrom,
  Image,
  ImageStore,
  inspectMedium,
  Pieces,
  piecesOf,
  planeImage,
  receivePlane,
  resolveExpression,
  selectHistory,
  selectImage,
  sumOfStream,
} from "../../../src/image/mod.ts";
import { MemoryStore } from "../../../src/store/mod.ts";
import { fsck, type Snapshot, Volume } from "../../../src/volume/mod.ts";
import { mediumOf } from "../../helpers/pieces.ts";
import { forgeImage, type ParsedImage, parseImage } from "../../helpers/parse_image.ts";
import type { Random } from "../../helpers/random.ts";
import { reachedFrom, stateOf } from "../../helpers/replicas.ts";
import { copyOf, flipBit } from "../../helpers/stores.ts";
import { bytesOf, sourceOf, streamOf } from "../../helpers/streams.ts";
import { Anatomy, forged } from "../forge.ts";
import { GuardStore } from "../guard_store.ts";
import { applySteps, byteStep, fieldChange, fromHex } from "../mutate.ts";
import { BLOCKS, makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import { useVolume } from "../use_volume.ts";
import type { Watch } from "../watch.ts";
import { Maker } from "./metadata.ts";

const NEAR = [0, 1, 2, 66, 67, 68, 700, BLOCKS - 1, BLOCKS, BLOCKS + 1, 32767, 32768];

/** A stream as it should be. */
interface Stream {
  readonly bytes: Uint8Array;
  readonly parsed: ParsedImage;
  /** Name of the top in the origin's anatomy. */
  readonly top: string;
}

/** Where a stream goes. */
const SINKS = [
  "replica",
  "replica",
  "replica",
  "fresh",
  "fresh",
  "branched",
  "pieces",
  "look",
  "lend",
  "heal",
] as const;
type Sink = typeof SINKS[number];

/** See the module. */
export const images: Target = {
  name: "images",
  limits: { work: 150_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    const origin = Volume.open(copyOf(scene.origin), OPTIONS);
    const anatomy = new Anatomy(scene.origin);
    const streams = new Map<string, Stream>();
    const add = async (name: string, image: Image, top: string) => {
      const bytes = await bytesOf(image);
      streams.set(name, { bytes, parsed: parseImage(bytes), top });
    };
    const text = (of: string) =>
      Image.of(origin, selectImage(origin, resolveExpression(origin, of)));
    await add("full", text("s3"), "s3");
    await add("increment", text("s4 - s3"), "s4");
    await add("back", text("s1 - s3"), "s1");
    await add("shadow", text("s4 - s2"), "s4");
    await add("fragment", text("s4 & s3"), "s4");
    await add("history", Image.of(origin, selectHistory(origin, { snapshots: "all" })), "s4");
    const site = Volume.open(copyOf(scene.replica), OPTIONS);
    await add("plane", planeImage(origin, origin.resolve("s4")), "s4");
    const held = usedBy(site);
    const before = stateOf(site);
    origin.abandon();
    site.abandon();
    const names = [...streams.keys()];
    const parts = { scene, anatomy, streams, held, before };
    return {
      make(random) {
        const sink = random.pick(SINKS);
        const usual: Partial<Record<Sink, string[]>> = {
          replica: ["increment", "increment", "back", "shadow"],
          branched: ["increment"],
          fresh: ["full", "history"],
          heal: ["fragment"],
          lend: ["plane"],
        };
        const stream = random.oneIn(6) ? random.pick(names) : random.pick(usual[sink] ?? names);
        const maker = new Maker(random, anatomy);
        const { parsed, bytes } = streams.get(stream)!;
        const steps: Step[] = [{ op: "stream", stream, sink }];
        const count = random.pick([1, 1, 1, 2, 3]);
        for (let i = 0; i < count; i++) {
          steps.push(makeStep(random, { parsed, length: bytes.length, maker }));
        }
        return steps;
      },
      run: (input, watch) => new Run(parts, input, watch).run(),
    };
  },
};

function makeStep(
  random: Random,
  { parsed, length, maker }: { parsed: ParsedImage; length: number; maker: Maker },
): Step {
  const count = parsed.blocks.size;
  switch (random.below(12)) {
    case 0:
    case 1:
    case 2: {
      const { offset, hex } = fieldChange(random, STREAM_HEADER_LAYOUT, [...NEAR, count]);
      return { op: "header", offset, hex };
    }
    case 3:
      return { op: "without", block: random.below(count) };
    case 4:
      return {
        op: "with",
        vbn: random.pick([...NEAR, random.below(BLOCKS)]),
        fill: random.below(3),
      };
    case 5:
    case 6: {
      const start = random.pick([...NEAR, 2 ** 32 - 1, random.below(BLOCKS)]);
      const size = random.pick([0, 1, 2, 256, 257, 32768, 2 ** 32 - 1]);
      return { op: "run", run: random.below(6), start, count: size, how: random.below(3) };
    }
    case 7:
      return { op: "gone", vbn: random.pick([...NEAR, random.below(BLOCKS)]) };
    case 8:
      return { ...byteStep(random, random.oneIn(2) ? 3000 : length), raw: true };
    default:
      // What the top says of itself.
      return maker.step();
  }
}

/** Blocks that nothing may be written to before another root is current. */
function usedBy(volume: Volume): ReadonlyMap<number, string> {
  const used = new Map<number, string>();
  for (const snapshot of volume.snapshots()) {
    for (const vbn of reachedFrom(volume, snapshot)) used.set(vbn, snapshot.name);
  }
  return used;
}

interface Parts {
  readonly scene: Awaited<ReturnType<typeof makeScene>>;
  readonly anatomy: Anatomy;
  readonly streams: ReadonlyMap<string, Stream>;
  readonly held: ReadonlyMap<number, string>;
  readonly before: unknown;
}

class Run {
  readonly #parts: Parts;
  readonly #input: Input;
  readonly #watch: Watch;
  readonly #stream: Stream;
  readonly #sink: Sink;

  constructor(parts: Parts, input: Input, watch: Watch) {
    this.#parts = parts;
    this.#input = input;
    this.#watch = watch;
    const chosen = input.find(({ op }) => op === "stream");
    this.#stream = parts.streams.get(String(chosen?.stream)) ?? parts.streams.get("increment")!;
    this.#sink = SINKS.find((sink) => sink === chosen?.sink) ?? "replica";
  }

  async run(): Promise<void> {
    const bytes = this.#bytes();
    switch (this.#sink) {
      case "fresh":
        return await this.#fresh(bytes);
      case "pieces":
        return await this.#pieces(bytes);
      case "look":
        return await this.#look(bytes);
      case "lend":
        return await this.#lend(bytes);
      case "heal":
        return await this.#heal(bytes);
      default:
        return await this.#replica(bytes);
    }
  }

  /** The stream with all changes. */
  #bytes(): Uint8Array<ArrayBuffer> {
    const { anatomy } = this.#parts;
    const { parsed } = this.#stream;
    const store = forged(anatomy, this.#input);
    const blocks = new Map([...parsed.blocks].map(([vbn]) => [vbn, blockOf(store, vbn)]));
    const gone = new Set(parsed.deallocated);
    const vbns = [...parsed.blocks.keys()];
    for (const step of this.#input) {
      if (step.op === "without") blocks.delete(vbns[Number(step.block) % vbns.length]);
      else if (step.op === "with") {
        blocks.set(Number(step.vbn), new Uint8Array(BLOCK_SIZE).fill(Number(step.fill)));
      } else if (step.op === "gone") gone.add(Number(step.vbn));
    }
    const root = anatomy.places.get(`${this.#stream.top}/root`)!.vbn;
    const image = forgeImage(parsed.header, blocks, [...gone], {
      terms: new Uint8Array(parsed.terms),
      change: (view) => {
        // The root has another checksum where anything below it was changed.
        const at = STREAM_HEADER_LAYOUT.offsetOf("topCrc");
        if (this.#isForged) view.setUint32(at, checksum(blockOf(store, root)), true);
        for (const step of this.#input) {
          if (step.op !== "header") continue;
          fromHex(String(step.hex)).forEach((byte, i) =>
            view.setUint8(Math.min(1019, Number(step.offset) + i), byte)
          );
        }
      },
      arrange: (runs) => {
        for (const step of this.#input) if (step.op === "run") changeRun(runs, step);
        return runs;
      },
    });
    return applySteps(image, this.#input.filter(({ raw }) => raw === true));
  }

  get #isForged(): boolean {
    return this.#input.some(({ op, raw }) =>
      raw !== true && ["set", "point", "copy"].includes(String(op))
    );
  }

  async #replica(bytes: Uint8Array): Promise<void> {
    const watch = this.#watch;
    const { scene, held, before } = this.#parts;
    const isBranched = this.#sink === "branched";
    const store = copyOf(isBranched ? scene.branched : scene.replica);
    const guard = new GuardStore(store, watch);
    const options = { ...OPTIONS, localWrites: isBranched };
    const volume = Volume.open(guard, options);
    const allowed = new Set<string>();
    guard.inUse = (vbn) => {
      const use = held.get(vbn);
      // What an image needs the place of goes before, and the local zone says so.
      if (use === undefined || !volume.snapshots().some(({ name }) => name === use)) return;
      return allowed.has(use) ? undefined : `'${use}' uses it`;
    };
    const apply = () => applyImage(volume, sourceOf(bytes), { drainMs: 0 });
    const applied = await watch.attempt(`apply to ${this.#sink}`, apply);
    if (applied !== undefined) {
      volume.abandon();
      return await this.#used(store);
    }
    if (volume.poisoned !== undefined) {
      watch.problem(`A refused image poisoned the volume: ${volume.poisoned.message}`);
    }
    this.#isAsBefore(volume, before, "in memory");
    volume.abandon();
    const again = Volume.open(guard, options);
    this.#isAsBefore(again, before, "for who opens it again");
    const right = this.#parts.streams.get("increment")!.bytes;
    await watch.attempt("apply a right image", async () => {
      await applyImage(again, sourceOf(right), { drainMs: 0 });
      if (again.current.name !== "s4") watch.problem(`At '${again.current.name}' after s4`);
      if (!fsck(again).clean) watch.problem("Not clean after a right image");
    });
    if (!watch.outcomes.has("apply a right image: done")) {
      watch.problem(`A right image was refused after it: ${[...watch.outcomes.keys()]}`);
    }
    again.abandon();
  }

  /** I6: the old root is whole. */
  #isAsBefore(volume: Volume, before: unknown, where: string): void {
    const now = stateOf(volume) as { views: { id: string }[]; current: Snapshot };
    const was = before as typeof now;
    const current = now.views.find(({ id }) => id === was.current.id);
    const wanted = was.views.find(({ id }) => id === was.current.id);
    if (now.current.id !== was.current.id || text(current) !== text(wanted)) {
      this.#watch.problem(`The root is not what it was, ${where}`);
    }
    if (!fsck(volume).clean) this.#watch.problem(`Not clean after a refused image, ${where}`);
  }

  async #fresh(bytes: Uint8Array): Promise<void> {
    const watch = this.#watch;
    const store = new MemoryStore(BLOCKS);
    const { volumeId } = Volume.open(copyOf(this.#parts.scene.replica), OPTIONS);
    const volume = Volume.incoming(new GuardStore(store, watch), volumeId, OPTIONS);
    const applied = await watch.attempt(
      "apply to nothing",
      () => applyImage(volume, sourceOf(bytes)),
    );
    const { hasRoot } = volume;
    volume.abandon();
    if (applied !== undefined) return await this.#used(store);
    if (hasRoot) watch.problem("A refused image has become the root of a new volume");
  }

  /** What came in and was taken is whole, as far as blocks go, and can be used without harm. */
  async #used(store: MemoryStore): Promise<void> {
    const watch = this.#watch;
    const volume = Volume.open(copyOf(store), OPTIONS);
    const report = await watch.attempt("fsck of what was taken", () => fsck(volume));
    for (const { problem, snapshot } of report?.findings ?? []) {
      const isOfBlocks = !problem.startsWith("The shadow") &&
        /checksum|block map|outside of the volume|used twice/.test(problem);
      if (isOfBlocks && snapshot === volume.current.name) {
        watch.problem(`A root became current that is not whole: ${problem}`);
      }
    }
    volume.abandon();
    const healthy = () => Volume.open(copyOf(this.#parts.scene.origin), OPTIONS);
    await useVolume(store, watch, healthy, { localWrites: true });
  }

  async #pieces(bytes: Uint8Array): Promise<void> {
    const watch = this.#watch;
    await watch.attempt("pieces", async () => {
      const pieces = new Pieces(await piecesOf(mediumOf("a", bytes), () => {}), () => {});
      pieces.checkComplete();
      const store = await ImageStore.open([pieces]);
      const at = store.root;
      const volume = Volume.incoming(store, pieces.header.volumeId, OPTIONS);
      const snapshot = { id: "x", name: "x", root: at };
      const fs = volume.fileSystem(snapshot);
      for (const { name } of fs.list(2)) watch.spend(1, `an entry ${name}`);
      volume.abandon();
    });
  }

  async #look(bytes: Uint8Array): Promise<void> {
    const watch = this.#watch;
    for (const check of [true, false]) {
      await watch.attempt("inspect", async () => {
        for await (const { at } of inspectMedium(mediumOf("a", bytes), { check })) {
          watch.spend(10, `a finding at ${at}`);
        }
      });
    }
    const on = Volume.open(copyOf(this.#parts.scene.replica), OPTIONS);
    await watch.attempt("sum", async () => {
      const stream = streamOf(bytes);
      await sumOfStream(stream, () => {}, on);
    });
    on.abandon();
  }

  /** The plane of a snapshot that is not here. */
  async #lend(bytes: Uint8Array): Promise<void> {
    const volume = Volume.open(copyOf(this.#parts.scene.replica), OPTIONS);
    await this.#watch.attempt("lend", async () => {
      await receivePlane(volume, streamOf(bytes));
    });
    volume.abandon();
  }

  /** Blocks for a volume with bad ones. */
  async #heal(bytes: Uint8Array): Promise<void> {
    const watch = this.#watch;
    const store = copyOf(this.#parts.scene.origin);
    for (const name of ["s4/i/0/1", "s4/root", "s3/1/0/0"]) {
      const place = this.#parts.anatomy.places.get(name);
      if (place !== undefined) flipBit(store, place.vbn, 99);
    }
    const guard = new GuardStore(store, watch);
    const bad = [...this.#badIn(guard).values()];
    const wanted = new Map(bad.map((block) => [block.vbn, block.crc]));
    guard.inUse = (vbn) => wanted.has(vbn) ? undefined : "it is not to be healed";
    await watch.attempt("heal with it", () =>
      healFrom(
        {
          heal(pointer, block) {
            if (checksum(block) !== wanted.get(pointer.vbn)) {
              watch.problem("Healed with other bytes");
            }
            guard.write(pointer.vbn, block);
          },
          syncHealed: () => Promise.resolve(),
        },
        bad,
        () => Promise.resolve(streamOf(bytes)),
      ));
  }

  #badIn(store: GuardStore) {
    const right = Volume.open(copyOf(this.#parts.scene.origin), OPTIONS);
    const steps = badBlocks(store, right.keptSnapshots());
    let step = steps.next();
    while (!step.done) step = steps.next();
    right.abandon();
    return step.value;
  }
}

function changeRun(runs: [number, number][], { run, start, count, how }: Step): void {
  const index = Number(run) % Math.max(1, runs.length);
  const changed: [number, number] = [Number(start), Number(count)];
  // In its place, before it, or twice.
  if (how === 0) runs[index] = changed;
  else if (how === 1) runs.splice(index, 1, changed);
  else if (runs.length > 1) [runs[0], runs[index]] = [runs[index], runs[0]];
}

function blockOf(store: MemoryStore, vbn: number): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE);
  store.read(vbn, block);
  return block;
}

function text(value: unknown): string {
  return JSON.stringify(value, (_, one) => typeof one === "bigint" ? String(one) : one);
}
