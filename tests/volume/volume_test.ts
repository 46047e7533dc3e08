import { assert, assertEquals, assertRejects } from "@std/assert";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import { decodeSuperblock, encodeSuperblock, INO, snapshotId } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  ACTIVE,
  MASTER,
  Mutex,
  readOwner,
  readSuperblock,
  Volume,
  type Writer,
} from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { advance, bitsOf, blockAt, replicaOf } from "../helpers/replicas.ts";
import { copyOf, CrashStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { until } from "../helpers/until.ts";

const ID = "00112233445566778899aabbccddeeff";

async function made(
  capacity = 400,
): Promise<{ store: MemoryStore; volume: Volume }> {
  const store = new MemoryStore(capacity);
  const volume = await Volume.create(store, { now: tickingClock(), volumeId: ID });
  return { store, volume };
}

async function refusal(work: () => unknown, kind: ErrorKind): Promise<VolcastError> {
  const error = await assertRejects(async () => await work(), VolcastError);
  assertEquals(error.kind, kind, error.message);
  assert(error.message.startsWith("Cannot "), error.message);
  return error;
}

function touch(writer: Writer, name: string): number {
  return writer.fs.create(2, name, { type: "file" });
}

test("Volume.create makes an empty volume that opens as what it is", async () => {
  for (const capacity of [256, 257, 4096, 32_768, 32_769, 100_000]) {
    const { store, volume } = await made(capacity);
    assertEquals(volume.volumeId, ID);
    assertEquals(volume.role, "origin");
    assertEquals(volume.snapshots(), []);
    assertEquals(volume.pointers(), []);
    assertEquals(volume.current.name, ACTIVE);
    assertClean(volume);
    await volume.close();
    const again = Volume.open(store);
    assertEquals(describe(again.view().fs), [" directory 755 0 0 2 0 "]);
    assertEquals(again.volumeId, ID);
    assertEquals(again.zone.capacity, capacity);
    assertClean(again);
    await again.close();
  }
  for (const capacity of [0, 1, 255]) {
    await refusal(() => Volume.create(new MemoryStore(capacity)), "usage");
  }
});

test("Volume.create gives every volume another id", async () => {
  const ids = new Set<string>();
  for (let i = 0; i < 5; i++) {
    const volume = await Volume.create(new MemoryStore(256));
    assert(/^[0-9a-f]{32}$/.test(volume.volumeId));
    ids.add(volume.volumeId);
    await volume.close();
  }
  assertEquals(ids.size, 5);
});

test("Volume.open refuses what is no volume, is cut off or contradicts itself", async () => {
  await refusal(() => Volume.open(new MemoryStore(0)), "damaged");
  await refusal(() => Volume.open(new MemoryStore(1)), "damaged");
  await refusal(() => Volume.open(new MemoryStore(1000)), "damaged");
  const { store, volume } = await made();
  await volume.close();
  const cut = new MemoryStore(399);
  for (const [vbn, block] of store.blocks) if (vbn < 399) cut.blocks.set(vbn, block);
  await refusal(() => Volume.open(cut), "damaged");
  const sound = readSuperblock(store);
  const lies: [object, ErrorKind][] = [
    [{ cp: sound.cp + 1 }, "damaged"],
    [{ volumeId: "ff".repeat(16) }, "damaged"],
    [{ root: { ...sound.root, crc: sound.root.crc ^ 1 } }, "damaged"],
    [{ root: { ...sound.root, vbn: sound.root.vbn + 1 } }, "damaged"],
    [{ dataStart: sound.dataStart - 1 }, "unsupported"],
  ];
  for (const [lie, kind] of lies) {
    const lying = copyOf(store);
    lying.write(sound.sequence % 2, encodeSuperblock({ ...sound, ...lie }));
    await refusal(() => Volume.open(lying), kind);
  }
});

test("superblocks are written in turn, each with the next number", async () => {
  const { store, volume } = await made();
  for (let i = 1; i <= 5; i++) {
    const before = volume.superblock;
    const other = new Uint8Array(4096);
    store.read((before.sequence) % 2, other);
    await volume.exclusive(async (writer) => {
      touch(writer, `${i}`);
      await writer.checkpoint();
    });
    const slots = [0, 1].map((vbn) => {
      const block = new Uint8Array(4096);
      store.read(vbn, block);
      return decodeSuperblock(block)!;
    });
    assertEquals(slots[volume.superblock.sequence % 2], volume.superblock);
    assertEquals(slots[before.sequence % 2], before);
    assertEquals(volume.superblock.sequence, before.sequence + 1);
    assertEquals(volume.superblock.cp, before.cp + 1);
  }
  await volume.close();
});

test("a checkpoint without a change writes nothing", async () => {
  const { store, volume } = await made();
  const { cp } = volume.superblock;
  const before = new Map(store.blocks);
  await volume.checkpoint();
  await volume.exclusive((writer) => assertEquals(writer.isDirty, false));
  assertEquals(volume.superblock.cp, cp);
  assertEquals(store.blocks, before);
  await volume.close();
});

test("Writer.takeSnapshot names, lists and keeps; ids are the same after a reopen", async () => {
  const { store, volume } = await made();
  const first = await volume.exclusive((writer) => {
    touch(writer, "one");
    return writer.takeSnapshot("first", { pointers: [MASTER, "stable"] });
  });
  assertEquals(first.id, snapshotId(first));
  const second = await volume.exclusive((writer) => {
    touch(writer, "two");
    return writer.takeSnapshot("second", { pointers: [MASTER] });
  });
  // Nothing changed between: still a snapshot of its own.
  const third = await volume.exclusive((writer) => writer.takeSnapshot("third"));
  assertEquals(new Set([first.id, second.id, third.id]).size, 3);
  assertEquals(volume.snapshots(), [first, second, third]);
  assertEquals(volume.pointers(), [
    { name: "stable", snapshot: first.id },
    { name: MASTER, snapshot: second.id },
  ]);
  assertEquals(volume.resolve(MASTER), second);
  assertEquals(volume.resolve("stable"), first);
  assertEquals(volume.resolve(third.id), third);
  assertEquals(volume.resolve("second"), second);
  assertEquals(volume.resolve(ACTIVE).id, volume.current.id);
  assertEquals(volume.resolve(volume.current.id).id, volume.current.id);
  assertEquals(volume.find("fourth"), undefined);
  assertEquals(volume.find("1-00000000"), undefined);
  const names = (ref: string) => {
    const view = volume.view(ref);
    const list = [...view.fs.list(2)].map(({ name }) => name);
    view.release();
    return list;
  };
  assertEquals(names("first"), ["one"]);
  assertEquals(names("second"), ["one", "two"]);
  await volume.close();
  const again = Volume.open(store);
  assertEquals(again.snapshots(), [first, second, third]);
  assertEquals(again.pointers().length, 2);
  assertClean(again);
  await again.close();
});

test("Writer refuses names that are taken or malformed, and snapshots that are held", async () => {
  const { volume } = await made();
  const take = (name: string, pointers: string[] = []) =>
    volume.exclusive((writer) => writer.takeSnapshot(name, { pointers }));
  const first = await take("first", [MASTER]);
  await refusal(() => take("first"), "exists");
  await refusal(() => take(MASTER), "exists");
  await refusal(() => take("second", ["first"]), "exists");
  for (const name of ["", "a b", "-a", "full", "active", "12-0123abcd", "a/b"]) {
    await refusal(() => take(name), "usage");
    await refusal(() => take("fine", [name]), "usage");
  }
  await refusal(
    () => volume.exclusive((writer) => writer.setPointer("first", first.id)),
    "exists",
  );
  const held = await refusal(
    () => volume.exclusive((writer) => writer.deleteSnapshot(first.id)),
    "held",
  );
  assert(held.message.includes(MASTER));
  await refusal(
    () => volume.exclusive((writer) => writer.deleteSnapshot("1-0000aaaa")),
    "not-found",
  );
  assertEquals(volume.snapshots(), [first]);
  const second = await take("second", [MASTER]);
  await volume.exclusive((writer) => writer.deleteSnapshot(first.id));
  assertEquals(volume.snapshots(), [second]);
  const missing = await refusal(() => volume.resolve("first"), "not-found");
  assert(missing.hint.includes("second"), missing.hint);
  assertClean(volume);
  await volume.close();
});

test("Volume keeps many snapshots, and deleting gives back exactly what nobody else has", async () => {
  const { store, volume } = await made(6000);
  const random = new Random(1);
  const ids: string[] = [];
  for (let i = 0; i < 120; i++) {
    ids.push(
      await volume.exclusive(async (writer) => {
        writer.fs.write(touch(writer, `file${i}`), 0, random.bytes(4096));
        return (await writer.takeSnapshot(`s${i}`)).id;
      }),
    );
  }
  assertEquals(volume.snapshots().map(({ id }) => id), ids);
  assertClean(volume);
  await volume.close();
  const again = Volume.open(store);
  for (const [i, id] of ids.entries()) {
    if (i % 7 !== 0) await again.exclusive((writer) => writer.deleteSnapshot(id));
  }
  assertEquals(again.snapshots().map(({ id }) => id), ids.filter((_, i) => i % 7 === 0));
  assertClean(again);
  // The table has become shorter, and gives back what it does not need.
  const { inode, tree } = again.fileSystem(again.current).open(INO.snapshots);
  let blocks = 0;
  tree.forEachPointer((_, level) => {
    if (level === 0) blocks++;
    return true;
  });
  assertEquals([inode.size, blocks], [18 * 512, 3]);
  for (const [i, id] of ids.entries()) {
    if (i % 7 !== 0) continue;
    const view = again.view(id);
    assertEquals([...view.fs.list(2)].length, i + 1);
    view.release();
  }
  await again.close();
});

test("Volume runs exclusive work one after the other, in order, and goes on after a failure", async () => {
  const { volume } = await made();
  const order: number[] = [];
  const jobs = [1, 2, 3, 4].map((number) =>
    volume.exclusive(async (writer) => {
      order.push(number);
      await writer.checkpoint();
      await Promise.resolve();
      order.push(-number);
      if (number === 2) throw new VolcastError("usage", "Cannot do this: it is a test");
      return number;
    })
  );
  const results = await Promise.allSettled(jobs);
  assertEquals(order, [1, -1, 2, -2, 3, -3, 4, -4]);
  assertEquals(results.map(({ status }) => status), [
    "fulfilled",
    "rejected",
    "fulfilled",
    "fulfilled",
  ]);
  await volume.close();
});

test("Mutex keeps the order of arrival", async () => {
  const mutex = new Mutex();
  const seen: number[] = [];
  await Promise.allSettled([3, 1, 2].map((value) =>
    mutex.run(async () => {
      await Promise.resolve();
      seen.push(value);
      if (value === 1) throw new Error("one");
    })
  ));
  assertEquals(seen, [3, 1, 2]);
});

test("what was changed is durable after the time set, though nobody asks", async () => {
  const store = new MemoryStore(400);
  const volume = await Volume.create(store, { checkpointMs: 20 });
  await volume.exclusive((writer) => void touch(writer, "a"));
  const { cp } = volume.superblock;
  await until("a consistency point", () => volume.superblock.cp !== cp);
  volume.abandon();
  const found = Volume.open(store);
  const view = found.view();
  assert(view.fs.lookup(2, "a") !== undefined);
  view.release();
  await found.close();
});

test("Writer.checkpointIfDue makes one when much is in memory, and only then", async () => {
  const store = new MemoryStore(3000);
  const volume = await Volume.create(store, { dirtyBytes: 100_000, checkpointMs: 1e9 });
  await volume.exclusive(async (writer) => {
    const { cp } = volume.superblock;
    touch(writer, "a");
    await writer.checkpointIfDue();
    assertEquals(volume.superblock.cp, cp);
    for (let i = 0; i < 200; i++) touch(writer, `${i}`);
    assert(writer.dirtyBytes > 100_000);
    assertEquals(volume.dirtyBytes, writer.dirtyBytes);
    await writer.checkpointIfDue();
    assertEquals(volume.superblock.cp, cp + 1);
    assertEquals(writer.dirtyBytes, 0);
  });
  await volume.close();
});

test("Volume.close commits, and close again and after abandon does nothing", async () => {
  const { store, volume } = await made();
  await volume.exclusive((writer) => void touch(writer, "a"));
  await volume.close();
  await volume.close();
  const again = Volume.open(store);
  await again.exclusive((writer) => void touch(writer, "b"));
  again.abandon();
  await again.close();
  const last = Volume.open(store);
  const view = last.view();
  assertEquals([...view.fs.list(2)].map(({ name }) => name), ["a"]);
  await last.close();
});

test("a replica may not be written, and says so", async () => {
  const { volume } = await made();
  const snapshot = await volume.exclusive((writer) => {
    touch(writer, "a");
    return writer.takeSnapshot("first", { pointers: [MASTER, "stable"] });
  });
  const replica = await replicaOf(volume, "first");
  assertEquals(replica.volume.role, "replica");
  await refusal(() => replica.volume.exclusive(() => {}), "read-only");
  await refusal(() => replica.volume.checkpoint(), "read-only");
  assertEquals(replica.volume.current, { ...snapshot, name: "first" });
  assertEquals(replica.volume.snapshots(), [replica.volume.current]);
  // Its master is what was applied; other pointers come with the root that lists their snapshot.
  assertEquals(replica.volume.pointers(), [{ name: MASTER, snapshot: snapshot.id }]);
  assertEquals(replica.volume.resolve(MASTER).id, snapshot.id);
  assertEquals(replica.volume.freeBlocks, 0);
  const second = await volume.exclusive((writer) => {
    touch(writer, "b");
    return writer.takeSnapshot("second", { pointers: [MASTER] });
  });
  await advance(replica.volume, volume, "second");
  // The root of the second is older than the pointer to it: its table calls the first one master.
  assertEquals(replica.volume.pointers(), [
    { name: MASTER, snapshot: second.id },
    { name: "stable", snapshot: snapshot.id },
  ]);
  assertEquals(replica.volume.snapshots().map(({ id }) => id), [snapshot.id, second.id]);
  // Who never had the first one does not show the pointer to it.
  const late = await replicaOf(volume, "second");
  assertEquals(late.volume.pointers(), [{ name: MASTER, snapshot: second.id }]);
  assertEquals(late.volume.snapshots().map(({ id }) => id), [second.id]);
  await late.volume.close();
  await replica.volume.close();
  await volume.close();
});

test("Volume.flip makes what was received durable before the superblock names it", async () => {
  const { store, volume } = await made();
  const top = await volume.exclusive((writer) => writer.takeSnapshot("first"));
  const target = new CrashStore(new MemoryStore(400));
  const replica = Volume.incoming(target, volume.volumeId);
  assertEquals(replica.hasRoot, false);
  for (const vbn of bitsOf(volume, top)) replica.writeReceived(vbn, blockAt(store, vbn));
  await replica.flip(top);
  assertEquals(replica.current.id, top.id);
  assertClean(replica);
  const kinds = target.events.map((event) =>
    event.kind === "write" && event.vbn < 2 ? "superblock" : event.kind
  );
  assertEquals(kinds.slice(kinds.lastIndexOf("write")), ["write", "sync", "superblock", "sync"]);
  await replica.close();
  await volume.close();
});

test("local state survives, is never replicated and is refused when it is too large", async () => {
  const { store, volume } = await made();
  await Promise.all([1, 2, 3].map((number) =>
    volume.updateLocal((state) => {
      state.sites[`site${number}`] = { needs: [`${number}-00000000`] };
    })
  ));
  assertEquals(Object.keys(volume.local.sites), ["site1", "site2", "site3"]);
  await assertRejects(
    () =>
      volume.updateLocal(() => {
        throw new Error("no");
      }),
    Error,
    "no",
  );
  await volume.close();
  const again = Volume.open(store);
  assertEquals(Object.keys(again.local.sites), ["site1", "site2", "site3"]);
  await again.exclusive((writer) => writer.takeSnapshot("s"));
  const replica = await replicaOf(again, "s");
  assertEquals(replica.volume.local.sites, {});
  await replica.volume.close();
  await refusal(() =>
    again.updateLocal((state) => {
      state.sites.large = {
        needs: Array.from({ length: 20_000 }, (_, i) => `${i + 1}-00000000`),
      };
    }), "full");
  again.abandon();
  const found = Volume.open(store);
  assertEquals(Object.keys(found.local.sites), ["site1", "site2", "site3"]);
  await found.close();
});

test("the owner is noted where another process can read it", async () => {
  const { store, volume } = await made();
  assertEquals(readOwner(store, volume.zone), undefined);
  volume.noteOwner("http://127.0.0.1:1");
  assertEquals(readOwner(store, volume.zone), { pid: Deno.pid, url: "http://127.0.0.1:1" });
  volume.noteOwner(undefined);
  assertEquals(readOwner(store, volume.zone), { pid: Deno.pid });
  await volume.close();
});
