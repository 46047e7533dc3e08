/**
 * Seals from outside: a site that believes the origin's key alone, behind a parent that is not to be
 * trusted: it changes blocks, shows old releases, and holds new ones back.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { sameChecksum } from "../helpers/forge_checksum.ts";
import { currentOf, has, Server, TempDirectory, until, volcast } from "./harness.ts";
import { assertSameTree, changeTree, makeTree } from "./trees.ts";

const SOURCE = Deno.env.get("VOLCAST_E2E_TREE") ?? "/usr/share/doc";
const SECRET = "the text that mallory will change";

Deno.test({
  name: "a site with a key takes what the origin sealed, and nothing else from whoever is between",
  ignore: !(await has("rsync")),
  fn: seals,
});

/** Changes a block of a volume's file that has a text in it, in a way that no checksum tells. */
function forge(path: string, text: string): number {
  using file = Deno.openSync(path, { read: true, write: true });
  const block = new Uint8Array(4096);
  const wanted = new TextEncoder().encode(text);
  let count = 0;
  for (let at = 0; readAt(file, at, block); at += 4096) {
    if (!wanted.every((byte, i) => block[i] === byte)) continue;
    file.seekSync(at, Deno.SeekMode.Start);
    file.writeSync(sameChecksum(block, new TextEncoder().encode("forged by mallory"), 0));
    count++;
  }
  return count;
}

function readAt(file: Deno.FsFile, at: number, block: Uint8Array): boolean {
  file.seekSync(at, Deno.SeekMode.Start);
  return file.readSync(block) === block.length;
}

async function statusOf(url: string): Promise<number> {
  const response = await fetch(url);
  await response.body?.cancel();
  return response.status;
}

async function seals(): Promise<void> {
  using directory = new TempDirectory();
  const [tree, volume, key] = ["tree", "site.vol", "site.key"].map((name) => directory.file(name));
  await makeTree(tree, SOURCE, { mostKiB: 24 });
  const secret = (release: string) =>
    Deno.writeTextFileSync(`${tree}/secret`, `${SECRET} ${release} `.repeat(400));
  secret("r1");
  await volcast(["init", volume, "--size", "512MiB"]);
  await volcast(["publish", volume, tree, "--as", "r1"]);
  assertStringIncludes((await volcast(["keygen", key])).stdout, "volcast-key-1:");
  assertEquals(Deno.statSync(key).mode! & 0o777, 0o600);
  assertMatch((await volcast(["keygen", key], { code: 1 })).stderr, /exists already/);

  const signing = [volume, "--sign", key];
  let origin = await Server.start(signing);
  const malloryArgs = [directory.file("mallory.vol"), "--site", "mallory"];
  let mallory = await Server.start([...malloryArgs, "--parent", origin.url, "--every", "1s"]);
  const at = (release: string, server: Server) =>
    until(`${release} is there`, async () => await currentOf(server.url) === release);
  await at("r1", mallory);
  const sitePath = directory.file("paris.vol");
  const follow = (...parents: Server[]) =>
    Server.start([
      ...[sitePath, "--site", "paris", "--every", "1s", "--trust", `${key}.pub`],
      ...parents.flatMap(({ url }) => ["--parent", url]),
    ]);
  // Forged before the site has anything: it stays without.
  assertEquals(forge(malloryArgs[0], SECRET), 1);
  let paris = await follow(mallory);
  await until("it is refused", () => paris.log.includes("its content is not what was sealed"));
  assertEquals(await statusOf(`${paris.url}/readyz`), 503);
  assertEquals(await paris.stop(), 0);
  paris = await follow(mallory, origin);
  await at("r1", paris);
  await until("it is ready", async () => await statusOf(`${paris.url}/readyz`) === 200);

  // The next release comes by way of mallory, who is honest about it; then is not.
  changeTree(tree, 2);
  secret("r2");
  await volcast(["publish", origin.url, tree, "--as", "r2"]);
  await Promise.all([at("r2", mallory), at("r2", paris)]);
  const text = await (await fetch(`${paris.url}/files/secret`)).text();
  assert(text.startsWith(`${SECRET} r2`), text.slice(0, 100));
  const out = directory.file("out");
  await volcast(["export", paris.url, out]);
  await assertSameTree(tree, out);
  const old = directory.file("old.img");
  await volcast(["image", mallory.url, "r2", "-o", old]);

  // One that is held back at an old release does not take the site back, nor keep it up to date.
  assertEquals(await mallory.stop(), 0);
  mallory = await Server.start(malloryArgs);
  secret("r3");
  await volcast(["publish", origin.url, tree, "--as", "r3"]);
  await at("r3", paris);
  assertEquals(await paris.stop(), 0);
  const pull = ["pull", sitePath, "--site", "paris", "--parent"];
  const back = await volcast([...pull, mallory.url, "--trust", `${key}.pub`], { code: 4 });
  assertMatch(back.stderr, /Cannot trust .* number \d+ was seen already: it is an older release/);

  // Another key, another pointer, none at all.
  await volcast(["keygen", directory.file("other.key")]);
  const other = await volcast(
    [...pull, origin.url, "--trust", `${directory.file("other.key")}.pub`],
    { code: 4 },
  );
  assertStringIncludes(other.stderr, "which is not trusted");
  const stable = ["--trust", `${key}.pub`, "--sealed-as", "stable"];
  const named = await volcast([...pull, origin.url, ...stable], { code: 4 });
  assertStringIncludes(named.stderr, "for the pointer 'master'");

  // What is saved can be verified at any time, and what was changed is told.
  const verify = ["verify", "--trust", `${key}.pub`];
  assertStringIncludes((await volcast([...verify, sitePath])).stdout, "'r3'");
  const seal = ["--seal", `${origin.url}/seals/master`];
  const [full, increment] = [directory.file("full.img"), directory.file("increment.img")];
  await volcast(["image", origin.url, "r3", "-o", full]);
  await volcast(["image", origin.url, "r3 - r2", "-o", increment]);
  await volcast([...verify, full, ...seal]);
  await volcast([...verify, increment, ...seal, "--on", sitePath]);
  assertMatch((await volcast([...verify, old, ...seal], { code: 4 })).stderr, /its seal is of/);
  assertEquals(forge(sitePath, `${SECRET} r3`), 1);
  assertMatch((await volcast([...verify, sitePath], { code: 4 })).stderr, /not what was sealed/);
  assertEquals(JSON.parse((await volcast(["fsck", sitePath, "--json"])).stdout).clean, true);

  // An origin that is cut off: what is here is served on, and is not called up to date.
  assertEquals(await origin.stop(), 0);
  origin = await Server.start([...signing, "--seal-for", "4s"]);
  const oslo = await Server.start([
    ...[directory.file("oslo.vol"), "--site", "oslo", "--parent", origin.url],
    ...["--every", "1s", "--trust", `${key}.pub`],
  ]);
  await at("r3", oslo);
  await until("a seal was renewed", async () => {
    const { seals } = await (await fetch(`${oslo.url}/status`)).json();
    return seals.master.sequence >= 6;
  });
  assertEquals(await origin.stop(), 0);
  await until("it has expired", async () => {
    const answer = await fetch(`${oslo.url}/readyz`);
    return (await answer.text()).includes("its seal expired");
  });
  assertEquals(await statusOf(`${oslo.url}/files/secret`), 200);
  for (const server of [oslo, mallory]) assertEquals(await server.stop(), 0);
}
