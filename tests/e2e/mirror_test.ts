/**
 * Mirroring from outside: a source under load, a standby that is read all the time, a line that is cut,
 * and processes that are killed.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  getJson,
  has,
  run,
  Server,
  sleep,
  TempDirectory,
  until,
  volcast,
  volcastCommand,
} from "./harness.ts";
import { Proxy } from "./proxy.ts";
import { assertSameTree, changeTree, makeTree, noise, randomOf } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const MARKS = 12;
const hasRsync = await has("rsync");

interface MirrorJson {
  readonly standsOn: { readonly id: string } | null;
  readonly lagBlocks: number | null;
}

/** Files that all say of which round they are. */
function writeMarks(tree: string, round: number): void {
  for (let i = 0; i < MARKS; i++) {
    Deno.writeTextFileSync(`${tree}/marks/${i}`, `${round} `.repeat(900));
  }
}

function portOf(server: Server): number {
  return Number(new URL(server.url).port);
}

async function mirrorOf(source: Server): Promise<MirrorJson> {
  return ((await getJson(`${source.url}/status`)).mirrors as MirrorJson[])[0];
}

/** Reads the standby as long as it is up; every answer must be whole and of one round. */
class Readers {
  url: string;
  answers = 0;
  readonly rounds = new Set<string>();
  /** Whether the standby is expected to answer. */
  isUp = true;
  #reading = true;
  #failure: unknown;
  readonly #loops: Promise<void>[];

  constructor(url: string) {
    this.url = url;
    this.#loops = [
      this.#read((i) => `/files/marks/${i % MARKS}`),
      this.#read(() => "/archive?path=/marks"),
    ];
  }

  async #read(path: (turn: number) => string): Promise<void> {
    for (let turn = 0; this.#reading; turn++) {
      const wasUp = this.isUp;
      try {
        const response = await fetch(this.url + path(turn));
        const text = await response.text();
        assertEquals(response.status, 200, text.slice(0, 500));
        const rounds = new Set(text.match(/\b\d+ (?=\d+ \d+ )/g));
        assertEquals(rounds.size, 1, `a mixture of rounds: ${[...rounds]}`);
        this.answers++;
        this.rounds.add([...rounds][0]);
      } catch (error) {
        if (wasUp && this.isUp) this.#failure ??= error;
      }
      await sleep(wasUp ? 3 : 50);
    }
  }

  async end(): Promise<void> {
    this.#reading = false;
    await Promise.all(this.#loops);
    if (this.#failure !== undefined) throw this.#failure;
  }
}

Deno.test({
  name:
    `a mirror follows its source through load, cuts and kills, and is read meanwhile (seed ${SEED})`,
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const random = randomOf(SEED);
    const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
    Deno.mkdirSync(`${tree}/marks`, { recursive: true });
    await makeTree(`${tree}/docs`, SOURCE);
    writeMarks(tree, 0);
    await volcast(["init", volume, "--size", "4GiB"]);
    await volcast(["import", volume, tree]);
    const standbyArgs = [directory.file("standby.vol"), "--standby", "--site", "paris"];
    let standby = await Server.start(standbyArgs);
    const port = portOf(standby);
    await using proxy = new Proxy(port);
    const sourceArgs = [volume, "--mirror-to", proxy.url, "--mirror-every", "500ms"];
    let source = await Server.start(sourceArgs);
    // The first full image takes some cuts as well.
    proxy.cutEvery(() => 1_000_000 + random() * 50_000_000);
    let log = "";
    try {
      await until("the full image", async () => await currentId(standby) !== undefined);
      const readers = new Readers(standby.url);
      const publish = () => volcast(["import", source.url, tree, "--prune"]);
      for (let round = 1; round <= 6; round++) {
        changeTree(`${tree}/docs`, 100 + round);
        writeMarks(tree, round);
        proxy.cutEvery(() => random() * 2_000_000);
        await publish();
        if (round === 2) proxy.cut();
        if (round === 3) {
          await sleep(random() * 600);
          readers.isUp = false;
          await standby.kill();
          await sleep(100);
          standby = await Server.start(standbyArgs, { port });
          readers.isUp = true;
        }
        if (round === 4) {
          await sleep(random() * 600);
          await source.kill();
          log += source.log;
          source = await Server.start(sourceArgs);
        }
        await sleep(300);
      }
      // Cuts come by bytes, and where rounds ran together there were fewer of them.
      await until("three cuts", async () => {
        if (proxy.cuts >= 3) return true;
        writeMarks(tree, 6);
        changeTree(`${tree}/docs`, 200 + proxy.cuts);
        await publish();
        return false;
      });
      proxy.cutEvery(() => Infinity);
      const caughtUp = () =>
        until("all of it is at the standby", async () => {
          const mirror = await mirrorOf(source);
          return mirror.lagBlocks === 0 && mirror.standsOn?.id === await currentId(standby);
        });
      await caughtUp();
      // Rounds run together while the line is bad; these are one increment each.
      const ids = [await currentId(standby)];
      for (let round = 7; round <= 9; round++) {
        writeMarks(tree, round);
        await publish();
        await caughtUp();
        ids.push(await currentId(standby));
        await until(`round ${round} is read`, () => readers.rounds.has(`${round} `));
      }
      assertEquals(new Set(ids).size, ids.length, `${ids}`);
      await until("200 answers", () => readers.answers > 200);
      await readers.end();
      assert(readers.rounds.size >= 3, `saw the rounds ${[...readers.rounds]}`);

      await volcast(["export", standby.url, directory.file("out")]);
      await assertSameTree(tree, directory.file("out"));
      // By planes and to the byte: the whole image is the same stream at both ends.
      const id = await currentId(standby);
      const { volume: { id: volumeId } } = await getJson(`${source.url}/status`) as {
        volume: { id: string };
      };
      const digests = await Promise.all([source, standby].map(async ({ url }) => {
        const response = await fetch(`${url}/images/${volumeId}/full/${id}`);
        const bytes = await response.arrayBuffer();
        return [bytes.byteLength, new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))];
      }));
      assertEquals(digests[1], digests[0]);
      // The log of a round comes after its confirmation, so it may be on its way.
      const increments = () => [...(log + source.log).matchAll(/: increment,/g)].length;
      await until("the log has the last rounds", () => increments() >= 4);
      log += source.log;
      assertEquals([...log.matchAll(/: full image,/g)].length, 1, log);
      const { snapshots } = await getJson(`${source.url}/snapshots`) as { snapshots: unknown[] };
      assertEquals(snapshots.length, 1);
      for (const server of [source, standby]) assertEquals(await server.stop(), 0);
    } finally {
      await source.kill();
      await standby.kill();
    }
    for (const name of [volume, standbyArgs[0]]) {
      assertEquals(JSON.parse((await volcast(["fsck", name, "--json"])).stdout).clean, true);
    }
  },
});

async function currentId(server: Server): Promise<string | undefined> {
  const { current } = await getJson(`${server.url}/standby`) as { current?: { id: string } };
  return current?.id;
}

Deno.test({
  name: "volcast mirror: once, by the clock, killed in the middle, and told to send everything",
  ignore: !hasRsync,
  fn: mirrorFile,
});

async function mirrorFile(): Promise<void> {
  using directory = new TempDirectory();
  const [tree, volume] = [directory.file("tree"), directory.file("site.vol")];
  Deno.mkdirSync(tree);
  for (let i = 0; i < 40; i++) Deno.writeFileSync(`${tree}/${i}`, noise(500_000));
  await volcast(["init", volume, "--size", "256MiB"]);
  await volcast(["import", volume, tree]);
  await using standby = await Server.start([
    directory.file("standby.vol"),
    ...["--standby", "--site", "paris"],
  ]);
  const mirror = ["mirror", volume, "--to", standby.url];
  const full = JSON.parse((await volcast([...mirror, "--once", "--json"])).stdout);
  assertEquals([full.kind, full.name], ["full", `mirror.paris.${full.top.split("-")[0]}`]);
  const begin = performance.now();
  assertStringIncludes((await volcast([...mirror, "--once"], { code: 3 })).stdout, "Nothing new");
  const ms = performance.now() - begin;

  for (let i = 0; i < 40; i += 2) Deno.writeFileSync(`${tree}/${i}`, noise(900_000));
  await volcast(["import", volume, tree]);
  // Killed at some moment; whatever it had done, the next one goes on incrementally.
  for (const part of [0.8, 0.9, 1, 1.1]) {
    await run(["timeout", "-s", "KILL", String(ms * part / 1000), ...command(mirror)]);
  }
  const done = await run([...command([...mirror, "--once", "--json"])]);
  assert(done.code === 0 || done.code === 3, done.stderr);
  if (done.code === 0) assertEquals(JSON.parse(done.stdout).kind, "increment");
  const id = await currentId(standby);
  const list = JSON.parse((await volcast(["snapshot", "list", volume, "--json"])).stdout);
  assertEquals(list.snapshots.map((snapshot: { id: string }) => snapshot.id), [id]);

  // By the clock: others can change the volume between rounds.
  const [program, ...args] = command([...mirror, "--every", "100ms"]);
  const clock = new Deno.Command(program, { args, stdout: "null", stderr: "null" }).spawn();
  Deno.writeFileSync(`${tree}/new`, noise(100_000));
  await until(
    "the import gets its turn",
    async () => (await run(command(["import", volume, tree]))).code === 0,
  );
  await until("the new file is there", async () => {
    const response = await fetch(`${standby.url}/files/new`);
    await response.body?.cancel();
    return response.status === 200;
  });
  clock.kill("SIGTERM");
  assertEquals((await clock.status).code, 0);
  await volcast(["export", standby.url, directory.file("out")]);
  await assertSameTree(tree, directory.file("out"));

  // The source forgets what the standby stands on.
  const server = await Server.start([volume]);
  await fetch(`${server.url}/sites/paris`, { method: "DELETE" });
  await volcast(["snapshot", "delete", server.url, (await currentId(standby))!]);
  await server.stop();
  const lost = await volcast([...mirror, "--once"], { code: 1 });
  assertStringIncludes(lost.stderr, "does not have");
  assertStringIncludes(lost.stderr, "--full");
  const again = await volcast([...mirror, "--once", "--full"]);
  assertStringIncludes(again.stdout, "full image");
  assertEquals(await standby.stop(), 0);
  await volcast(["fsck", directory.file("standby.vol")]);
  const refused = await volcast([...mirror, "--once"], { code: 1 });
  assertStringIncludes(refused.stderr, "Cannot reach");
}

function command(args: readonly string[]): string[] {
  return [...volcastCommand(), ...args];
}
