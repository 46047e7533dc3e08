import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  generateKeys,
  keepSealed,
  keepWritable,
  Node,
  readSigningKey,
} from "../../src/replication/mod.ts";
import { fsck, Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { tickingClock } from "../helpers/history.ts";
import { prepared } from "../helpers/publisher.ts";
import { advance, replicaOf } from "../helpers/replicas.ts";
import { FaultStore } from "../helpers/stores.ts";
import { test } from "../helpers/strict.ts";
import { until } from "../helpers/until.ts";

test("keepWritable tells once that nothing can be written, and what waits is done when it can", async () => {
  const faulty = new FaultStore((await prepared(400))[0]);
  const volume = Volume.open(faulty, { now: tickingClock() });
  await volume.exclusive((writer) => writer.takeSnapshot("one", { pointers: ["master"] }));
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const lines: string[] = [];
  const log = (text: string) => void lines.push(text);
  const stop = new AbortController();
  faulty.fault = { at: faulty.counts.write + 1, call: "write", kind: "full", forEver: true };
  await assertRejects(() => volume.updateLocal((state) => void (state.site = "here")));
  const key = readSigningKey(generateKeys().privateText, "key");
  const sealing = keepSealed(node, { key, lifetimeMs: 86_400_000, log }, stop.signal);
  const recovering = keepWritable(node, { log, lookMs: 1 }, stop.signal);
  await until("it is told", () => lines.length === 2);
  await until("it was tried again", () => faulty.faults > 5);
  assertMatch(lines[0], /^Cannot seal: Cannot write: an earlier write failed \(.*No space left/);
  assertMatch(lines[1], /^Reading goes on, writing does not: Cannot write: No space left/);
  faulty.fault = undefined;
  await until("that is told", () => lines.length >= 3);
  assertMatch(lines[2], /^Writing goes on, from active/);
  stop.abort();
  await Promise.all([sealing, recovering]);
  await volume.close();
  assertEquals(lines.filter((line) => line.startsWith("Cannot seal")).length, 1);
  // What could not be noted then is on the disk now.
  const found = Volume.open(faulty);
  assertEquals(Object.keys(found.local.seals ?? {}), ["master"]);
  await found.close();
});

test("a replica recovers with its local changes, and takes the next image", async () => {
  const origin = Volume.open((await prepared(600))[0], { now: tickingClock() });
  await origin.exclusive((writer) => writer.takeSnapshot("one", { pointers: ["master"] }));
  const { store, volume: made } = await replicaOf(origin, "one");
  await made.close();
  const faulty = new FaultStore(store);
  const replica = Volume.open(faulty, { now: tickingClock(), localWrites: true });
  const write = (name: string) =>
    replica.exclusive(async (writer) => {
      writer.fs.write(writer.fs.create(2, name, { type: "file" }), 0, new Uint8Array(9000));
      await writer.checkpoint();
    });
  await write("mine");
  const view = replica.view();
  const lines = describe(view.fs, { all: true });
  faulty.fault = { at: faulty.counts.write + 1, call: "write", kind: "full", forEver: true };
  assertEquals((await assertRejects(() => write("lost"), VolcastError)).kind, "full");
  faulty.fault = undefined;
  await replica.recover();
  await write("more");
  assertEquals(describe(view.fs, { all: true }), lines);
  view.release();
  const names = [...replica.fileSystem(replica.active).list(2)].map(({ name }) => name);
  assertEquals(names.filter((name) => !name.startsWith("old")), ["mine", "more"]);
  assertEquals(fsck(replica).findings, []);
  await origin.exclusive((writer) => writer.takeSnapshot("two", { pointers: ["master"] }));
  await advance(replica, origin, "two");
  assertEquals(replica.current.name, "two");
  assertEquals(fsck(replica).findings, []);
  await replica.close();
  await origin.close();
});
