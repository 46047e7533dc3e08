/**
 * A site whose parents say different things of `master`: which of them is late.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { PATIENCE, type Patience, VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { Access, createApp, HttpPeer, Traffic } from "../../src/http/mod.ts";
import { Node, Puller } from "../../src/replication/mod.ts";
import {
  createVolumeFile,
  exists,
  incomingPath,
  MASTER,
  movedAt,
  openIncoming,
  type Volume,
} from "../../src/volume/mod.ts";

/** Nodes that ask each other's applications, without sockets. */
class Family implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "volcast-moved-" });
  readonly #nodes = new Map<string, Node>();
  /** Who cannot be reached. */
  readonly down = new Set<string>();
  /** Who knows no snapshot but its own, and says so. */
  readonly forgetful = new Set<string>();

  async origin(): Promise<Volume> {
    const path = `${this.directory}/origin.vol`;
    const volume = await createVolumeFile(path, 16 * 2 ** 20);
    this.#nodes.set("origin", new Node({ name: "origin", path, volume }));
    return volume;
  }

  site(name: string): Node {
    const node = new Node({ name, path: `${this.directory}/${name}.vol` });
    this.#nodes.set(name, node);
    return node;
  }

  /** One pull of a site's from these parents. */
  async pull(site: Node, ...parents: string[]): Promise<string> {
    await this.puller(site, { attempts: 1 }, ...parents).pull();
    return site.volume.current.name;
  }

  puller(site: Node, how: Partial<Patience>, ...parents: string[]): Puller {
    const peers = parents.map((name) =>
      new HttpPeer(`http://${name}`, {
        token: "of-somebody",
        fetch: (input, init) => this.#fetch(String(input), init),
      })
    );
    const patience = { ...PATIENCE, firstMs: 1, ...how };
    return new Puller(site, { parents: peers, patience, drainMs: 0 });
  }

  async #fetch(url: string, init: RequestInit | undefined): Promise<Response> {
    const { hostname } = new URL(url);
    if (this.down.has(hostname)) throw new TypeError("connection refused");
    const app = createApp(this.#nodes.get(hostname)!, {
      access: new Access({ tokens: { admin: "of-somebody" }, loopback: false }),
      traffic: new Traffic(),
      version: "test",
      onShutdown: () => () => {},
    }, () => {});
    if (!this.forgetful.has(hostname)) return await app.fetch(new Request(url, init));
    const asked = new URL(url);
    asked.searchParams.delete("since");
    const response = await app.fetch(new Request(asked, init));
    const kind = response.headers.get("volcast-image");
    if (kind !== null) response.headers.set("volcast-image", `${kind}; because=unknown`);
    return response;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes.values()) await node.volumeIfAny?.close();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

async function publish(volume: Volume, name: string): Promise<void> {
  await volume.exclusive(async (writer) => {
    const ino = writer.fs.create(INO.root, name, { type: "file" });
    writer.fs.write(ino, 0, crypto.getRandomValues(new Uint8Array(20_000)));
    await writer.takeSnapshot(name, { pointers: [MASTER] });
  });
}

async function moveMaster(volume: Volume, to: string): Promise<void> {
  await volume.exclusive((writer) => writer.setPointer(MASTER, volume.resolve(to).id));
}

Deno.test("a site does not take what a late parent still calls master", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const [late, site] = [family.site("late"), family.site("site")];
  await publish(origin, "r1");
  await publish(origin, "r2");
  await family.pull(late, "origin");
  await family.pull(site, "origin");
  await moveMaster(origin, "r1");
  assertEquals(await family.pull(site, "origin", "late"), "r1");
  family.down.add("origin");
  // It has r1 as well, so it could lead on to r2; but that was before.
  const error = await assertRejects(() => family.pull(site, "origin", "late"), VolcastError);
  assert(error.message.includes("it is behind, at 'r2'"), error.message);
  assertEquals(site.volume.current.name, "r1");
  family.down.delete("origin");
  await family.pull(late, "origin");
  family.down.add("origin");
  assertEquals(await family.pull(site, "origin", "late"), "r1");
  family.down.delete("origin");
  // Moved once more to what late has had before: that is later now.
  await moveMaster(origin, "r2");
  assertEquals(await family.pull(late, "origin"), "r2");
  assertEquals(await family.pull(site, "late"), "r2");
});

Deno.test("a site goes back with a parent that never had its release", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const [parent, site] = [family.site("parent"), family.site("site")];
  await publish(origin, "r1");
  await family.pull(parent, "origin");
  await publish(origin, "r2");
  await family.pull(site, "origin");
  const error = await assertRejects(() => family.pull(site, "parent"), VolcastError);
  assert(error.message.includes("it is behind"), error.message);
  await moveMaster(origin, "r1");
  await family.pull(parent, "origin");
  assertEquals(await family.pull(site, "parent"), "r1");
  await publish(origin, "r3");
  await family.pull(parent, "origin");
  assertEquals(await family.pull(site, "parent"), "r3");
});

Deno.test("a parent that was not told when master was moved is not taken for the later one", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const [parent, site] = [family.site("parent"), family.site("site")];
  await publish(origin, "r1");
  await publish(origin, "r2");
  await family.pull(parent, "origin");
  await family.pull(site, "origin");
  await moveMaster(origin, "r1");
  await family.pull(site, "origin");
  // As after a resync, or an image that somebody applied.
  await parent.volume.updateLocal((state) => {
    delete state.moved;
  });
  const error = await assertRejects(() => family.pull(site, "parent"), VolcastError);
  assert(error.message.includes("it is behind, at 'r2'"), error.message);
  assertEquals(site.volume.current.name, "r1");
});

Deno.test("all of a release comes only when no parent has what is new in it, and none is silent for now", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const [lyon, site] = [family.site("lyon"), family.site("site")];
  await publish(origin, "r1");
  await family.pull(site, "origin");
  family.forgetful.add("lyon");
  const next = async (name: string) => {
    await publish(origin, name);
    await family.pull(lyon, "origin");
  };
  await next("r2");
  const pulled = async (pause: () => void) => {
    const patience = { attempts: 3, pause: () => Promise.resolve(pause()) };
    const { kind } = await family.puller(site, patience, "lyon", "origin").pull();
    return [kind, site.volume.current.name];
  };
  assertEquals(await pulled(() => {}), ["increment", "r2"]);
  await next("r3");
  family.down.add("origin");
  assertEquals(await pulled(() => family.down.delete("origin")), ["increment", "r3"]);
  // Who has it not, and is behind, is no reason to stay there.
  await next("r4");
  await moveMaster(origin, "r3");
  assertEquals(await pulled(() => {}), ["full", "r4"]);
  assertEquals([site.upstream?.parent, site.chain], ["http://lyon", ["lyon", "origin"]]);
  await moveMaster(origin, "r4");
  await next("r5");
  family.down.add("origin");
  assertEquals(await pulled(() => {}), ["full", "r5"]);
});

Deno.test("a site follows on where its parent was promoted, published nothing, and follows again", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const [parent, site] = [family.site("parent"), family.site("site")];
  await publish(origin, "r1");
  await publish(origin, "r2");
  await moveMaster(origin, "r1");
  await family.pull(parent, "origin");
  await parent.promote();
  assertEquals(movedAt(parent.volume), movedAt(origin), "it was moved before the takeover");
  await family.pull(site, "parent");
  await parent.volume.goBack(parent.volume.resolve("r1"));
  await publish(origin, "r3");
  assertEquals(await family.pull(parent, "origin"), "r3");
  assertEquals(await family.pull(site, "parent"), "r3");
});

Deno.test("a move that a crash prevented counts for nothing", async () => {
  await using family = new Family();
  const origin = await family.origin();
  await publish(origin, "r1");
  await publish(origin, "r2");
  const before = movedAt(origin)!;
  const r1 = origin.resolve("r1").id;
  // The note alone, as it is found when the consistency point was not made.
  await origin.updateLocal((state) => {
    state.movedTo = { [r1]: { epoch: 1, cp: origin.superblock.cp + 1 } };
  });
  assertEquals(movedAt(origin), before);
  await publish(origin, "r3");
  assertEquals(movedAt(origin)?.snapshot, origin.resolve("r3").id);
  await moveMaster(origin, "r1");
  assertEquals(movedAt(origin)?.cp, origin.superblock.cp);
  assertEquals(movedAt(origin, "r1"), undefined, "a snapshot is no pointer");
});

Deno.test("a full image that was left half filled goes with the next increment", async () => {
  await using family = new Family();
  const origin = await family.origin();
  const site = family.site("site");
  await publish(origin, "r1");
  await family.pull(site, "origin");
  await publish(origin, "r2");
  const { zone: { capacity }, volumeId } = origin;
  const top = origin.resolve("r2").id;
  await openIncoming(site.path, { volumeId, capacity, top }).close();
  assert(exists(incomingPath(site.path)));
  await family.pull(site, "origin");
  assert(!exists(incomingPath(site.path)));
});
