/**
 * A server's life from outside: who may do what, and how it ends.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { getJson, Server, TempDirectory, volcast } from "./harness.ts";
import { noise } from "./trees.ts";

Deno.test("a server ends in order although a reader hangs", async () => {
  using directory = new TempDirectory();
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  Deno.writeFileSync(`${tree}/big`, noise(64 * 2 ** 20));
  const volume = directory.file("site.vol");
  await volcast(["init", volume, "--size", "256MiB"]);
  await volcast(["publish", volume, tree, "--as", "june3"]);
  await using server = await Server.start([volume]);
  const { hostname, port } = new URL(server.url);
  using hanging = await Deno.connect({ hostname, port: Number(port) });
  await hanging.write(new TextEncoder().encode("GET /files/big HTTP/1.1\r\nhost: x\r\n\r\n"));
  await hanging.read(new Uint8Array(1000));
  assertEquals(await server.stop(), 0);
  await volcast(["fsck", volume]);
});

Deno.test("tokens: what changes something needs one, and a site's own lets it confirm", async () => {
  using directory = new TempDirectory();
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  Deno.writeTextFileSync(`${tree}/a`, "a");
  const volume = directory.file("site.vol");
  await volcast(["init", volume, "--size", "16MiB"]);
  await volcast(["publish", volume, tree, "--as", "june3"]);
  const env = { VOLCAST_TOKEN: "root", VOLCAST_SITE_TOKENS: "paris=p" };
  await using server = await Server.start([volume], { env });
  const publish = ["publish", server.url, tree, "--as"];
  const denied = await volcast([...publish, "june5"], { code: 1 });
  assertStringIncludes(denied.stderr, "token");
  await volcast([...publish, "june5"], { env: { VOLCAST_TOKEN: "root" } });
  const pull = ["pull", directory.file("paris.vol"), "--site", "paris", "--parent", server.url];
  await volcast(pull, { env: { VOLCAST_TOKEN: "p" } });
  const sites = (await getJson(`${server.url}/sites`)).sites as { name: string }[];
  assertEquals(sites.map(({ name }) => name), ["paris"]);
  // Without a token the pull works, and says that the parent does not know.
  const rome = ["pull", directory.file("rome.vol"), "--site", "rome", "--parent", server.url];
  const unknown = await volcast(rome);
  assertStringIncludes(unknown.stderr, "does not know");
  assert(!(await getJson(`${server.url}/sites`)).sites?.toString().includes("rome"));
});
