/**
 * The scrub of nodes in memory: bits of every kind of block are flipped while it runs, and all come back;
 * passes go on over pulls and restarts; nothing is written where something else lies by now.
 */

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  BLOCK_SIZE,
  decodeSuperblock,
  END_LAYOUT,
  FRAME_LAYOUT,
  INO,
  sealFrame,
} from "../../src/format/mod.ts";
import { Node, type Relative, Scrub, type ScrubOptions } from "../../src/replication/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume, walkRoot } from "../../src/volume/mod.ts";
import { assertClean, History, tickingClock } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { relativeNode } from "../helpers/relatives.ts";
import { advance, bitsOf, blockAt, replicaWith } from "../helpers/replicas.ts";
import { copyOf, CrashStore, flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";

const FAST = 2 ** 40;

/** A scrub of a volume, running until it is ended. */
class Running implements AsyncDisposable {
  readonly scrub: Scrub;
  readonly node: Node;
  readonly log: string[] = [];
  readonly events: string[] = [];
  readonly #stop = new AbortController();
  readonly #run: Promise<void>;

  constructor(volume: Volume, relatives: readonly Relative[], options: Partial<ScrubOptions> = {}) {
    this.node = new Node({ name: "node", path: "unused.vol", volume });
    this.node.events.subscribe((event) => {
      if (event.type === "scrub") this.events.push(event.result);
    });
    this.scrub = new Scrub(this.node, {
      bytesPerSecond: FAST,
      relatives,
      log: (text) => this.log.push(text),
      retryMs: 20,
      ...options,
    });
    this.node.scrub = this.scrub;
    this.#run = this.scrub.run(this.#stop.signal);
  }

  /** Waits until something is so; whatever fails shows the log. */
  async until(what: string, condition: () => boolean): Promise<void> {
    for (let i = 0; !condition(); i++) {
      if (i > 20_000) {
        throw new Error(`Not so: ${what}\n${this.log.join("\n")}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /** Waits until a pass that begins now is complete. */
  async pass(): Promise<void> {
    const count = () => this.events.filter((event) => event === "complete").length;
    // One that is under way may be behind what is looked for.
    for (let i = 0; i < 2; i++) {
      const before = count();
      this.scrub.begin();
      await this.until("a pass", () => count() > before && this.scrub.status.startedAt === null);
    }
  }

  /** Ends it, as a server does that is told to end. */
  stop(): void {
    this.#stop.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.#run;
  }
}

/** An origin with three snapshots and a shadow, and a replica that holds two of them. */
async function family(
  random: Random,
): Promise<{ history: History; store: MemoryStore; volume: Volume }> {
  const history = await History.begin(new MemoryStore(1500), random, { writeBytes: 30_000 });
  for (const count of [40, 15, 15]) {
    await history.change(count);
    // One that has blocks of pointers.
    await history.volume.exclusive(({ fs }) => {
      const ino = fs.lookup(2, "large") ?? fs.create(2, "large", { type: "file" });
      fs.write(ino, 0, random.bytes(30 * 4096));
    });
    await history.snapshot();
  }
  const { id } = history.volume.resolve("s1");
  await history.volume.exclusive((writer) => writer.shadowSnapshot(id));
  await history.change(10);
  await history.snapshot();
  const { store, volume } = await replicaWith(history.volume, ["s3"]);
  await advance(volume, history.volume, "s4");
  return { history, store, volume };
}

/** One more snapshot. */
async function nextOf(history: History): Promise<{ name: string }> {
  await history.change(10);
  await history.snapshot();
  return history.volume.snapshots().at(-1)!;
}

/** VBNs of each kind of block that the snapshots of a volume reach. */
function kindsOf(volume: Volume): Map<string, number[]> {
  const kinds = new Map<string, Set<number>>();
  const names: Record<number, string> = {
    [INO.blockMap]: "block map",
    [INO.root]: "directory",
    [INO.snapshots]: "snapshot table",
    [INO.summary]: "summary",
    [INO.shadows]: "shadow planes",
  };
  for (const { root } of volume.snapshots()) {
    walkRoot(volume.io, root, ({ vbn }, use, ino) => {
      const kind = use === "content" ? names[ino] ?? "content" : use;
      kinds.set(kind, (kinds.get(kind) ?? new Set()).add(vbn));
      return true;
    });
  }
  return new Map([...kinds].map(([kind, vbns]) => [kind, [...vbns]]));
}

/** Everything that planes cover, in use or not, as it lies in a store. */
function assertSameBlocks(found: MemoryStore, expected: MemoryStore, from: number): void {
  for (const vbn of new Set([...expected.blocks.keys(), ...found.blocks.keys()])) {
    if (vbn < from) continue;
    assert(sameBytes(blockAt(found, vbn), blockAt(expected, vbn)), `VBN ${vbn}`);
  }
}

test("a scrub finds flipped bits in every kind of block of a live replica, and heals just these", () =>
  forSeeds(seeds(1, Number(Deno.env.get("VOLCAST_FLIPS") ?? 60) / 10), async (random) => {
    const { history, store, volume } = await family(random);
    const intact = copyOf(store);
    const kinds = kindsOf(volume);
    const wanted = ["root", "pointers", "inodes", "content", "block map", "directory"];
    for (const kind of [...wanted, "snapshot table", "summary", "shadow planes"]) {
      assert(kinds.has(kind), `there is a block of the kind ${kind}`);
    }
    const flipped = new Set([...kinds.values()].map((vbns) => random.pick(vbns)));
    const all = [...kinds.values()].flat();
    for (let i = 0; i < 20; i++) flipped.add(random.pick(all));
    for (const vbn of flipped) flipBit(store, vbn, random.below(4096 * 8));
    const slots = random.pick([[0], [1], [0, 1]]);
    for (const slot of slots) flipBit(store, slot, random.below(4096 * 8));
    const origin = relativeNode("origin", history.volume);
    {
      await using running = new Running(volume, [origin]);
      await running.until("all healed", () => running.scrub.healer.healedCount >= flipped.size);
      await running.pass();
      const { status } = running.scrub;
      assertEquals([status.foundBlocks, status.healedBlocks], [flipped.size, flipped.size]);
      assertEquals([status.badBlocks, status.bad, status.affected], [0, "", []]);
      assert(status.completedAt !== null && status.startedAt === null);
    }
    const asked = new Set(origin.asked);
    assertEquals([...asked].sort((a, b) => a - b), [...flipped].sort((a, b) => a - b));
    assertClean(volume);
    assertSameBlocks(store, intact, volume.zone.data.start);
    for (const slot of [0, 1]) {
      const { sequence, root } = decodeSuperblock(blockAt(store, slot))!;
      if (slots.includes(slot)) assertEquals(sequence, volume.superblock.sequence);
      if (slots.includes(slot)) assertEquals(root, volume.current.root);
    }
    const next = volume.superblock.sequence + 1;
    await advance(volume, history.volume, (await nextOf(history)).name);
    assert(volume.superblock.sequence >= next);
    await volume.close();
    const found = Volume.open(store);
    assertClean(found);
    found.abandon();
    await history.close();
  }));

test("what a reader meets is healed without a pass, and is an error until then", async () => {
  const { history, store, volume } = await family(new Random(7));
  await using running = new Running(volume, [relativeNode("origin", history.volume)]);
  await running.until("a pass", () => running.events.includes("complete"));
  const passes = running.events.length;
  const [file, vbn] = someFile(volume);
  flipBit(store, vbn, 99);
  const view = volume.view(volume.current.id);
  const size = view.fs.stat(file).size;
  let error: unknown;
  try {
    view.fs.read(file, 0, new Uint8Array(Math.ceil(size / 4096) * 4096));
  } catch (caught) {
    error = caught;
  }
  assert(error instanceof VolcastError && error.kind === "damaged", String(error));
  await running.until("healed", () => running.scrub.healer.healedCount === 1);
  view.fs.read(file, 0, new Uint8Array(Math.ceil(size / 4096) * 4096));
  view.release();
  assertEquals(running.events.slice(passes), ["healed"]);
  await history.close();
  await volume.close();
});

/** A file of the current root with blocks, and the VBN of its first one. */
function someFile(volume: Volume): [ino: number, vbn: number] {
  let found: [number, number] | undefined;
  walkRoot(volume.io, volume.current.root, ({ vbn }, use, ino) => {
    const isFile = use === "content" && ino >= INO.firstUser;
    const fs = volume.fileSystem(volume.current);
    if (isFile && fs.open(ino).tree.pointer(0).vbn === vbn) found ??= [ino, vbn];
    return true;
  });
  assert(found !== undefined, "there is a file with blocks");
  return found!;
}

test("what no node has is said with its paths, and healed when one has it", async () => {
  const { history, store, volume } = await family(new Random(8));
  const [file, vbn] = someFile(volume);
  flipBit(store, vbn, 5);
  let hasIt = false;
  const origin = relativeNode("origin", history.volume, () => {
    if (hasIt) return Promise.resolve();
    throw new VolcastError("io", "Cannot reach origin: refused");
  });
  await using running = new Running(volume, [origin]);
  await running.until(
    "said",
    () => running.log.some((line) => line.startsWith("No node had 1 bad block, ")),
  );
  await running.until("a pass", () => running.events.includes("complete"));
  const { bad, affected, badBlocks } = running.scrub.status;
  assertEquals([bad, badBlocks], [String(vbn), 1]);
  const fs = volume.fileSystem(volume.current);
  assert(affected.some((path) => fs.resolve(path, { followLast: false }) === file), `${affected}`);
  const report = fsck(volume);
  assertEquals(report.findings[0].vbn, vbn);
  assertEquals([...report.findings[0].owners ?? []].sort(), affected);
  assertEquals(running.log.filter((line) => line.includes("refused")).length, 1);
  hasIt = true;
  await running.until("healed", () => running.scrub.status.badBlocks === 0);
  assertClean(volume);
  await history.close();
  await volume.close();
});

test("a node that gives something else is named and skipped", async () => {
  const { history, store, volume } = await family(new Random(9));
  const [, vbn] = someFile(volume);
  flipBit(store, vbn, 5);
  const before = blockAt(store, vbn);
  const origin = relativeNode("origin", history.volume);
  // A stream that is right in itself, of a block with other content.
  const liar: Relative = {
    name: "liar",
    async blocks(volumeId, id, vbns): Promise<ReadableStream<Uint8Array>> {
      const image = await new Response(await origin.blocks(volumeId, id, vbns)).bytes();
      const frame = image.subarray(-END_LAYOUT.size - BLOCK_SIZE - FRAME_LAYOUT.size);
      frame[FRAME_LAYOUT.size + 100] ^= 1;
      sealFrame(frame, vbns[0], 1);
      return new Blob([image]).stream();
    },
  };
  const healer = new Running(volume, [liar]);
  await healer.until("named", () => healer.log.some((line) => line.startsWith("liar gave 1 ")));
  await healer[Symbol.asyncDispose]();
  assertEquals(blockAt(store, vbn), before);
  await using running = new Running(volume, [liar, origin]);
  await running.until("healed", () => running.scrub.healer.healedCount === 1);
  assertEquals(running.log.filter((line) => line.startsWith("Healed")), [
    "Healed 1 block from origin",
  ]);
  assertClean(volume);
  await history.close();
  await volume.close();
});

test("a block whose place was given to something else meanwhile is not written", async () => {
  const random = new Random(10);
  const store = new MemoryStore(400);
  const volume = await Volume.create(store, { now: tickingClock() });
  const write = async (blocks: number) => {
    await volume.exclusive(async (writer) => {
      const { fs } = writer;
      const ino = fs.lookup(2, "file") ?? fs.create(2, "file", { type: "file" });
      fs.truncate(ino, 0);
      fs.write(ino, 0, random.bytes(blocks * 4096));
      await writer.checkpoint();
    });
  };
  await write(100);
  const { id } = await volume.exclusive((writer) => writer.takeSnapshot("old"));
  const other = await replicaWith(volume, ["old"]);
  await write(40);
  const current = bitsOf(volume, volume.current);
  const own = [...bitsOf(volume, volume.resolve(id))].filter((vbn) => !current.has(vbn));
  const bad = own.slice(-30);
  for (const vbn of bad) flipBit(store, vbn, 3);
  let asked = 0;
  let reused = 0;
  const slow = relativeNode("slow", other.volume, async () => {
    if (asked++ > 0) return;
    // While the answer is on its way, the snapshot goes and all that was free is used.
    await volume.exclusive(async (writer) => {
      await writer.deleteSnapshot(id);
      await writer.checkpoint();
    });
    for (let i = 0; i < 8; i++) await write(60);
    await write(220);
    const now = bitsOf(volume, volume.current);
    reused = bad.filter((vbn) => now.has(vbn)).length;
  });
  await using running = new Running(volume, [slow]);
  await running.until("asked", () => asked > 0);
  await running.until("forgotten", () => running.scrub.status.badBlocks === 0);
  assert(reused > 0, "places of bad blocks were given to something else");
  await running.pass();
  assertClean(volume);
  assertEquals(running.scrub.status.badBlocks, 0);
  assertEquals(running.scrub.status.healedBlocks, 0);
  other.volume.abandon();
  await volume.close();
});

test("a block that the disk does not keep stays bad until it does", async () => {
  const { history, store, volume } = await family(new Random(11));
  const [, vbn] = someFile(volume);
  flipBit(store, vbn, 5);
  const write = store.write.bind(store);
  store.write = (at, source) => {
    const kept = source.slice();
    const first = (vbn - at) * BLOCK_SIZE;
    if (first >= 0 && first < kept.length) kept[first] ^= 1;
    write(at, kept);
  };
  await using running = new Running(volume, [relativeNode("origin", history.volume)]);
  const isTold = (line: string) => line.startsWith(`VBN ${vbn} was written again and is bad still`);
  await running.until("told", () => running.log.some(isTold));
  assertEquals([running.scrub.status.bad, running.scrub.status.healedBlocks], [String(vbn), 0]);
  store.write = write;
  await running.until("healed", () => running.scrub.status.healedBlocks === 1);
  assertClean(volume);
  await history.close();
  await volume.close();
});

test("nothing is written any more when the server ends while a node answers", async () => {
  const { history, store, volume } = await family(new Random(12));
  const [, vbn] = someFile(volume);
  flipBit(store, vbn, 5);
  const before = blockAt(store, vbn);
  const origin = relativeNode("origin", history.volume, () => Promise.resolve(running.stop()));
  const running: Running = new Running(volume, [origin]);
  await running.until("asked", () => origin.asked.length > 0);
  await running[Symbol.asyncDispose]();
  assertEquals(blockAt(store, vbn), before);
  assertEquals(running.scrub.status.healedBlocks, 0);
  await history.close();
  await volume.close();
});

test("a pass over what is being written finds nothing that is not bad", async () => {
  const random = new Random(13);
  const volume = await Volume.create(new MemoryStore(3000), { now: tickingClock() });
  const writeAll = () =>
    volume.exclusive(async (writer) => {
      for (let i = 0; i < 40; i++) {
        const ino = writer.fs.lookup(2, `f${i}`) ??
          writer.fs.create(2, `f${i}`, { type: "file" });
        writer.fs.write(ino, 0, random.bytes(25 * 4096));
      }
      await writer.checkpoint();
    });
  await writeAll();
  await using running = new Running(volume, [], { bytesPerSecond: 2 ** 24 });
  for (const count of [256, 512]) {
    await running.until("some of it", () => running.scrub.status.checkedBlocks >= count);
    for (let i = 0; i < 4; i++) await writeAll();
  }
  await running.until("complete", () => running.events.includes("complete"));
  assertEquals(running.scrub.status.foundBlocks, 0);
  assertClean(volume);
  await volume.close();
});

test("a pass goes on over pulls and over a restart, and finds what was there when it began", async () => {
  const random = new Random(11);
  const history = await History.begin(new MemoryStore(6000), random, { writeBytes: 9000 });
  await history.volume.exclusive((writer) => {
    for (let i = 0; i < 60; i++) {
      const ino = writer.fs.create(2, `large${i}`, { type: "file" });
      writer.fs.write(ino, 0, random.bytes(25 * 4096));
    }
    return writer.takeSnapshot("s1");
  });
  const publish = (name: string) =>
    history.volume.exclusive((writer) => {
      writer.fs.write(writer.fs.lookup(2, "large7")!, 4096, random.bytes(3 * 4096));
      return writer.takeSnapshot(name);
    });
  const { store, volume } = await replicaWith(history.volume, ["s1"]);
  const last = [...bitsOf(volume, volume.current)].filter((vbn) => vbn > volume.zone.data.start);
  const fs = volume.fileSystem(volume.current);
  flipBit(store, fs.open(fs.resolve("/large30")).tree.pointer(0).vbn, 9);
  // While the pass waits for a block of that file, another release comes; then the server is told to end.
  const origin = relativeNode("origin", history.volume, async () => {
    if (volume.current.name === "s2") return;
    await publish("s2");
    await advance(volume, history.volume, "s2");
  });
  const at = () => volume.local.scrub;
  const first = new Running(volume, [origin], {
    log: (text) => text.startsWith("Healed") && first.stop(),
  });
  await first.until("ended", () => first.scrub.healer.healedCount === 1);
  await first[Symbol.asyncDispose]();
  assertEquals(first.events, ["bad", "healed"]);
  assertEquals(volume.current.name, "s2");
  // A new one goes on at that place.
  const place = at();
  assert(place?.startedAt !== undefined && place.next > 0, JSON.stringify(place));
  const began = place!.startedAt!;
  const kept = bitsOf(volume, volume.current);
  const bad = last.filter((vbn) => kept.has(vbn));
  for (const vbn of bad.slice(0, 3)) flipBit(store, vbn, 1);
  await using running = new Running(volume, [origin]);
  await running.until("complete", () => running.events.includes("complete"));
  assertEquals(at()?.startedAt, undefined);
  assert((at()?.completedAt ?? 0) >= began);
  const { checkedBlocks } = running.scrub.status;
  assert(
    checkedBlocks < volume.current.blockCount - 200,
    `it did not begin anew: ${checkedBlocks}`,
  );
  await running.pass();
  assertEquals(running.scrub.status.badBlocks, 0);
  assertClean(volume);
  await history.close();
  await volume.close();
});

/** Whether a volume can be opened although one block is bad. */
function opensWithout(store: MemoryStore, vbn: number): boolean {
  const copy = copyOf(store);
  flipBit(copy, vbn, 7);
  try {
    Volume.open(copy).abandon();
    return true;
  } catch (error) {
    assert(error instanceof VolcastError && error.kind === "damaged", String(error));
    return false;
  }
}

test("power that goes while blocks are healed leaves each bad or good, and nothing else touched", async () => {
  const random = new Random(12);
  const { history, store, volume } = await family(random);
  const kinds = [...kindsOf(volume).values()].map((vbns) =>
    vbns.filter((vbn) => opensWithout(store, vbn))
  );
  const flipped = new Set(
    kinds.filter((vbns) => vbns.length > 0).flatMap((vbns) => vbns.slice(0, 4)),
  );
  assert(flipped.size >= 12, `${flipped.size} blocks`);
  volume.abandon();
  const intact = copyOf(store);
  for (const vbn of flipped) flipBit(store, vbn, random.below(4096 * 8));
  const disk = new CrashStore(store);
  const origin = relativeNode("origin", history.volume);
  const healAll = async (volume: Volume) => {
    {
      await using running = new Running(volume, [origin]);
      await running.until("complete", () => {
        const { completedAt, startedAt, badBlocks } = running.scrub.status;
        return completedAt !== null && startedAt === null && badBlocks === 0;
      });
    }
    assertClean(volume);
    volume.abandon();
  };
  await healAll(Volume.open(disk));
  const from = volume.zone.data.start;
  const good = (found: MemoryStore) =>
    [...flipped].filter((vbn) => sameBytes(blockAt(found, vbn), blockAt(intact, vbn))).length;
  let between = 0;
  for (let i = 0; i < 30; i++) {
    const found = disk.crashed(random.between(0, disk.events.length), random);
    for (const [vbn, block] of intact.blocks) {
      if (vbn < from || flipped.has(vbn)) continue;
      assert(sameBytes(blockAt(found, vbn), block), `VBN ${vbn}`);
    }
    if (good(found) > 0 && good(found) < flipped.size) between++;
    await healAll(Volume.open(found));
    assertEquals(good(found), flipped.size);
  }
  assert(between > 0, "power went while some were healed and some not");
  await history.close();
});

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}

test("an origin is healed by a site, and what is newer is known to be bad as long as it is there", async () => {
  const random = new Random(14);
  const store = new MemoryStore(3000);
  const volume = await Volume.create(store, { now: tickingClock() });
  const write = (name: string) =>
    volume.exclusive(async (writer) => {
      const ino = writer.fs.lookup(2, name) ?? writer.fs.create(2, name, { type: "file" });
      writer.fs.write(ino, 0, random.bytes(20 * 4096));
      await writer.checkpoint();
      return ino;
    });
  const vbnOf = (ino: number) => volume.fileSystem(volume.active).open(ino).tree.pointer(3).vbn;
  const published = await write("published");
  await volume.exclusive((writer) => writer.takeSnapshot("s1"));
  const site = await replicaWith(volume, ["s1"]);
  const newer = await write("newer");
  const [shared, own] = [vbnOf(published), vbnOf(newer)];
  for (const vbn of [shared, own]) flipBit(store, vbn, 11);
  await using running = new Running(volume, [relativeNode("site", site.volume)]);
  await running.until("a pass", () => running.events.includes("complete"));
  const { scrub } = running;
  assertEquals([scrub.status.healedBlocks, scrub.status.bad], [1, String(own)]);
  assertEquals(scrub.status.affected, ["/newer"]);
  // Another consistency point: it is the same bad block still, not one that was found anew.
  await write("other");
  await running.pass();
  assertEquals(scrub.status.bad, String(own), running.log.join("\n"));
  assertEquals(scrub.status.foundBlocks, 2);
  // Written anew, it is nobody's.
  await write("newer");
  await running.until("forgotten", () => scrub.status.badBlocks === 0);
  await running.pass();
  assertClean(volume);
  site.volume.abandon();
  await volume.close();
});
