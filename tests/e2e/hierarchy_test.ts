/**
 * The main job from outside: origin, two sites in a chain, curl as the client.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { currentOf, getJson, has, run, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree, noise, randomOf } from "./trees.ts";

/** Tens of thousands of files by hand; a part of them in CI. */
const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const hasRsync = await has("rsync");
const hasCurl = await has("curl");

async function chain(directory: TempDirectory): Promise<[Server, Server, Server]> {
  const origin = await Server.start([directory.file("site.vol")]);
  const follow = ["--every", "1h"];
  const paris = await Server.start([
    directory.file("paris.vol"),
    "--site",
    "paris",
    "--parent",
    origin.url,
    ...follow,
  ]);
  const rome = await Server.start([
    directory.file("rome.vol"),
    "--site",
    "rome",
    "--parent",
    paris.url,
    ...follow,
  ]);
  return [origin, paris, rome];
}

async function arrived(name: string, ...servers: Server[]): Promise<void> {
  for (const server of servers) {
    await until(`${name} at ${server.url}`, async () => await currentOf(server.url) === name);
  }
}

Deno.test({
  name: "a real tree goes down a chain of three nodes and comes out the same, twice",
  ignore: !hasRsync,
  async fn() {
    using directory = new TempDirectory();
    const tree = directory.file("tree");
    const volume = directory.file("site.vol");
    await makeTree(tree, SOURCE);
    await volcast(["init", volume, "--size", "4GiB"]);
    await volcast(["publish", volume, tree, "--as", "june3"]);
    const [origin, paris, rome] = await chain(directory);
    await using _origin = origin;
    await using _paris = paris;
    await using _rome = rome;
    await arrived("june3", paris, rome);
    await volcast(["export", rome.url, directory.file("out3")]);
    await assertSameTree(tree, directory.file("out3"));

    changeTree(tree, 5);
    await volcast(["publish", origin.url, tree, "--as", "june5"]);
    await arrived("june5", paris, rome);
    await volcast(["export", rome.url, directory.file("out5")]);
    await assertSameTree(tree, directory.file("out5"));

    const plan = JSON.parse(
      (await volcast(["plan", origin.url, "june5 - june3", "--json"])).stdout,
    );
    const told = () => /increment, \d+ blocks, (\d+) bytes/.exec(paris.log);
    await until("the log says so", () => told() !== null);
    const moved = told()!;
    assert(
      Number(moved[1]) <= plan.blocks * 4096 * 1.01,
      `${moved[1]} bytes moved for ${plan.blocks} blocks`,
    );
    // The old release is still readable at the end of the chain.
    await volcast(["export", rome.url, directory.file("out3again"), "--at", "june3"]);
    await assertSameTree(directory.file("out3"), directory.file("out3again"));

    for (const server of [rome, paris, origin]) assertEquals(await server.stop(), 0);
    for (const name of ["site.vol", "paris.vol", "rome.vol"]) {
      const report = await volcast(["fsck", directory.file(name), "--json"]);
      assertEquals(JSON.parse(report.stdout).clean, true);
    }
    // Published again without a change: nothing is read, and little is written.
    const again = await volcast(["publish", volume, tree, "--as", "june6", "--json"]);
    const { report } = JSON.parse(again.stdout);
    assertEquals([report.created, report.changed, report.removed, report.bytesRead], [0, 0, 0, 0]);
  },
});

Deno.test("images and ETags are the same bytes at every node", async () => {
  using directory = new TempDirectory();
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  for (let i = 0; i < 50; i++) Deno.writeFileSync(`${tree}/${i}`, noise(i * 2000));
  await volcast(["init", directory.file("site.vol"), "--size", "64MiB"]);
  await volcast(["publish", directory.file("site.vol"), tree, "--as", "june3"]);
  const [origin, paris, rome] = await chain(directory);
  await using _origin = origin;
  await using _paris = paris;
  await using _rome = rome;
  await arrived("june3", paris, rome);
  for (let i = 0; i < 50; i += 7) Deno.writeFileSync(`${tree}/${i}`, noise(9000));
  await volcast(["publish", origin.url, tree, "--as", "june5"]);
  await arrived("june5", paris, rome);

  for (const since of ["", "?since=june3&to=june5"]) {
    const answers = await Promise.all([origin, paris, rome].map(async ({ url }) => {
      const response = await fetch(`${url}/replicate${since}`, {
        headers: { "accept-encoding": "identity" },
      });
      const location = response.headers.get("content-location");
      const etag = response.headers.get("etag");
      const bytes = new Uint8Array(await response.arrayBuffer());
      assertEquals(Number(response.headers.get("content-length")), bytes.length);
      const canonical = await fetch(`${url}${location}`, {
        headers: { "accept-encoding": "identity" },
      });
      assertEquals(canonical.headers.get("etag"), etag);
      assertStringIncludes(canonical.headers.get("cache-control") ?? "", "immutable");
      assertEquals(new Uint8Array(await canonical.arrayBuffer()), bytes);
      return { etag, location, bytes };
    }));
    assertEquals(answers[1], answers[0]);
    assertEquals(answers[2], answers[0]);
  }
  const tags = await Promise.all([origin, paris, rome].map(async ({ url }) => {
    const response = await fetch(`${url}/files/7`);
    await response.body?.cancel();
    return response.headers.get("etag");
  }));
  assertEquals(new Set(tags).size, 1);

  // What curl would store is what HEAD has announced, and a listing says the same as a file.
  const head = await fetch(`${origin.url}/replicate?since=june3&to=june5`, { method: "HEAD" });
  const plan = await getJson(`${rome.url}/plan?select=${encodeURIComponent("june5 - june3")}`);
  assertEquals(Number(head.headers.get("content-length")), plan.bytes);
  assertEquals(Number(head.headers.get("volcast-blocks")), plan.blocks);
});

Deno.test({
  name: "curl, cut at random offsets and gone on with at another node, brings a whole image",
  ignore: !hasCurl,
  async fn() {
    using directory = new TempDirectory();
    const tree = directory.file("tree");
    Deno.mkdirSync(tree);
    for (let i = 0; i < 40; i++) Deno.writeFileSync(`${tree}/${i}`, noise(100_000));
    await volcast(["init", directory.file("site.vol"), "--size", "64MiB"]);
    await volcast(["publish", directory.file("site.vol"), tree, "--as", "june3"]);
    const [origin, paris, rome] = await chain(directory);
    await using _origin = origin;
    await using _paris = paris;
    await using _rome = rome;
    await arrived("june3", paris, rome);
    const full = directory.file("june3.img");
    assertEquals((await run(["curl", "-sSf", "-o", full, `${paris.url}/replicate`])).code, 0);
    for (let i = 0; i < 40; i += 3) Deno.writeFileSync(`${tree}/${i}`, noise(100_000));
    await volcast(["publish", origin.url, tree, "--as", "june5"]);
    await arrived("june5", paris, rome);

    const random = randomOf(7);
    const urls = [origin, paris, rome].map(({ url }) => `${url}/replicate?since=june3&to=june5`);
    const whole = directory.file("whole.img");
    assertEquals((await run(["curl", "-sSf", "-o", whole, urls[0]])).code, 0);
    const size = Deno.statSync(whole).size;
    const image = directory.file("june5.img");
    for (let round = 0; round < 8; round++) {
      Deno.writeFileSync(image, Deno.readFileSync(whole).subarray(0, Math.floor(random() * size)));
      const url = urls[1 + round % 2];
      assertEquals((await run(["curl", "-sSf", "-C", "-", "-o", image, url])).code, 0);
      assertEquals(Deno.readFileSync(image), Deno.readFileSync(whole));
    }
    const copy = directory.file("copy.vol");
    await volcast(["apply", copy, full]);
    const before = await volcast(["ls", copy, "--long"]);
    for (let round = 0; round < 10; round++) {
      const bytes = Deno.readFileSync(image);
      bytes[Math.floor(random() * size)] ^= 1 << Math.floor(random() * 8);
      Deno.writeFileSync(directory.file("bad.img"), bytes);
      const refused = await volcast(["apply", copy, directory.file("bad.img")], { code: 4 });
      assertStringIncludes(refused.stderr, "Cannot");
      assertEquals((await volcast(["ls", copy, "--long"])).stdout, before.stdout);
    }
    await volcast(["apply", copy, image]);
    await volcast(["fsck", copy]);
    await volcast(["apply", copy, image], { code: 3 });
    await volcast(["export", copy, directory.file("out")]);
    for (let i = 0; i < 40; i++) {
      assertEquals(
        Deno.readFileSync(`${directory.file("out")}/${i}`),
        Deno.readFileSync(`${tree}/${i}`),
      );
    }
  },
});

Deno.test("readers see the old release whole until the new one is there, and no failure", async () => {
  using directory = new TempDirectory();
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  const write = (release: string) => {
    for (let i = 0; i < 20; i++) Deno.writeTextFileSync(`${tree}/${i}`, release.repeat(5000));
    Deno.writeFileSync(`${tree}/ballast`, noise(20 * 2 ** 20));
  };
  write("june3");
  await volcast(["init", directory.file("site.vol"), "--size", "512MiB"]);
  await volcast(["publish", directory.file("site.vol"), tree, "--as", "june3"]);
  await using origin = await Server.start([directory.file("site.vol")]);
  await using paris = await Server.start([
    directory.file("paris.vol"),
    ...["--site", "paris", "--parent", origin.url, "--every", "1h", "--www", "127.0.0.1:0"],
  ]);
  await arrived("june3", paris);

  let requests = 0;
  let flips = 0;
  let last = "june3";
  let reading = true;
  const readers = Array.from({ length: 4 }, async (_, reader) => {
    while (reading) {
      const base = reader % 2 === 0 ? `${paris.url}/files` : paris.wwwUrl!;
      const response = await fetch(`${base}/${requests % 20}`);
      const text = await response.text();
      assertEquals(response.status, 200, text);
      const release = text.slice(0, 5);
      assertEquals(text, release.repeat(5000));
      if (release > last) {
        last = release;
        flips++;
      }
      // What was seen to be current once never goes back.
      const published = response.headers.get("volcast-snapshot-name") ?? release;
      assert(published >= release || reader % 2 === 1);
      requests++;
    }
  });
  for (const release of ["june4", "june5", "june6"]) {
    write(release);
    await volcast(["publish", origin.url, tree, "--as", release]);
    await arrived(release, paris);
    const text = await (await fetch(`${paris.wwwUrl}/3`)).text();
    assertEquals(text.slice(0, 5), release);
    await until(`a reader saw ${release}`, () => last === release);
  }
  await until("50 requests", () => requests > 50);
  reading = false;
  await Promise.all(readers);
  assertEquals(flips, 3);
});
