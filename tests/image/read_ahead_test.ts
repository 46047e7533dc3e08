// Images of volumes that lie on several devices are read ahead, and are the same bytes all the same.

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE, memberBlocksOf } from "../../src/format/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { type BlockStore, FileStore, MemoryStore, StripedStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { MEMBERS } from "../helpers/arrangements.ts";
import { assertClean, History, skipBlocks } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { imageOf, stateOf } from "../helpers/replicas.ts";
import { bytesOf, collect, sourceOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const CAPACITY = 9000;

/** A volume with two snapshots whose files lie all over it, in memory. */
async function origin(): Promise<{ store: MemoryStore; volume: Volume }> {
  const store = new MemoryStore(CAPACITY);
  const history = await History.begin(store, new Random(1), { writeBytes: 200_000 });
  for (let i = 0; i < 8; i++) {
    await history.change(30);
    await history.checkpoint();
    await skipBlocks(history.volume, 450);
    if (i === 3 || i === 7) await history.snapshot();
  }
  return { store, volume: history.volume };
}

/** The same with 16 MiB in one file, in snapshot `s3`. */
async function originWithLarge(): ReturnType<typeof origin> {
  const { store, volume } = await origin();
  await volume.exclusive(async (writer) => {
    writer.fs.write(
      writer.fs.create(2, "large", { type: "file" }),
      0,
      new Random(5).bytes(2 ** 24),
    );
    await writer.takeSnapshot("s3");
  });
  return { store, volume };
}

/** What a device is like. */
interface Device {
  /** Waits before each read of so many bytes. */
  delay?: (byteCount: number) => Promise<void>;
  /** Called before each read. */
  before?: (vbn: number) => void;
}

/** A member that reads beside others after a wait. */
function slow(under: BlockStore, device: Device): BlockStore {
  return {
    capacity: under.capacity,
    read: (vbn, target) => under.read(vbn, target),
    write: (vbn, source) => under.write(vbn, source),
    sync: () => under.sync(),
    close: () => under.close(),
    async readParallel(parts) {
      for (const { vbn, target } of parts) {
        await (device.delay?.(target.length) ?? Promise.resolve());
        device.before?.(vbn);
        under.read(vbn, target);
      }
    },
  };
}

/** A copy of a volume on a stripe of three. */
function striped(
  source: MemoryStore,
  device: (member: number) => Device = () => ({}),
): { volume: Volume; store: StripedStore; members: MemoryStore[] } {
  const members = MEMBERS.map(() => new MemoryStore(memberBlocksOf(CAPACITY, 3)));
  const store = StripedStore.create(members.map((member, i) => slow(member, device(i))), {
    capacity: CAPACITY,
    names: MEMBERS,
    stripeId: "00".repeat(16),
  });
  for (const [vbn, block] of source.blocks) store.write(vbn, block);
  assert(members.every(({ blocks }) => blocks.size > 20), "every member has a part");
  return { volume: Volume.open(store), store, members };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

test("an image read from several devices at once is the same bytes, whole and in ranges", async () => {
  const { store, volume } = await origin();
  const random = new Random(2);
  // The devices answer in any order.
  const { volume: wide } = striped(store, () => ({
    delay: () => random.oneIn(3) ? wait(random.below(3)) : Promise.resolve(),
  }));
  for (const base of [undefined, "s1"]) {
    const expected = await bytesOf(imageOf(volume, "s2", base));
    assertEquals(await bytesOf(imageOf(wide, "s2", base)), expected);
    for (let i = 0; i < 25; i++) {
      const from = random.below(expected.length + 1);
      const most = random.pick([0, 1, 5000, 2_000_000, expected.length]);
      const to = Math.min(expected.length, from + most);
      // Anew, so that no checksum is known, and with what the last one knew.
      const image = imageOf(wide, "s2", base);
      assertEquals(await collect(image.stream({ from, to })), expected.subarray(from, to));
      assertEquals(await collect(image.stream({ from })), expected.subarray(from));
    }
  }
  assertEquals(wide.leases.size, 0);
  await wide.close();
  await volume.close();
});

test("an image comes from a stripe of files, and goes into another one", async () => {
  const { store, volume } = await origin();
  const directory = Deno.makeTempDirSync();
  const onFiles = (name: string) => {
    const files = MEMBERS.map((member) =>
      FileStore.open(`${directory}/${name}.${member}`, {
        create: true,
        capacity: memberBlocksOf(CAPACITY, 3),
        parallel: true,
      })
    );
    const stripeId = "11".repeat(16);
    return StripedStore.create(files, { capacity: CAPACITY, names: MEMBERS, stripeId });
  };
  try {
    const source = onFiles("source");
    for (const [vbn, block] of store.blocks) source.write(vbn, block);
    const wide = Volume.open(source);
    const copy = Volume.incoming(onFiles("copy"), wide.volumeId);
    for (const base of [undefined, "s1"]) {
      const top = base === undefined ? "s1" : "s2";
      const bytes = await bytesOf(imageOf(wide, top, base));
      assertEquals(bytes, await bytesOf(imageOf(volume, top, base)));
      await applyImage(copy, sourceOf(bytes));
      assertClean(copy);
    }
    assertEquals(
      await bytesOf(imageOf(copy, "s2", "s1")),
      await bytesOf(imageOf(wide, "s2", "s1")),
    );
    await copy.close();
    await wide.close();
  } finally {
    Deno.removeSync(directory, { recursive: true });
    await volume.close();
  }
});

test("reading ahead goes as far as its window, and only when somebody reads", async () => {
  const { store, volume } = await origin();
  await volume.exclusive(async (writer) => {
    writer.fs.write(
      writer.fs.create(2, "large", { type: "file" }),
      0,
      new Random(5).bytes(2 ** 24),
    );
    await writer.takeSnapshot("s3");
  });
  let begun = 0;
  let most = 0;
  let underWay = 0;
  const { volume: wide } = striped(store, () => ({
    delay: async (byteCount) => {
      begun++;
      // Whole units: each is a batch of its own.
      if (byteCount === 2 ** 20) most = Math.max(most, ++underWay);
      await wait(2);
      if (byteCount === 2 ** 20) underWay--;
    },
  }));
  const image = imageOf(wide, "s3");
  const frames = image.header.frameCount;
  const reader = image.stream().getReader();
  await wait(10);
  assertEquals(begun, 0);
  // Header, index, its end: no frame yet. Then the first chunk with frames.
  let bytes = 0;
  while (begun === 0) bytes += (await reader.read()).value!.length;
  await wait(60);
  const ahead = begun;
  await wait(60);
  assertEquals(begun, ahead, "nobody takes, and it goes on reading");
  assert(ahead < frames - 8, `${ahead} of ${frames}`);
  assert(most >= 3 && most <= 8, `${most} units are read at once`);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    bytes += value.length;
  }
  assertEquals([bytes, begun], [image.byteCount, frames]);
  await wide.close();
  await volume.close();
});

test("a range of a few bytes reads the frame that has them, and no more", async () => {
  const { store, volume } = await origin();
  let begun = 0;
  const { volume: wide } = striped(store, () => ({ before: () => void begun++ }));
  const image = imageOf(wide, "s2");
  const middle = Math.floor(image.byteCount / 2);
  await collect(image.stream({ from: middle, to: middle + 10 }));
  assertEquals(begun, 1);
  await wide.close();
  await volume.close();
});

test("a reader that goes leaves nothing under way, and no lease", async () => {
  const { store, volume } = await originWithLarge();
  const { volume: wide, members } = striped(store, () => ({ delay: () => wait(5) }));
  for (const chunks of [1, 3, 6, 7]) {
    let ended = 0;
    const reader = imageOf(wide, "s3").stream({ onEnd: () => void ended++ }).getReader();
    for (let i = 0; i < chunks; i++) await reader.read();
    const cancelled = reader.cancel();
    await cancelled;
    assertEquals([wide.leases.size, ended], [0, 1]);
    // What was under way has ended: the targets are nobody's any more, and the store may be closed.
    let late = 0;
    for (const member of members) member.read = () => void late++;
    await wait(20);
    assertEquals(late, 0, "reads went on behind the reader's back");
    for (const member of members) member.read = MemoryStore.prototype.read;
  }
  await wide.close();
  await volume.close();
});

test("an error of one device ends the stream with it, after what came before", async () => {
  const { store, volume } = await origin();
  const expected = await bytesOf(imageOf(volume, "s2"));
  let reads = 0;
  const { volume: wide } = striped(store, (member) => ({
    delay: () => wait(1),
    before() {
      if (member === 1 && ++reads === 4) throw new VolcastError("io", "the second device broke");
    },
  }));
  const reader = imageOf(wide, "s2").stream().getReader();
  let position = 0;
  const error = await assertRejects(async () => {
    for (;;) {
      const value = (await reader.read()).value!;
      assertEquals(value, expected.subarray(position, position + value.length));
      position += value.length;
    }
  }, VolcastError);
  assertEquals(error.message, "the second device broke");
  assert(position > 0);
  assertEquals(wide.leases.size, 0);
  await wide.close();
  await volume.close();
});

test("a block that is not as its pointer says is not sent from a stripe either", async () => {
  const { store, volume } = await origin();
  const { volume: wide, members } = striped(store);
  const image = imageOf(wide, "s2");
  const reader = image.stream().getReader();
  await reader.read();
  for (const [vbn, block] of members[2].blocks) {
    members[2].blocks.set(vbn, block.map((byte) => byte ^ 1));
  }
  const error = await assertRejects(async () => {
    while (!(await reader.read()).done);
  }, VolcastError);
  assertEquals(error.kind, "damaged");
  await wide.close();
  await volume.close();
});

test("a lease that is ended while blocks are read ahead ends the stream as busy", async () => {
  const { store, volume } = await origin();
  let reading = false;
  const { volume: wide, store: wideStore } = striped(store, () => ({
    delay: async () => {
      reading = true;
      await wait(3);
    },
  }));
  const reader = imageOf(wide, "s2").stream().getReader();
  const taken = (async () => {
    while (!(await reader.read()).done);
  })();
  const failure = assertRejects(() => taken, VolcastError);
  while (!reading) await wait(1);
  wide.leases.endAll();
  // Whoever ended them writes at once.
  wideStore.write(0, new Uint8Array(CAPACITY * BLOCK_SIZE).fill(0xee));
  assertEquals((await failure).kind, "busy");
  await wait(30);
  wide.abandon();
  await volume.close();
});

test("what was written and is still being gathered is read ahead too", async () => {
  const { store, volume } = await origin();
  const { volume: wide } = striped(store);
  const before = stateOf(wide);
  // The front of an image is asked for while content of a file is being written behind it.
  await wide.exclusive(async (writer) => {
    const ino = writer.fs.create(2, "late", { type: "file" });
    writer.fs.write(ino, 0, new Random(3).bytes(3_000_000));
    await writer.takeSnapshot("s3");
    writer.fs.write(ino, 0, new Random(4).bytes(500_000));
    const bytes = await bytesOf(imageOf(wide, "s3", "s2"));
    assertEquals(bytes, await bytesOf(imageOf(wide, "s3", "s2")));
  });
  assert(stateOf(wide) !== before);
  await wide.close();
  await volume.close();
});
