/**
 * Nodes in one process, joined by peers that call each other without a network.
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { PATIENCE, VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import {
  Image,
  receivePlane,
  resolveBase,
  selectHistory,
  selectRanges,
} from "../../src/image/mod.ts";
import {
  Node,
  type Peer,
  type PeerEvent,
  type PeerPlan,
  type PeerRequest,
  Puller,
  selectImage,
  type SitePosition,
} from "../../src/replication/mod.ts";
import { createVolumeFile, fsck, type Volume } from "../../src/volume/mod.ts";

/** A parent in this process, whose line can be made bad. */
class LocalPeer implements Peer {
  readonly name: string;
  readonly node: Node;
  /** Bytes after which a stream breaks, once for each entry. */
  cuts: number[] = [];
  /** Positions of the bits that are turned, once for each entry. */
  flips: number[] = [];
  down = false;
  loseConfirmations = false;
  opened = 0;
  refusesPlanes = false;
  /** Planes that were brought. */
  planes = 0;

  constructor(node: Node) {
    this.node = node;
    this.name = node.name;
  }

  plan(request: PeerRequest): Promise<PeerPlan> {
    this.#checkUp();
    const { volume } = this.node;
    const { top, base } = selectImage(volume, request);
    const wanted = base === undefined && request.since !== undefined
      ? volume.lent.missing(request.since)
      : undefined;
    const image = request.snapshots === undefined
      ? new Image(volume, top, base)
      : Image.of(volume, selectHistory(volume, { snapshots: request.snapshots, top, base }));
    return Promise.resolve({
      volumeId: volume.volumeId,
      capacity: volume.zone.capacity,
      top: top.id,
      topName: top.name,
      ...(image.name.base === undefined ? {} : { base: image.name.base }),
      ...(image.query === undefined ? {} : { snapshots: image.query.value }),
      byteCount: image.byteCount,
      blockCount: image.header.blockCount,
      chain: [this.node.name, ...this.node.chain],
      ...(wanted === undefined ? {} : { wantsPlane: wanted.id }),
    });
  }

  async bringPlane(_site: string, image: Image): Promise<void> {
    this.#checkUp();
    if (this.refusesPlanes) throw new VolcastError("denied", "no planes are taken here");
    this.planes++;
    await receivePlane(this.node.volume, image.stream());
  }

  open(plan: PeerPlan, offset: number): Promise<ReadableStream<Uint8Array>> {
    this.#checkUp();
    this.opened++;
    const { volume } = this.node;
    const top = volume.resolve(plan.top);
    const since = plan.base === undefined ? undefined : resolveBase(volume, plan.base, top);
    const image = plan.snapshots === undefined
      ? new Image(volume, top, since?.base, { state: since?.state })
      : Image.of(volume, selectRanges(volume, { ranges: plan.snapshots, top, ...since }));
    const cut = this.cuts.shift() ?? Infinity;
    const flip = this.flips.shift() ?? -1;
    let position = offset;
    return Promise.resolve(
      image.stream({ from: offset }).pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(chunk, controller): void {
            const begin = position;
            position += chunk.length;
            if (flip >= begin && flip < position) chunk[flip - begin] ^= 1;
            if (begin - offset < cut) controller.enqueue(chunk.subarray(0, cut - (begin - offset)));
            if (position - offset >= cut) controller.error(new Error("the line is cut"));
          },
        }),
      ),
    );
  }

  async confirm(site: string, position: SitePosition): Promise<void> {
    if (this.loseConfirmations) throw new VolcastError("io", "the confirmation got lost");
    this.#checkUp();
    await this.node.confirm(site, position);
  }

  async *events(): AsyncGenerator<PeerEvent> {}

  #checkUp(): void {
    if (this.down) throw new VolcastError("io", `Cannot reach ${this.name}: it is down`);
  }
}

class World implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "volcast-chain-" });
  readonly nodes: Node[] = [];

  async origin(byteCount = 32 * 2 ** 20): Promise<Node> {
    const path = `${this.directory}/origin.vol`;
    const volume = await createVolumeFile(path, byteCount);
    return this.#add(new Node({ name: "origin", path, volume }));
  }

  site(name: string): Node {
    return this.#add(new Node({ name, path: `${this.directory}/${name}.vol` }));
  }

  #add(node: Node): Node {
    this.nodes.push(node);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) await node.volumeIfAny?.close();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

async function publish(node: Node, name: string, byteCount = 100_000): Promise<void> {
  await node.volume.exclusive(async (writer) => {
    const ino = writer.fs.lookup(INO.root, "file") ??
      writer.fs.create(INO.root, "file", { type: "file" });
    const content = new Uint8Array(byteCount);
    for (let at = 0; at < byteCount; at += 65536) {
      crypto.getRandomValues(content.subarray(at, at + 65536));
    }
    content.set(new TextEncoder().encode(name.padEnd(8)));
    writer.fs.truncate(ino, 0);
    writer.fs.write(ino, 0, content);
    await writer.takeSnapshot(name, { pointers: ["master"] });
  });
}

function read(volume: Volume, at = "master"): string {
  const view = volume.view(at);
  try {
    const bytes = new Uint8Array(8);
    view.fs.read(view.fs.resolve("file"), 0, bytes);
    return new TextDecoder().decode(bytes).trim();
  } finally {
    view.release();
  }
}

const quick = { patience: { ...PATIENCE, attempts: 3, firstMs: 1 }, drainMs: 0 };

Deno.test("Puller takes a full image first, then increments, down a chain", async () => {
  await using world = new World();
  const origin = await world.origin();
  const [paris, rome] = [world.site("paris"), world.site("rome")];
  const pullParis = new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] });
  const pullRome = new Puller(rome, { ...quick, parents: [new LocalPeer(paris)] });
  await assertRejects(() => pullParis.pull(), VolcastError, "nothing has been published");
  await assertRejects(() => pullRome.pull(), VolcastError, "has not come in yet");
  for (const [index, name] of ["r1", "r2", "r3"].entries()) {
    await publish(origin, name);
    for (const [node, puller] of [[paris, pullParis], [rome, pullRome]] as const) {
      const result = await puller.pull();
      assertEquals(result.kind, index === 0 ? "full" : "increment");
      assertEquals(read(node.volume), name);
      assertEquals((await puller.pull()).kind, "current");
      assert(fsck(node.volume).clean);
    }
  }
  assertEquals(rome.chain, ["paris", "origin"]);
  assertEquals(rome.volume.snapshots().map(({ name }) => name), ["r1", "r2", "r3"]);
  assertEquals(origin.volume.local.sites.paris.snapshot, paris.volume.current.id);
  // What rome stands on is told upward by paris with its next confirmation.
  await publish(origin, "r4");
  await pullParis.pull();
  assertEquals(origin.volume.local.sites.paris.needs, [rome.volume.current.id]);
  await assertRejects(
    () => origin.volume.exclusive((w) => w.deleteSnapshot(rome.volume.current.id)),
    VolcastError,
    "stands on it",
  );
});

Deno.test("Puller goes on after cuts, at the next parent where the first one fails", async () => {
  await using world = new World();
  const origin = await world.origin();
  const paris = world.site("paris");
  const rome = world.site("rome");
  await publish(origin, "r1");
  await new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] }).pull();
  await publish(origin, "r2", 4_000_000);
  await new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] }).pull();
  const [first, second] = [new LocalPeer(origin), new LocalPeer(paris)];
  first.cuts = [500_000, 900_000, 0, 0];
  const puller = new Puller(rome, { ...quick, parents: [first, second] });
  const result = await puller.pull();
  if (result.kind !== "full") throw new Error(result.kind);
  assert(second.opened > 0, "the second parent was asked for the rest");
  // Bytes taken twice are few: a cut costs the frame it was in.
  assert(result.bytes < result.byteCount + 1.2 * 2 ** 20 * 2);
  assertEquals(read(rome.volume), "r2");
  assert(fsck(rome.volume).clean);
});

Deno.test("Puller takes nothing that is wrong, and gets it right from another parent", async () => {
  await using world = new World();
  const origin = await world.origin();
  const paris = world.site("paris");
  const rome = world.site("rome");
  await publish(origin, "r1");
  await new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] }).pull();
  await new Puller(rome, { ...quick, parents: [new LocalPeer(origin)] }).pull();
  await publish(origin, "r2");
  await new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] }).pull();
  const bad = new LocalPeer(origin);
  bad.flips = Array.from({ length: 50 }, () => 50_000);
  await assertRejects(
    () => new Puller(rome, { ...quick, parents: [bad] }).pull(),
    VolcastError,
    "checksum",
  );
  assertEquals(read(rome.volume), "r1");
  assert(fsck(rome.volume).clean);
  const result = await new Puller(rome, { ...quick, parents: [bad, new LocalPeer(paris)] }).pull();
  assertEquals(result.kind, "increment");
  assertEquals(read(rome.volume), "r2");
});

Deno.test("Puller asks the next parent when one is down, and refuses loops", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = world.site("paris");
  const rome = world.site("rome");
  const dead = new LocalPeer(origin);
  dead.down = true;
  await assertRejects(() => new Puller(paris, { ...quick, parents: [dead] }).pull(), VolcastError);
  assertStringIncludes(paris.upstream?.error ?? "", "down");
  await new Puller(paris, { ...quick, parents: [dead, new LocalPeer(origin)] }).pull();
  await new Puller(rome, { ...quick, parents: [new LocalPeer(paris)] }).pull();
  await publish(origin, "r2");
  await assertRejects(
    () => new Puller(paris, { ...quick, parents: [new LocalPeer(rome)] }).pull(),
    VolcastError,
    "contains this node",
  );
  const twin = new Node({ name: "paris", path: `${world.directory}/twin.vol` });
  await assertRejects(
    () => new Puller(twin, { ...quick, parents: [new LocalPeer(paris)] }).pull(),
    VolcastError,
    "contains this node",
  );
});

Deno.test("Puller is not taken back by a parent that is behind, but follows a master moved back", async () => {
  await using world = new World();
  const origin = await world.origin();
  const paris = world.site("paris");
  const rome = world.site("rome");
  const fromOrigin = (node: Node) =>
    new Puller(node, { ...quick, parents: [new LocalPeer(origin)] });
  await publish(origin, "r1");
  await fromOrigin(paris).pull();
  await publish(origin, "r2");
  await fromOrigin(rome).pull();
  await assertRejects(
    () => new Puller(rome, { ...quick, parents: [new LocalPeer(paris)] }).pull(),
    VolcastError,
    "is behind",
  );
  assertEquals(read(rome.volume), "r2");
  await origin.volume.exclusive((w) => w.setPointer("master", origin.volume.resolve("r1").id));
  assertEquals((await fromOrigin(rome).pull()).kind, "increment");
  assertEquals(read(rome.volume), "r1");
  assert(fsck(rome.volume).clean);
  await publish(origin, "r3");
  assertEquals((await fromOrigin(rome).pull()).kind, "increment");
  assertEquals(read(rome.volume), "r3");
  assert(fsck(rome.volume).clean);
});

Deno.test("Puller serves the old file until a full image is complete, and repeats a lost confirmation", async () => {
  await using world = new World();
  const origin = await world.origin();
  const paris = world.site("paris");
  const peer = new LocalPeer(origin);
  const puller = new Puller(paris, { ...quick, parents: [peer] });
  await publish(origin, "r1");
  await puller.pull();
  const stands = paris.volume.current.id;
  await paris.confirm("rome", { snapshot: stands, needs: [] });
  // The base goes: paris is told a full image.
  await publish(origin, "r2");
  await origin.forget("paris");
  await origin.volume.exclusive((w) => w.deleteSnapshot(stands));
  await publish(origin, "r3", 2_000_000);
  const old = paris.volume;
  const view = old.view("master");
  peer.cuts = [300_000, 300_000, 300_000];
  peer.loseConfirmations = true;
  const result = await puller.pull();
  assertEquals(result.kind, "full");
  assert(paris.volume !== old);
  assertEquals(read(paris.volume), "r3");
  assert(paris.volume.local.sites.rome !== undefined, "the sites below stay known");
  assertEquals(origin.volume.local.sites.paris, undefined);
  view.release();
  peer.loseConfirmations = false;
  assertEquals((await puller.pull()).kind, "current");
  assertEquals(origin.volume.local.sites.paris.snapshot, paris.volume.current.id);
});

Deno.test("Puller refuses a parent of another volume, and says when it is not known there", async () => {
  await using world = new World();
  const origin = await world.origin();
  await publish(origin, "r1");
  const paris = world.site("paris");
  const peer = new LocalPeer(origin);
  const puller = new Puller(paris, { ...quick, parents: [peer] });
  await puller.pull();
  await origin.forget("paris");
  // The parent forgot: it is told again although there is nothing new.
  assertEquals((await puller.pull()).unconfirmed, undefined);
  assertEquals(origin.volume.local.sites.paris.snapshot, paris.volume.current.id);
  await publish(origin, "r2");
  peer.loseConfirmations = true;
  const result = await puller.pull();
  assertEquals(result.kind, "increment");
  assertStringIncludes(result.unconfirmed ?? "", "lost");

  const path = `${world.directory}/other.vol`;
  const other = new Node({ name: "other", path, volume: await createVolumeFile(path, 2 ** 25) });
  world.nodes.push(other);
  // Its consistency points have other numbers than those of the snapshots here.
  await other.volume.exclusive(async (writer) => {
    writer.fs.create(INO.root, "odd", { type: "file" });
    await writer.checkpoint();
  });
  for (const name of ["x1", "x2", "x3", "x4", "x5"]) await publish(other, name);
  const error = await assertRejects(
    () => new Puller(paris, { ...quick, parents: [new LocalPeer(other)] }).pull(),
    VolcastError,
    "this is a replica of",
  );
  assertEquals(error.kind, "diverged");
  assertEquals(read(paris.volume), "r2");
});

Deno.test("Puller with all snapshots keeps the history, through cuts and across parents", async () => {
  await using world = new World();
  const origin = await world.origin();
  for (const name of ["june1", "june2", "june3"]) await publish(origin, name);
  const paris = world.site("paris");
  const [near, far] = [new LocalPeer(origin), new LocalPeer(paris)];
  const keeping = (node: Node, parents: LocalPeer[]) =>
    new Puller(node, { parents, snapshots: "all", ...quick });
  const first = await keeping(paris, [near]).pull();
  if (first.kind === "current") throw new Error("nothing came");
  assertEquals(first.along, ["june1", "june2"]);
  const namesOf = (node: Node) => node.volume.snapshots().map(({ name }) => name);
  assertEquals(namesOf(paris), ["june1", "june2", "june3"]);

  for (const name of ["june4", "june5", "june6"]) await publish(origin, name);
  near.cuts = [150_000, 100_000];
  const second = await keeping(paris, [near]).pull();
  if (second.kind === "current") throw new Error("nothing came");
  assertEquals([first.kind, second.kind], ["full", "increment"]);
  assertEquals(second.along, ["june4", "june5"]);
  assertEquals(near.opened, 4);
  for (const name of namesOf(paris)) assertEquals(read(paris.volume, name), name);
  assertEquals(namesOf(paris), namesOf(origin));
  assertEquals(fsck(paris.volume).findings, []);

  // Begun at paris, ended at the origin: the same bytes.
  const rome = world.site("rome");
  far.cuts = [200_000, 0, 0];
  const third = await keeping(rome, [far, near]).pull();
  assert(third.kind === "full");
  assertEquals(namesOf(rome), namesOf(origin));
  assertEquals(near.opened, 5);
  for (const name of namesOf(rome)) assertEquals(read(rome.volume, name), name);
  assertEquals(fsck(rome.volume).findings, []);

  // One that does not keep history gets the master alone.
  const oslo = world.site("oslo");
  await new Puller(oslo, { parents: [far], drainMs: 0 }).pull();
  assertEquals(namesOf(oslo), ["june6"]);
  // It has one snapshot to pass on, and asked for all it gives that.
  const bern = world.site("bern");
  await keeping(bern, [new LocalPeer(oslo)]).pull();
  assertEquals(namesOf(bern), ["june6"]);
});

Deno.test("Puller follows another pointer than master, forward and back", async () => {
  await using world = new World();
  const origin = await world.origin();
  const [paris, rome] = [world.site("paris"), world.site("rome")];
  const options = { ...quick, parents: [new LocalPeer(origin)] };
  const stable = new Puller(paris, { ...options, pointer: "stable" });
  const newest = new Puller(rome, options);
  await publish(origin, "r1");
  await assertRejects(() => stable.pull(), VolcastError, "'stable'");
  const move = (name: string) =>
    origin.volume.exclusive((writer) =>
      writer.setPointer("stable", origin.volume.resolve(name).id)
    );
  for (const [published, wanted] of [["r2", "r1"], ["r3", "r3"], ["r4", "r2"], ["r5", "r5"]]) {
    await publish(origin, published);
    await move(wanted);
    await stable.pull();
    await newest.pull();
    assertEquals([read(paris.volume), read(rome.volume)], [wanted, published]);
    assert(fsck(paris.volume).clean);
  }
});

/** A volume of 8 MiB in which a release takes `byteCount`, and the site's base is a shadow by now. */
async function behindAShadow(world: World, byteCount: number): Promise<[Node, Node, Puller]> {
  const origin = await world.origin(8 * 2 ** 20);
  const paris = world.site("paris");
  const puller = new Puller(paris, { ...quick, parents: [new LocalPeer(origin)] });
  await publish(origin, "r1", byteCount);
  await puller.pull();
  await origin.volume.exclusive(async (writer) => {
    // There is room for one of them at a time.
    writer.fs.remove(INO.root, "file");
    const empty = await writer.takeSnapshot("empty", { pointers: ["master"] });
    await writer.shadowSnapshot(origin.volume.resolve("r1").id);
    await writer.setPointer("master", empty.id);
  });
  // Blocks come around.
  for (let i = 0; i < 8; i++) {
    await publish(origin, `r${i + 2}`, byteCount);
    await origin.volume.exclusive(async (writer) => {
      const old = origin.volume.snapshots().filter(({ name }) => name !== `r${i + 2}`);
      for (const { id } of old) await writer.deleteSnapshot(id);
      if (i === 7) return;
      writer.fs.remove(INO.root, "file");
      await writer.takeSnapshot(`e${i}`, { pointers: ["master"] });
      await writer.deleteSnapshot(origin.volume.resolve(`r${i + 2}`).id);
    });
  }
  return [origin, paris, puller];
}

Deno.test("Puller takes an increment since a shadow, and a full image where there is no room to stage it", async () => {
  for (const [byteCount, kind] of [[2 * 2 ** 20, "increment"], [6 * 2 ** 20, "full"]] as const) {
    await using world = new World();
    const [origin, paris, puller] = await behindAShadow(world, byteCount);
    const view = paris.volume.view();
    const result = await puller.pull();
    view.release();
    assertEquals(result.kind, kind);
    assertEquals(read(paris.volume), "r9");
    assertEquals(paris.volume.current.id, origin.volume.resolve("master").id);
    assertEquals(paris.volume.superblock.remap, undefined);
    assert(fsck(paris.volume).clean);
    assertEquals((await puller.pull()).kind, "current");
  }
});

Deno.test("Puller changes to a relative that never had its snapshot, and stays incremental", async () => {
  await using world = new World();
  const origin = await world.origin();
  const [paris, rome, oslo, lyon] = ["paris", "rome", "oslo", "lyon"].map((name) =>
    world.site(name)
  );
  const pullFrom = (site: Node, parent: LocalPeer) =>
    new Puller(site, { ...quick, parents: [parent] }).pull();
  const atOrigin = new LocalPeer(origin);
  await publish(origin, "r1");
  await pullFrom(rome, atOrigin);
  await publish(origin, "r2", 150_000);
  await publish(origin, "r3", 50_000);
  await pullFrom(paris, atOrigin);
  assertEquals(paris.volume.snapshots().map(({ name }) => name), ["r3"]);
  // Rome stands on r1, which paris lists and has not: it brings the plane.
  const atParis = new LocalPeer(paris);
  const result = await pullFrom(rome, atParis);
  assertEquals([result.kind, atParis.planes, read(rome.volume)], ["increment", 1, "r3"]);
  assert(fsck(rome.volume).clean);
  assertEquals(paris.volume.local.sites.rome.snapshot, rome.volume.current.id);
  // Where planes are not taken it is a full image; where there is no volume yet, none is brought.
  await publish(origin, "r4");
  await pullFrom(oslo, atOrigin);
  const atOslo = new LocalPeer(oslo);
  atOslo.refusesPlanes = true;
  const full = await pullFrom(rome, atOslo);
  assertEquals([full.kind, read(rome.volume)], ["full", "r4"]);
  assertEquals((await pullFrom(lyon, atOslo)).kind, "full");
  assertEquals(atOslo.planes, 0);
  // Of a snapshot that nobody lists any more there is nothing to be made.
  await publish(origin, "r5");
  for (const site of ["rome", "paris"]) await origin.forget(site);
  await origin.volume.exclusive((w) => w.deleteSnapshot(origin.volume.resolve("r3").id));
  await origin.volume.checkpoint();
  await publish(origin, "r6");
  const late = world.site("late");
  await pullFrom(late, atOrigin);
  const atLate = new LocalPeer(late);
  assertEquals((await pullFrom(paris, atLate)).kind, "full");
  assertEquals(atLate.planes, 0);
});

Deno.test("Pullers follow a parent that goes back, down a chain, and forward again", async () => {
  await using world = new World();
  const origin = await world.origin();
  const [paris, rome, oslo] = ["paris", "rome", "oslo"].map((name) => world.site(name));
  const peers = new Map([origin, paris, rome].map((node) => [node, new LocalPeer(node)]));
  const chain = [[paris, origin], [rome, paris], [oslo, rome]] as const;
  const pullAll = async () => {
    const kinds: string[] = [];
    for (const [node, parent] of chain) {
      const puller = new Puller(node, { ...quick, parents: [peers.get(parent)!] });
      kinds.push((await puller.pull()).kind);
      assert(fsck(node.volume).clean);
    }
    return kinds;
  };
  const set = (name: string) =>
    origin.volume.exclusive(async (writer) => {
      await writer.setPointer("master", origin.volume.resolve(name).id);
    });
  for (const name of ["r1", "r2", "r3"]) {
    await publish(origin, name);
    await pullAll();
  }
  for (const [name, expected] of [["r2", "r2"], ["r1", "r1"], ["r3", "r3"], ["r1", "r1"]]) {
    await set(name);
    assertEquals(await pullAll(), ["increment", "increment", "increment"], name);
    for (const [node] of chain) assertEquals(read(node.volume), expected);
    assertEquals(await pullAll(), ["current", "current", "current"]);
  }
  // One that stayed two releases ahead.
  await set("r3");
  await pullAll();
  for (const name of ["r2", "r1"]) {
    await set(name);
    await new Puller(paris, { ...quick, parents: [peers.get(origin)!] }).pull();
  }
  assertEquals(await pullAll(), ["current", "increment", "increment"]);
  assertEquals(read(oslo.volume), "r1");
});
