/**
 * Every operation of a client meets every fault of a line, a proxy or a server. It ends with what was asked
 * for or with an error that says what happened; what is there is the old state or the new one; the same
 * without the fault then succeeds.
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { TreeEntry } from "../../src/archive/mod.ts";
import { HttpTarget } from "../../src/cli/http_target.ts";
import { openImage } from "../../src/cli/image_source.ts";
import { UnansweredError, VolcastError } from "../../src/core/mod.ts";
import { HttpPeer, HttpStandby } from "../../src/http/mod.ts";
import { applyImage, healFrom } from "../../src/image/mod.ts";
import { Mirror, Node, Puller, type PullResult } from "../../src/replication/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { fsck, Volume } from "../../src/volume/mod.ts";
import { Line, type Outcome } from "../helpers/fault_matrix.ts";
import { MirrorPair } from "../helpers/mirrors.ts";
import { TestPatience } from "../helpers/patience.ts";
import { test } from "../helpers/strict.ts";
import { type Served, served, serveNode } from "./served.ts";

/** A site behind a line to an origin. */
class Site implements AsyncDisposable {
  node: Node;
  readonly line: Line;
  readonly origin: Served;
  /** What was current before. */
  before: string | undefined;

  constructor(line: Line, origin: Served) {
    this.line = line;
    this.origin = origin;
    this.node = this.#begin();
  }

  #begin(): Node {
    return new Node({ name: "paris", path: `${this.line.directory}/paris.vol` });
  }

  /** Nothing is there any more. */
  async beginAnew(): Promise<void> {
    await this.node.volumeIfAny?.close();
    for await (const { name } of Deno.readDir(this.line.directory)) {
      Deno.removeSync(`${this.line.directory}/${name}`);
    }
    this.node = this.#begin();
    this.before = undefined;
  }

  /** A release that the site has not. */
  async publish(): Promise<void> {
    this.before = this.node.volumeIfAny?.current.id;
    await this.origin.publish();
  }

  pull(url = this.line.proxy.url, patience = this.line.patience): Promise<PullResult> {
    const parents = [new HttpPeer(url, { patience })];
    return new Puller(this.node, { parents, patience, drainMs: 0 }).pull();
  }

  /** The root here is the old or the new one, and complete. */
  check(expected: "increment" | "full", outcome: Outcome, fault?: string): void {
    const { result, error } = outcome;
    const { volumeIfAny: volume } = this.node;
    const { top } = this.origin;
    if (error === undefined) {
      const { kind } = result as PullResult;
      assert(kind === expected || kind === "current", `${kind} in the place of ${expected}`);
    }
    const current = volume?.current.id;
    assert([this.before, top].includes(current), `${current}: ${this.before} or ${top}`);
    if (volume !== undefined) assert(fsck(volume).clean, "clean");
    if (fault !== undefined) return;
    assertEquals(current, top);
    assertEquals(this.origin.volume.local.sites.paris.snapshot, top);
    assertEquals((result as PullResult).unconfirmed, undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node.volumeIfAny?.close();
  }
}

async function withSite(work: (site: Site) => Promise<void>): Promise<void> {
  await using origin = await served();
  await origin.publish();
  await using line = new Line(origin.url);
  await using site = new Site(line, origin);
  await work(site);
}

test("pulling an increment meets every fault, and stays incremental", async () => {
  await withSite(async (site) => {
    await site.pull(site.origin.url);
    await site.line.throughAll({
      name: "increment",
      prepare: () => site.publish(),
      run: () => site.pull(),
      check: (outcome, fault) => site.check("increment", outcome, fault),
    });
  });
});

test("a first pull meets every fault", async () => {
  await withSite(async (site) => {
    await site.line.throughAll({
      name: "full",
      // Of a release that it has not, a site without any cannot tell that it is an old one.
      without: ["old answer"],
      prepare: () => site.beginAnew(),
      run: () => site.pull(),
      check: (outcome, fault) => site.check("full", outcome, fault),
    });
  });
});

test("going on with a pull meets every fault, and what had come is kept", async () => {
  await withSite(async (site) => {
    await site.pull(site.origin.url);
    const { proxy } = site.line;
    const impatient = new TestPatience({ attempts: 1 });
    await site.line.throughAll({
      name: "resume",
      always: [["a bit turned", 2]],
      async prepare(): Promise<void> {
        await site.publish();
        proxy.begin((_, { path }) => path.startsWith("/images/") ? "short body" : undefined);
        await site.pull(proxy.url, impatient).then(
          () => assert(false, "half of it is not enough"),
          (error) => assertStringIncludes(error.message, "incomplete"),
        );
        assert(site.node.volume.local.transfer !== undefined, "half of it is noted");
      },
      run: () => site.pull(),
      check(outcome, fault): void {
        site.check("increment", outcome, fault);
        const isKept = site.node.volume.local.transfer !== undefined;
        if (outcome.error !== undefined) assert(isKept, `lost by ${outcome.error.message}`);
      },
    });
  });
});

/** A parent that has the origin's release, and lists older ones without having had them. */
async function lyonOf(
  origin: Served,
  directory: string,
): Promise<{ url: string; close(): Promise<void> }> {
  const path = `${directory}/lyon.vol`;
  const node = new Node({ name: "lyon", path });
  await new Puller(node, { parents: [new HttpPeer(origin.url)], drainMs: 0 }).pull();
  const server = serveNode(node);
  return {
    url: server.url,
    async close(): Promise<void> {
      await server.stop();
      await node.volume.close();
      Deno.removeSync(path);
    },
  };
}

test("bringing a plane meets every fault, and no full image comes instead", async () => {
  await withSite(async (site) => {
    const { origin, line } = site;
    let close = () => Promise.resolve();
    await line.throughAll({
      name: "plane",
      // Nobody will ever let it through: then a full image is better than none.
      without: ["405 page"],
      async prepare(): Promise<void> {
        await site.pull(origin.url);
        await close();
        await site.publish();
        const lyon = await lyonOf(origin, line.directory);
        line.proxy.upstream = lyon.url;
        close = () => lyon.close();
      },
      run: () => site.pull(),
      check(outcome, fault): void {
        // It confirms to lyon, not to the origin.
        site.check("increment", outcome, fault ?? "none");
        if (fault !== undefined) return;
        assertEquals(site.node.volume.current.id, origin.top);
        assert(line.proxy.seen.length <= 5, "nothing more than was needed");
      },
    });
    await close();
  });
});

test("a full image comes where nobody will ever let a plane through, and not before that is said", async () => {
  await withSite(async (site) => {
    const { origin, line } = site;
    await site.pull(origin.url);
    await site.publish();
    const lyon = await lyonOf(origin, line.directory);
    line.proxy.upstream = lyon.url;
    const isPlane = ({ path }: { path: string }) => path.endsWith("/plane");
    for (const fault of ["403 page", "404 page", "410 page", "login page", "504"] as const) {
      line.proxy.begin((_, request) => isPlane(request) ? fault : undefined);
      const error = await assertRejects(
        () => site.pull(),
        UnansweredError,
        "Cannot bring the plane",
      );
      assertStringIncludes(error.hint, "no full image is taken");
      assert(!line.proxy.seen.some(({ path }) => path.startsWith("/images/")), "nothing was taken");
    }
    line.proxy.begin((_, request) => isPlane(request) ? "405 page" : undefined);
    assertEquals((await site.pull()).kind, "full");
    await lyon.close();
  });
});

test("hearing a parent meets every fault", async () => {
  await withSite(async ({ line, origin }) => {
    const peer = new HttpPeer(line.proxy.url, { patience: line.patience });
    await line.throughAll({
      name: "events",
      async run(): Promise<string> {
        const stopping = new AbortController();
        for await (const { type } of peer.events(stopping.signal)) {
          if (type === "connected") origin.node.announceMaster();
          if (type !== "master") continue;
          return type;
        }
        throw new VolcastError("io", "Cannot hear: it has ended");
      },
      check: ({ result, error }) => assert(error !== undefined || result === "master"),
    });
  });
});

test("rounds of a mirror meet every fault", async () => {
  await using pair = await MirrorPair.make(64 * 2 ** 20);
  pair.startStandby();
  const server = serveNode(pair.standby);
  try {
    await using line = new Line(server.url);
    const { patience } = line;
    const mirror = new Mirror(pair.source, new HttpStandby(line.proxy.url, { patience }));
    let isFirst = true;
    await line.throughAll({
      name: "mirror",
      // It had nothing once.
      always: [["old answer", 0]],
      prepare: () => pair.change(["a"], 100_000),
      run: () => mirror.round(),
      async check({ result, error }, fault): Promise<void> {
        const { volumeIfAny: standby } = pair.standby;
        const kind = (result as { kind: string } | undefined)?.kind;
        assert(isFirst || kind !== "full", "no full image");
        if (fault === undefined) isFirst = false;
        assert(!["diverged", "not-found"].includes(error?.kind ?? ""), error?.message);
        assert(pair.volume.snapshots().length <= 3);
        if (fault === undefined) await pair.assertSame();
        else if (standby !== undefined) assert(fsck(standby).clean);
      },
    });
  } finally {
    await server.stop();
  }
});

test("fetching blocks for repair meets every fault, and writes nothing wrong", async () => {
  await withSite(async ({ line, origin }) => {
    const { volume } = origin;
    const top = volume.find("master")!;
    const peer = new HttpPeer(line.proxy.url, { patience: line.patience });
    await line.throughAll({
      name: "repair",
      run(): Promise<number[]> {
        const bad = { ...top.root, snapshot: top, use: "content", ino: 0 } as const;
        return healFrom(
          { heal: () => {}, syncHealed: () => Promise.resolve() },
          [bad],
          ({ id }, vbns) => peer.blocks(volume.volumeId, id, vbns),
        );
      },
      check({ result, error }, fault): void {
        if (fault === undefined) assertEquals(result, [top.root.vbn]);
        assert(error?.kind !== "not-found");
      },
    });
  });
});

test("an image from a URL meets every fault, and is applied whole or not at all", async () => {
  await withSite(async ({ line, origin }) => {
    const { patience, proxy } = line;
    const { top, volume: { volumeId, zone } } = origin;
    await line.throughAll({
      name: "image",
      async run(): Promise<string> {
        const volume = Volume.incoming(new MemoryStore(zone.capacity), volumeId);
        const image = await openImage([`${proxy.url}/images/${volumeId}/full/${top}`], {
          signal: new AbortController().signal,
          patience,
          note: () => {},
        });
        try {
          await applyImage(volume, image);
          assert(fsck(volume).clean);
          return volume.current.id;
        } finally {
          await image.close();
          await volume.close();
        }
      },
      check({ result, error }): void {
        assert(error !== undefined || result === top);
      },
    });
  });
});

function entry(path: string, content: string): TreeEntry {
  const bytes = new TextEncoder().encode(content);
  return {
    path,
    type: "file",
    permissions: 0o644,
    uid: 0,
    gid: 0,
    mtime: 1n,
    size: bytes.length,
    read: () => [bytes],
  };
}

async function withTarget(work: (target: HttpTarget, site: Site) => Promise<void>): Promise<void> {
  await withSite(async (site) => {
    const { proxy, patience } = site.line;
    await using target = new HttpTarget(proxy.url, { patience });
    await work(target, site);
  });
}

test("questions to a server meet every fault", async () => {
  await withTarget(async (target, { line, origin }) => {
    const names = async () => {
      const found: string[] = [];
      for await (const { name } of target.list("/")) found.push(name);
      return found;
    };
    await line.throughAll({
      name: "questions",
      // These take the place of a file's content.
      always: [["login page", 4], ["gzip", 4]],
      // They tell what they were told; what that is worth depends on the line.
      without: ["a bit turned", "bytes twice", "old answer"],
      run: async () => [
        (await target.status()).node,
        (await target.snapshots()).at(-1)?.id,
        await names(),
        (await new Response(await target.read("/a")).bytes()).length,
      ],
      check({ result, error }, fault): void {
        const isCut = fault === "length too small" || fault === "short body without a length";
        if (error === undefined && !isCut) {
          assertEquals(result, ["origin", origin.top, ["a", "b", "c"], 60_000]);
        }
        assert(error?.kind !== "not-found", error?.message);
      },
    });
  });
});

for (const what of ["publish", "snapshot", "import", "pointer"] as const) {
  test(`${what} by URL meets every fault, and is done once or known to be unknown`, async () => {
    await withTarget(async (target, { line, origin }) => {
      const { volume } = origin;
      let count = 0;
      const has = () => volume.snapshots().some(({ name }) => name === `s${count}`);
      const doers = {
        publish: () => target.publish([entry("x", `x${count}`)], { as: `s${count}` }),
        snapshot: () => target.createSnapshot(`s${count}`),
        import: () => target.importTree([entry("x", `x${count}`)]),
        pointer: () => target.setPointer("stable", origin.top),
      };
      await line.throughAll({
        name: what,
        without: ["a bit turned", "bytes twice"],
        async prepare(): Promise<void> {
          for (const { id } of volume.snapshots().slice(2)) {
            await volume.exclusive(async (writer) => {
              if (volume.find("master")?.id === id) {
                await writer.setPointer("master", volume.snapshots()[0].id);
              }
              await writer.deleteSnapshot(id);
            });
          }
          count++;
        },
        // Whoever was told to look first does.
        run: async () => has() ? "there" : await doers[what](),
        check({ error }, fault): void {
          const isLooked = what === "publish" || what === "snapshot";
          if (error === undefined && isLooked) assert(has(), "it is there");
          if (error === undefined || !isLooked || !has()) return;
          assert(error instanceof UnansweredError, `${fault}: ${error.message}`);
          assertStringIncludes(error.message, "Cannot tell whether it was done");
          assertStringIncludes(error.hint, "volcast snapshot list");
        },
      });
    });
  });
}
