/**
 * Limits from outside: a server that was meant ill with goes on, and nothing it says has a secret in it.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  currentOf,
  run,
  Server,
  TempDirectory,
  until,
  volcast,
  volcastCommand,
} from "./harness.ts";

/** A volume with one release of one file. */
async function makeVolume(directory: TempDirectory): Promise<{ volume: string; tree: string }> {
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  Deno.writeTextFileSync(`${tree}/a`, "hello");
  const volume = directory.file("site.vol");
  await volcast(["init", volume, "--size", "16MiB"]);
  await volcast(["publish", volume, tree, "--as", "june3"]);
  return { volume, tree };
}

Deno.test("a server that ran out of file descriptors serves again when it has some", async () => {
  using directory = new TempDirectory();
  const { volume } = await makeVolume(directory);
  // Its own start, since the limit is one of the process.
  const shell = 'ulimit -n 100 && exec "$@"';
  const child = new Deno.Command("sh", {
    args: ["-c", shell, "sh", ...volcastCommand(), "serve", volume, "--listen", "127.0.0.1:0"],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  const connections: Deno.Conn[] = [];
  const log = { text: "" };
  const reading = collect(child.stderr, log);
  const out = { text: "" };
  const printing = collect(child.stdout, out);
  try {
    await until("it serves", () => out.text.includes(" at http://"));
    const url = / at (http:\/\/\S+)/.exec(out.text)![1];
    const { hostname, port } = new URL(url);
    // The runtime stops listening; one says so at once, an older one when its connections have ended.
    await until("it accepts nothing", async () => {
      for (let i = 0; i < 20 && connections.length < 500; i++) {
        try {
          connections.push(await Deno.connect({ hostname, port: Number(port) }));
        } catch {
          return true;
        }
      }
      return log.text.includes("Cannot accept connections");
    });
    assert(connections.length < 500);
    for (const connection of connections.splice(0)) connection.close();
    await until("it answers", async () => {
      const response = await fetch(`${url}/files/a`).catch(() => undefined);
      return await response?.text() === "hello";
    });
    await until("it is told", () => log.text.includes("Cannot accept connections"));
  } finally {
    for (const connection of connections) connection.close();
    child.kill("SIGTERM");
    const { code } = await child.status;
    await Promise.all([reading, printing]);
    assertEquals(code, 0, log.text);
  }
});

Deno.test("what a server and its commands say has no secret of a URL in it", async () => {
  using directory = new TempDirectory();
  const { volume, tree } = await makeVolume(directory);
  const secret = "hunter2x7";
  const token = { env: { VOLCAST_TOKEN: secret } };
  await using origin = await Server.start([volume], token);
  const { host } = new URL(origin.url);
  const said: string[] = [];
  // Wherever a URL is taken: with a name, a password, a token in its query, or none at all.
  const paris = directory.file("paris.vol");
  const urls = [
    `http://user:${secret}@${host}`,
    `http://${host}/?token=${secret}`,
    `http://${host}/#${secret}`,
    `ftp://user:${secret}@${host}`,
    `user:${secret}@${host}`,
  ];
  const refused = [
    ...urls.map((url) => ["pull", paris, "--site", "paris", "--parent", url]),
    ["serve", paris, "--site", "paris", "--parent", urls[0]],
    ["serve", volume, "--mirror-to", `http://127.0.0.1:9,${urls[0]}`],
    ["serve", volume, "--scrub", "1MiB", "--repair-from", urls[1]],
  ];
  for (const args of refused) {
    const { code, stdout, stderr } = await run([...volcastCommand(), ...args]);
    assertEquals(code, 2, `${args.join(" ")}\n${stdout}${stderr}`);
    said.push(stdout, stderr);
  }
  const image = `http://127.0.0.1:9/a.img?X-Amz-Signature=${secret}`;
  for (const args of [["apply", paris, image], ["tape", "list", image], ["ls", urls[0]]]) {
    const { code, stdout, stderr } = await run([...volcastCommand(), ...args]);
    assert(code !== 0, args.join(" "));
    said.push(stdout, stderr);
  }
  assertStringIncludes(said.join("\n"), "X-Amz-Signature=***");
  // A site that is told where to go by its token, at a parent that is away now and then.
  await using site = await Server.start(
    [paris, "--site", "paris", "--parent", "http://127.0.0.1:9", "--parent", origin.url],
    token,
  );
  await volcast(["publish", origin.url, tree, "--as", "june5"], token);
  await until("june5 at the site", async () => await currentOf(site.url) === "june5");
  for (const server of [site, origin]) {
    for (const path of ["/status", "/metrics", "/nothing", `/files/?token=${secret}`, "/sites"]) {
      const headers = { authorization: `Bearer ${secret}` };
      const response = await fetch(server.url + path, { headers });
      said.push(JSON.stringify([...response.headers]), await response.text());
    }
  }
  said.push((await volcast(["status", site.url], token)).stdout);
  await Promise.all([site.stop(), origin.stop()]);
  said.push(site.log, origin.log);
  for (const text of said) assert(!text.includes(secret), text);
});

async function collect(stream: ReadableStream<Uint8Array>, into: { text: string }): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) into.text += decoder.decode(chunk, { stream: true });
}
