/**
 * The scrub from outside: bits of a live replica's file are flipped under its readers. Nobody reads
 * anything wrong, every block comes back, and not much more than those travels.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { openVolumeFile } from "../../src/volume/mod.ts";
import { bitsOf } from "../helpers/replicas.ts";
import { currentOf, getJson, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { flipBitOf } from "./releases.ts";
import { assertSameTree, changeTree, makeTree, randomOf } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const FLIPS = Number(Deno.env.get("VOLCAST_FLIPS") ?? 60);

interface ScrubJson {
  readonly startedAt: string | null;
  readonly completedAt: string | null;
  readonly healedBlocks: number;
  readonly badBlocks: number;
}

Deno.test({
  name: `a live replica heals what rots under its readers (seed ${SEED}, ${FLIPS} flips)`,
  ignore: !(await has("rsync")),
  async fn(): Promise<void> {
    using directory = new TempDirectory();
    const random = randomOf(SEED);
    const [tree, volume, site] = ["tree", "site.vol", "paris.vol"].map((name) =>
      directory.file(name)
    );
    await makeTree(tree, SOURCE, { mostKiB: 24 });
    await volcast(["init", volume, "--size", "256MiB"]);
    await volcast(["publish", volume, tree, "--as", "r1"]);
    changeTree(tree, 2);
    await volcast(["publish", volume, tree, "--as", "r2"]);
    const { vbns, root } = await blocksOf(volume, "r2");
    await using origin = await Server.start([volume]);
    await using relay = new Relay(origin.url);
    const options = ["--site", "paris", "--parent", origin.url, "--repair-from", relay.url];
    const paris = await Server.start([site, ...options, "--scrub", "1GiB"]);
    await until("the first release", async () => await currentOf(paris.url) === "r2");
    const scrub = async () => (await getJson(`${paris.url}/status`)).scrub as ScrubJson;
    await until("a first pass", async () => (await scrub()).completedAt !== null);
    assertEquals((await scrub()).healedBlocks, 0);

    const readers = new Readers(paris.url, tree, random);
    const flipped = new Set([root]);
    while (flipped.size < Math.min(FLIPS, vbns.length)) {
      flipped.add(vbns[Math.floor(random() * vbns.length)]);
    }
    for (const vbn of flipped) flipBitOf(site, vbn * 4096 + Math.floor(random() * 4096));
    flipBitOf(site, 4096 * Math.floor(random() * 2) + 100);
    await fetch(`${paris.url}/scrub`, { method: "POST" }).then((answer) => answer.body?.cancel());
    await until("all healed", async () => (await scrub()).healedBlocks >= flipped.size);
    await until("nothing bad", async () => {
      const { badBlocks, startedAt } = await scrub();
      return badBlocks === 0 && startedAt === null;
    });
    await until("readers had some files", () => readers.good > 20);
    await readers.end();
    assertEquals(readers.wrong, []);
    assertEquals((await scrub()).healedBlocks, flipped.size);
    const metrics = await (await fetch(`${paris.url}/metrics`)).text();
    assert(metrics.includes(`volcast_scrub_healed_blocks_total ${flipped.size}\n`), metrics);

    // The blocks, and what frames them: no full copy.
    assert(relay.requests > 0 && relay.requests <= flipped.size * 2, `${relay.requests} requests`);
    const most = flipped.size * (4096 + 64) + relay.requests * 4096;
    assert(relay.bytes <= most, `${relay.bytes} bytes for ${flipped.size} blocks, most ${most}`);
    assertEquals(paris.log.match(/full image/g)?.length, 1, paris.log);
    console.log(
      `    ${flipped.size} blocks and a superblock rotted and were healed; ${relay.bytes} bytes fetched, ` +
        `${readers.good} files read right meanwhile, ${readers.refused} refused`,
    );
    assertEquals(await paris.stop(), 0);
    await volcast(["fsck", site]);
    const out = directory.file("out");
    await volcast(["export", site, out]);
    await assertSameTree(tree, out);
  },
});

/** VBNs under a snapshot's plane, and that of its root. */
async function blocksOf(path: string, ref: string): Promise<{ vbns: number[]; root: number }> {
  const volume = openVolumeFile(path);
  const snapshot = volume.resolve(ref);
  const vbns = [...bitsOf(volume, snapshot)];
  await volume.close();
  return { vbns, root: snapshot.root.vbn };
}

/** Passes requests on, and counts what comes back. */
class Relay implements AsyncDisposable {
  readonly url: string;
  requests = 0;
  bytes = 0;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(target: string) {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      async (ask) => {
        const { pathname, search } = new URL(ask.url);
        this.requests++;
        const answer = await fetch(`${target}${pathname}${search}`, { headers: ask.headers });
        const bytes = await answer.bytes();
        this.bytes += bytes.length;
        return new Response(bytes, { status: answer.status, headers: answer.headers });
      },
    );
    this.url = `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

/** Read random files until ended, and compare them with the tree. */
class Readers {
  good = 0;
  /** Answers that were errors, or cut. */
  refused = 0;
  readonly wrong: string[] = [];
  #isEnded = false;
  readonly #running: Promise<unknown>;

  constructor(url: string, tree: string, random: () => number) {
    const paths = [...filesOf(tree)];
    this.#running = Promise.all([1, 2].map(async () => {
      while (!this.#isEnded) {
        const path = paths[Math.floor(random() * paths.length)];
        await this.#read(
          `${url}/files/${path.split("/").map(encodeURIComponent).join("/")}`,
          `${tree}/${path}`,
        );
      }
    }));
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    await this.#running;
  }

  async #read(url: string, path: string): Promise<void> {
    const expected = Deno.readFileSync(path);
    try {
      const answer = await fetch(url, { headers: { "accept-encoding": "identity" } });
      const bytes = await answer.bytes();
      if (!answer.ok) this.refused++;
      else if (bytes.length === expected.length && bytes.every((byte, i) => byte === expected[i])) {
        this.good++;
      } else this.wrong.push(path);
    } catch {
      this.refused++;
    }
  }
}

function* filesOf(tree: string, prefix = ""): Generator<string> {
  for (const entry of Deno.readDirSync(`${tree}/${prefix}`)) {
    const path = `${prefix}${entry.name}`;
    if (entry.isDirectory) yield* filesOf(tree, `${path}/`);
    else if (entry.isFile) yield path;
  }
}
