// Nodes with real servers between them: takeover, divergence, and local changes of a replica.

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { tarFromEntries, type TreeEntry } from "../../src/archive/mod.ts";
import { PATIENCE, VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { HttpPeer, type RunningServer } from "../../src/http/mod.ts";
import { historyHeader, parseHistory } from "../../src/http/history_header.ts";
import {
  follow,
  Node,
  type NodeEvent,
  type Peer,
  planResync,
  Puller,
} from "../../src/replication/mod.ts";
import {
  createVolumeFile,
  fsck,
  MASTER,
  openVolumeFile,
  readAll,
  type Volume,
} from "../../src/volume/mod.ts";
import { until } from "../helpers/until.ts";
import { serveNode } from "./served.ts";

const TOKEN = "test-token";
const ADMIN = { authorization: `Bearer ${TOKEN}` } as const;
const QUICK = { patience: { ...PATIENCE, attempts: 3, firstMs: 1 }, drainMs: 0 } as const;
const LOCAL = { localWrites: true } as const;

/** A node that is served. */
interface Served {
  readonly node: Node;
  readonly server: RunningServer;
}

class World implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "volcast-takeover-" });
  readonly all: Served[] = [];

  async origin(): Promise<Served> {
    const path = `${this.directory}/origin.vol`;
    const volume = await createVolumeFile(path, 32 * 2 ** 20);
    return this.#serve(new Node({ name: "origin", path, volume }));
  }

  /** A site that has taken its parent's full image. */
  async site(name: string, parent: Served, options = {}): Promise<Served> {
    const node = new Node({ name, path: `${this.directory}/${name}.vol` });
    await puller(node, [parent], options).pull();
    return this.#serve(node);
  }

  #serve(node: Node): Served {
    const server = serveNode(node, { tokens: { admin: TOKEN }, graceMs: 100 });
    const served = { node, server };
    this.all.push(served);
    return served;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { node, server } of this.all) {
      await server.stop();
      assertEquals(fsck(node.volume).findings, [], node.name);
      await node.volume.close();
    }
    Deno.removeSync(this.directory, { recursive: true });
  }
}

function puller(node: Node, parents: readonly Served[], volumeOptions = {}): Puller {
  return new Puller(node, { ...QUICK, parents: parents.map(peerOf), volumeOptions });
}

function peerOf({ server }: Served): HttpPeer {
  return new HttpPeer(server.url, { token: TOKEN });
}

async function publish({ node: { volume } }: Served, name: string): Promise<void> {
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.lookup(INO.root, "file") ??
      writer.fs.create(INO.root, "file", { type: "file" });
    writer.fs.truncate(ino, 0);
    writer.fs.write(ino, 0, new TextEncoder().encode(name));
    await writer.takeSnapshot(name, { pointers: [MASTER] });
  });
}

function read(volume: Volume, at: string = MASTER): string {
  const view = volume.view(at);
  try {
    return new TextDecoder().decode(readAll(view.fs, view.fs.resolve("file")));
  } finally {
    view.release();
  }
}

/** A tar with one file. */
function tar(name: string, text: string): ReadableStream<Uint8Array> {
  const content = new TextEncoder().encode(text);
  const entry: TreeEntry = {
    path: name,
    type: "file",
    permissions: 0o644,
    uid: 0,
    gid: 0,
    mtime: BigInt(text.length) * 1_000_000_000n,
    size: content.length,
    attributes: { xattrs: new Map() },
    read: () => [content],
  };
  return tarFromEntries([entry]);
}

async function send(
  at: Served,
  path: string,
  body?: ReadableStream<Uint8Array>,
): Promise<Response> {
  return await fetch(at.server.url + path, {
    method: "POST",
    headers: ADMIN,
    ...(body === undefined ? {} : { body }),
  } as RequestInit);
}

async function text(at: Served, path: string): Promise<string> {
  const response = await fetch(at.server.url + path);
  assertEquals(response.status, 200, path);
  return await response.text();
}

// deno-lint-ignore no-explicit-any
async function json(at: Served, path: string): Promise<any> {
  return JSON.parse(await text(at, path));
}

Deno.test("POST /promote makes a following replica the origin, and its sites follow on", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = await world.site("paris", origin);
  const rome = await world.site("rome", paris);
  const log: string[] = [];
  const following = follow(paris.node, puller(paris.node, [origin]), {
    everyMs: 50,
    parents: [peerOf(origin)],
    log: (line) => log.push(line),
  }, new AbortController().signal);
  await publish(origin, "r2");
  await until("r2 at paris", () => paris.node.volume.current.name === "r2");
  await puller(rome.node, [paris]).pull();

  const refused = await fetch(`${paris.server.url}/promote`, { method: "POST" });
  assertEquals(refused.status, 401);
  await refused.body?.cancel();
  const events: NodeEvent[] = [];
  paris.node.events.subscribe((event) => events.push(event));
  const response = await send(paris, "/promote");
  assertEquals(response.status, 200);
  const status = await response.json();
  assertEquals([status.volume.role, status.volume.epoch, status.master.name], ["origin", 2, "r2"]);
  // It ends by itself: nobody told it to.
  await following;
  assertStringIncludes(log.join("\n"), "this node is the origin of epoch 2");
  assertEquals(events.filter(({ type }) => type === "role"), [
    { type: "role", role: "origin", epoch: 2 },
  ]);
  const after = await json(paris, "/status");
  assertEquals([after.ready, after.upstream, after.chain], [true, null, ["paris"]]);
  const again = await send(paris, "/promote");
  assertEquals([again.status, (await again.json()).kind], [409, "nothing"]);

  // Published there, over HTTP; rome takes an increment, and stays on the new line.
  const published = await send(paris, "/publish?as=t1", tar("file", "t1"));
  assertEquals(published.status, 201, await published.text());
  const pulled = await puller(rome.node, [paris]).pull();
  assertEquals([pulled.kind, read(rome.node.volume), rome.node.volume.root.epoch], [
    "increment",
    "t1",
    2,
  ]);
  assertEquals(rome.node.chain, ["paris"]);
  const pulls = puller(paris.node, [origin]);
  const error = await assertRejects(() => pulls.pull(), VolcastError, "an origin, of epoch 2");
  assertEquals(error.kind, "diverged");
  assertStringIncludes(error.hint, "volcast resync");
  // A failure to pull says nothing about the origin that it is.
  assertEquals((await json(paris, "/status")).ready, true);
});

Deno.test("a site is not taken back by the old source, nor onto a line that its own went apart from", async () => {
  await using world = new World();
  const origin = await world.origin();
  for (const name of ["r1", "r2"]) await publish(origin, name);
  const paris = await world.site("paris", origin);
  const rome = await world.site("rome", paris);
  const oslo = await world.site("oslo", paris);
  await send(paris, "/promote").then((response) => response.body?.cancel());
  await publish(paris, "t1");
  await publish(paris, "t2");
  await puller(rome.node, [paris]).pull();
  const { current } = rome.node.volume;

  // Late only: another site that has not heard of the takeover yet.
  const late = await assertRejects(() => puller(rome.node, [oslo]).pull(), VolcastError);
  assertEquals(late.kind, "io");
  assertStringIncludes(late.message, "is behind");
  // The old source itself, with what it had and with what it goes on to publish.
  for (const name of ["r2", "r3"]) {
    if (name === "r3") await publish(origin, name);
    const old = await assertRejects(() => puller(rome.node, [origin]).pull(), VolcastError);
    assertEquals(old.kind, "diverged", old.message);
    assertStringIncludes(old.message, "in epoch 1, and this node's, in epoch 2 at 't2'");
    assertStringIncludes(old.hint, "source from before a takeover");
  }
  // With both among its parents it goes on with the one that is right.
  await publish(paris, "t3");
  assertEquals((await puller(rome.node, [origin, paris]).pull()).kind, "increment");
  assertEquals(read(rome.node.volume), "t3");
  assert(rome.node.volume.current.cp > current.cp);

  // A site that followed the old source is told, and is not given a full image over what it has.
  const lyon = await world.site("lyon", origin);
  assertEquals(read(lyon.node.volume), "r3");
  const error = await assertRejects(() => puller(lyon.node, [paris]).pull(), VolcastError);
  assertEquals(error.kind, "diverged", error.message);
  assertStringIncludes(error.hint, "volcast resync");
  assertEquals(read(lyon.node.volume), "r3");
  const both = await assertRejects(() => puller(lyon.node, [paris, rome]).pull(), VolcastError);
  assertEquals([both.kind, both.hint], ["diverged", error.hint]);

  // Also where no number of a consistency point tells the parent: the site compares by itself.
  const { volume } = origin.node;
  await volume.exclusive(async (writer) => {
    writer.fs.create(INO.root, "one more", { type: "file" });
    await writer.checkpoint();
  });
  await publish(origin, "r4");
  await puller(lyon.node, [origin]).pull();
  const cps = new Set(paris.node.volume.snapshots().map(({ cp }) => cp));
  assert(!cps.has(lyon.node.volume.current.cp), "the parent would see it by itself");
  const apart = await assertRejects(() => puller(lyon.node, [paris]).pull(), VolcastError);
  assertEquals(apart.kind, "diverged", apart.message);
  assertStringIncludes(
    apart.message,
    "in epoch 2, and this node's, in epoch 1 at 'r4', went apart",
  );
  assertStringIncludes(apart.hint, `volcast resync VOLUME --parent ${paris.server.url}`);

  // Two takeovers of one snapshot are two lines, though their epochs have one number.
  await oslo.node.promote();
  const split = await assertRejects(() => puller(rome.node, [oslo]).pull(), VolcastError);
  assertEquals(split.kind, "diverged", split.message);
});

Deno.test("a site that was away long takes a full image of its own line, takeover or not", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const rome = await world.site("rome", origin);
  await origin.node.forget("rome");
  await publish(origin, "r2");
  const { id } = origin.node.volume.resolve("r1");
  await origin.node.volume.exclusive((writer) => writer.deleteSnapshot(id));
  await publish(origin, "r3");
  const paris = await world.site("paris", origin);
  await paris.node.promote();
  await publish(paris, "t1");
  // r1 is before the takeover: it is late, not apart.
  assertEquals((await puller(rome.node, [paris]).pull()).kind, "full");
  assertEquals(read(rome.node.volume), "t1");
});

Deno.test("planResync names what goes, and going back makes increments possible again", async () => {
  await using world = new World();
  const origin = await world.origin();
  for (const name of ["r1", "r2"]) await publish(origin, name);
  const paris = await world.site("paris", origin);
  await publish(origin, "r3");
  await origin.node.volume.exclusive(async (writer) => {
    writer.fs.create(INO.root, "unpublished", { type: "file" });
    await writer.checkpoint();
  });
  await paris.node.promote();
  await publish(paris, "t1");
  const { volumeId, ids } = await peerOf(paris).snapshots();
  const { volume } = origin.node;
  assertEquals(volumeId, volume.volumeId);
  const plan = planResync(volume, ids);
  assertEquals(plan.common?.name, "r2");
  assertEquals(plan.snapshots.map(({ name }) => name), ["r1", "r3"]);
  assertEquals(plan.changes.map(({ kind, path }) => `${kind} ${path}`), [
    "changed /file",
    "created /unpublished",
  ]);
  await volume.goBack(plan.common!);
  const old = new Node({ name: "old", path: origin.node.path, volume });
  assertEquals((await puller(old, [paris]).pull()).kind, "increment");
  assertEquals([read(volume), volume.root.epoch], ["t1", 2]);
  // Again there is nothing to do, and nothing to lose.
  const done = planResync(volume, (await peerOf(paris).snapshots()).ids);
  assertEquals([done.goesBack, done.changes, done.common?.name], [false, [], "t1"]);
});

Deno.test("a pull under way ends when its node is promoted", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = await world.site("paris", origin);
  await publish(origin, "r2");
  const real = peerOf(origin);
  let started = false;
  // A line on which nothing comes.
  const stuck: Peer = {
    name: real.name,
    plan: (request, signal) => real.plan(request, signal),
    bringPlane: (site, image, signal) => real.bringPlane(site, image, signal),
    confirm: (site, position) => real.confirm(site, position),
    events: (signal) => real.events(signal),
    open: (_plan, _offset, signal) => {
      started = true;
      return Promise.resolve(
        new ReadableStream<Uint8Array>({
          start(controller): void {
            signal!.addEventListener("abort", () => controller.error(signal!.reason));
          },
        }),
      );
    },
  };
  const pulling = new Puller(paris.node, { ...QUICK, parents: [stuck] }).pull();
  const ended = assertRejects(() => pulling, VolcastError, "being promoted");
  await until("it started", () => started);
  await paris.node.promote();
  await ended;
  assertEquals([paris.node.volume.role, read(paris.node.volume)], ["origin", "r1"]);
  assertEquals([paris.node.upstream, paris.node.isReady], [undefined, true]);
});

Deno.test("a follower asks for what was announced while it could not hear its parent", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = await world.site("paris", origin);
  const real = peerOf(origin);
  let connect = () => {};
  const connected = new Promise<void>((resolve) => connect = resolve);
  let plans = 0;
  // A parent that can be asked, and heard only later: as after a restart.
  const parent: Peer = {
    name: real.name,
    plan: (request, signal) => real.plan(request, signal).finally(() => plans++),
    bringPlane: (site, image, signal) => real.bringPlane(site, image, signal),
    open: (plan, offset, signal) => real.open(plan, offset, signal),
    confirm: (site, position, signal) => real.confirm(site, position, signal),
    async *events(signal) {
      await connected;
      yield* real.events(signal);
    },
  };
  const ending = new AbortController();
  const following = follow(
    paris.node,
    new Puller(paris.node, { ...QUICK, parents: [parent] }),
    { everyMs: 3_600_000, parents: [parent], log: () => {} },
    ending.signal,
  );
  await until("a plan", () => plans === 1);
  await publish(origin, "r2");
  connect();
  await until("r2 at paris", () => paris.node.volume.current.name === "r2");
  ending.abort();
  await following;
});

Deno.test("a replica with local writes takes them over HTTP, and sites get what was applied", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = await world.site("paris", origin, LOCAL);
  const rome = await world.site("rome", paris);

  // Two at once share what can be shared; each is durable when it is answered.
  const imports = await Promise.all(
    ["one", "two"].map((name) => send(paris, "/import", tar(name, `${name} here`))),
  );
  for (const response of imports) assertEquals(response.status, 200, await response.text());
  const change = await send(paris, "/import", tar("file", "changed here"));
  assertEquals(change.status, 200, await change.text());
  const refused = await send(paris, "/publish?as=mine", tar("file", "x"));
  const problem = await refused.json();
  assertEquals([refused.status, problem.kind], [409, "read-only"]);
  assertStringIncludes(problem.hint, "--pointer local");
  const more = await send(paris, "/import", tar("more", "more"));
  assertEquals(more.status, 200, await more.text());
  assertEquals(await text(paris, "/files/one?at=active"), "one here", "nothing was removed");
  const published = await send(paris, "/publish?as=mine&pointer=local", tar("file", "mine"));
  assertEquals(published.status, 201, await published.text());
  const later = await send(paris, "/import", tar("later", "later"));
  assertEquals(later.status, 200, await later.text());

  const copy = `${world.directory}/copy.vol`;
  Deno.copyFileSync(paris.node.path, copy);
  const found = openVolumeFile(copy);
  assertEquals([read(found, "active"), read(found, "mine"), read(found)], ["mine", "mine", "r1"]);
  assertEquals(fsck(found).findings, []);
  await found.close();

  for (const at of ["", "?at=master", "?at=r1"]) {
    assertEquals(await text(paris, `/files/file${at}`), "r1");
  }
  for (const at of ["active", "mine", "local"]) {
    assertEquals(await text(paris, `/files/file?at=${at}`), "mine");
  }
  assertEquals((await json(paris, "/snapshots")).snapshots.map((one: Snapshot) => one.name), [
    "r1",
  ]);
  assertEquals((await json(paris, "/snapshots")).local.map((one: Snapshot) => one.name), ["mine"]);
  const status = await json(paris, "/status");
  assertEquals([status.volume.role, status.current.name], ["replica", "r1"]);
  assertEquals(status.localChanges, { files: 2, snapshots: ["mine"] });
  const lines = (await text(paris, "/diff?from=master&to=active")).trimEnd().split("\n");
  assertEquals(lines.map((line) => JSON.parse(line)), [
    { kind: "changed", path: "/file", type: "file" },
    { kind: "created", path: "/later", type: "file" },
  ]);

  // The site below knows nothing of it.
  assertEquals((await puller(rome.node, [paris]).pull()).kind, "current");
  for (const to of ["master", "active"]) {
    const head = await fetch(`${paris.server.url}/replicate?to=${to}`, { method: "HEAD" });
    assertEquals(head.headers.get("volcast-top-name"), "r1");
    await head.body?.cancel();
  }
  const asked = await fetch(`${paris.server.url}/replicate?to=mine`);
  assertEquals([asked.status, (await asked.json()).kind], [409, "diverged"]);

  // The next increment flushes, and says so.
  await publish(origin, "r2");
  const log: string[] = [];
  const ending = new AbortController();
  const events: NodeEvent[] = [];
  paris.node.events.subscribe((event) => events.push(event));
  const following = follow(paris.node, puller(paris.node, [origin], LOCAL), {
    everyMs: 50,
    parents: [peerOf(origin)],
    log: (line) => log.push(line),
  }, ending.signal);
  await until("r2 at paris", () => paris.node.volume.current.name === "r2");
  ending.abort();
  await following;
  assertEquals(events.filter(({ type }) => type === "flush"), [
    { type: "flush", files: 2, snapshots: ["mine"] },
  ]);
  assertStringIncludes(log[0], "flushed: 2 changed files, with the snapshots mine");
  assertEquals(await text(paris, "/files/file?at=active"), "r2");
  assertEquals((await json(paris, "/status")).localChanges, null);
  const increment = await puller(rome.node, [paris]).pull();
  assertEquals([increment.kind, read(rome.node.volume)], ["increment", "r2"]);
});

Deno.test("a full image that replaces a replica says which local changes went with it", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = await world.site("paris", origin, LOCAL);
  const response = await send(paris, "/import", tar("here", "here"));
  assertEquals(response.status, 200, await response.text());
  await origin.node.forget("paris");
  await publish(origin, "r2");
  const { id } = origin.node.volume.resolve("r1");
  await origin.node.volume.exclusive((writer) => writer.deleteSnapshot(id));
  const events: NodeEvent[] = [];
  paris.node.events.subscribe((event) => events.push(event));
  assertEquals((await puller(paris.node, [origin], LOCAL).pull()).kind, "full");
  assertEquals(events.filter(({ type }) => type === "flush"), [
    { type: "flush", files: 1, snapshots: [] },
  ]);
});

Deno.test("the volcast-epoch header is read as it was written, and what is none is none", () => {
  const takeovers = [{ cp: 3, mark: "0123456789abcdef" }, { cp: 40, mark: "fedcba9876543210" }];
  for (const history of [{ epoch: 1, cp: 5, takeovers: [] }, { epoch: 3, cp: 41, takeovers }]) {
    assertEquals(parseHistory(historyHeader(history)), history);
  }
  for (const wrong of ["", "1", "x; cp=1", "1; cp=1; takeovers=x", "1; cp=99999999999999999"]) {
    assertEquals(parseHistory(wrong), undefined, wrong);
  }
});

interface Snapshot {
  readonly name: string;
}
