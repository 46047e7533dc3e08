import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE, memberBlocksOf, STRIPE_DATA_START } from "../../src/format/mod.ts";
import { type BlockStore, FileStore, MemoryStore, StripedStore } from "../../src/store/mod.ts";
import { MEMBERS, STRIPED, stripeOf } from "../helpers/arrangements.ts";
import { problems, run } from "../helpers/publisher.ts";
import { Random } from "../helpers/random.ts";
import { flipBit } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { testBlockStore } from "../suites/block_store_suite.ts";

/** A stripe over three files, each with a handle of its own to read beside. */
function onFiles(capacity: number): { store: StripedStore; dispose(): void } {
  const directory = Deno.makeTempDirSync();
  const members = MEMBERS.map((name) =>
    FileStore.open(`${directory}/${name}`, {
      create: true,
      capacity: memberBlocksOf(capacity, 3),
      parallel: true,
    })
  );
  const store = StripedStore.create(members, {
    capacity,
    names: MEMBERS,
    stripeId: "ab".repeat(16),
  });
  return {
    store,
    dispose() {
      store.close();
      Deno.removeSync(directory, { recursive: true });
    },
  };
}

testBlockStore({
  name: "StripedStore over memory",
  make: (capacity) => ({ store: stripeOf(capacity).store, dispose() {} }),
});
testBlockStore({
  name: "StripedStore of two",
  make: (capacity) => ({ store: stripeOf(capacity, ["a", "b"]).store, dispose() {} }),
});
testBlockStore({ name: "StripedStore over files", make: onFiles });

function damage(work: () => unknown, says: RegExp, kind: ErrorKind = "damaged"): void {
  const error = assertThrows(work, VolcastError);
  assertEquals(error.kind, kind, error.message);
  assert(says.test(`${error.message}\n${error.hint}`), error.message + error.hint);
}

test("StripedStore gives units to its members in turn", async () => {
  const { store, disks } = stripeOf(4000);
  store.write(0, new Uint8Array(4000 * BLOCK_SIZE).fill(1));
  await store.sync();
  // Units 0 to 15, the last one not whole: 6, 5 and 5 of them.
  assertEquals(disks.map((disk) => disk.blocks.size - 1), [
    5 * 256 + 160,
    5 * 256,
    5 * 256,
  ]);
  for (const disk of disks) {
    assertEquals(Math.min(...[...disk.blocks.keys()].slice(1)), STRIPE_DATA_START);
  }
  const found = StripedStore.open(disks, MEMBERS);
  const unit = new Uint8Array(BLOCK_SIZE).fill(7);
  found.write(256 * 4 + 3, unit);
  const target = new Uint8Array(BLOCK_SIZE);
  disks[1].read(STRIPE_DATA_START + 256 + 3, target);
  assertEquals(target, unit);
});

test("StripedStore reads parts from all members at once, across units, as it does one by one", async () => {
  const { store, dispose } = onFiles(3000);
  try {
    const random = new Random(1);
    for (let vbn = 0; vbn + 50 < 3000; vbn += 50) store.write(vbn, random.bytes(50 * BLOCK_SIZE));
    for (let round = 0; round < 20; round++) {
      const parts = Array.from({ length: random.between(1, 12) }, () => {
        const count = random.pick([1, 5, 256, 700]);
        const target = new Uint8Array(count * BLOCK_SIZE).fill(random.below(256));
        return { vbn: random.below(3000 - count), target };
      });
      // Some in one call, some in several that do not wait for each other.
      const cut = random.below(parts.length + 1);
      const calls = [parts.slice(0, cut), ...parts.slice(cut).map((part) => [part])];
      await Promise.all(calls.map((call) => store.readParallel(call)));
      for (const { vbn, target } of parts) {
        const expected = new Uint8Array(target.length);
        store.read(vbn, expected);
        assert(target.every((byte, i) => byte === expected[i]), `${vbn} ${target.length}`);
      }
    }
    await store.readParallel([]);
    const outside = [{ vbn: 2999, target: new Uint8Array(2 * BLOCK_SIZE) }];
    await assertRejects(() => store.readParallel(outside));
  } finally {
    dispose();
  }
});

test("StripedStore waits for all members, also when one fails", async () => {
  const { disks } = stripeOf(3000);
  let late = 0;
  const slow = (disk: BlockStore): BlockStore => ({
    capacity: disk.capacity,
    read: (vbn, target) => disk.read(vbn, target),
    write: (vbn, source) => disk.write(vbn, source),
    close: () => {},
    async sync() {
      await new Promise((resolve) => setTimeout(resolve, 20));
      late++;
    },
    async readParallel() {
      await new Promise((resolve) => setTimeout(resolve, 20));
      late++;
    },
  });
  const failing: BlockStore = {
    ...slow(disks[1]),
    sync: () => Promise.reject(new VolcastError("io", "sync of b")),
    readParallel: () => Promise.reject(new VolcastError("io", "read of b")),
  };
  const store = StripedStore.open([slow(disks[0]), failing, slow(disks[2])], MEMBERS);
  const read = await assertRejects(() =>
    store.readParallel([{ vbn: 0, target: new Uint8Array(768 * BLOCK_SIZE) }])
  );
  assertEquals([(read as Error).message, late], ["read of b", 2]);
  const sync = await assertRejects(() => store.sync());
  assertEquals([(sync as Error).message, late], ["sync of b", 4]);
});

test("StripedStore.open names what is wrong with its members", () => {
  const { disks: [a, b, c] } = stripeOf(3000);
  const open = (members: MemoryStore[], paths: string[]) => StripedStore.open(members, paths);
  assertEquals(open([a, b, c], ["a", "b", "c"]).capacity, 3000);
  damage(() => open([a, c, b], ["a", "x", "y"]), /x is member 3 of 3.*member 2.*\n.*a,y,x$/);
  damage(() => open([a, b], ["a", "b"]), /2 members are given, it has 3; c is missing/);
  damage(() => open([a, b, b], ["a", "b", "b"]), /c is missing/);
  damage(() => open([a, b, c, c], ["a", "b", "c", "d"]), /4 members are given, it has 3/);
  const foreign = stripeOf(3000).disks[1];
  damage(
    () => open([a, foreign, c], ["a", "b", "c"]),
    /b belongs to the stripe [0-9a-f]{32}, a to/,
  );
  damage(() => open([a, new MemoryStore(2000), c], ["a", "b", "c"]), /b: it is no member/);
  const short = new MemoryStore(1000);
  short.blocks.set(0, b.blocks.get(0)!);
  damage(
    () => open([a, short, c], ["a", "b", "c"]),
    /b: it has 1000 blocks, a member.* 1280\n.*cut off/,
  );
});

test("StripedStore.open refuses a header with any bit flipped", () => {
  const random = new Random(2);
  for (let i = 0; i < 300; i++) {
    const { disks } = stripeOf(3000);
    flipBit(disks[1], 0, i < 64 ? i : random.below(BLOCK_SIZE * 8));
    damage(() => StripedStore.open(disks, MEMBERS), /./);
  }
});

test("a striped volume has an old or the new root after a crash at every write and sync", async () => {
  const whole = await run({ arrangement: STRIPED, stride: 150 });
  const writes = whole.disks.map(({ events }) => events.filter(({ kind }) => kind === "write"));
  assert(writes.every(({ length }) => length > 10), writes.map(({ length }) => length).join());
  assertEquals(problems(whole, new Random(1), 12), []);
});

test("the crash test sees one member of a stripe that is not synced", async () => {
  for (const member of [0, 1, 2]) {
    const arrangement = {
      ...STRIPED,
      open(disks: readonly BlockStore[]) {
        const forgetful = disks.map((disk, i) =>
          i !== member ? disk : Object.create(disk, {
            capacity: { value: disk.capacity },
            read: { value: disk.read.bind(disk) },
            write: { value: disk.write.bind(disk) },
            sync: { value: () => Promise.resolve() },
          })
        );
        return StripedStore.open(forgetful, MEMBERS);
      },
    };
    const broken = await run({ arrangement, stride: 150 });
    assertNotEquals(problems(broken, new Random(2), 3), [], `member ${member}`);
  }
});
