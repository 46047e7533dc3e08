import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { HttpPeer, startServer, TlsIdentity } from "../../src/http/mod.ts";
import { Authority, subjectShownAt } from "../helpers/certificates.ts";
import { test } from "../helpers/strict.ts";
import { makeNode } from "./helpers.ts";

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "volcast-tls-" });
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

test("a server takes a new certificate without a restart, and answers under way go on", () =>
  inDirectory(async (directory) => {
    const authority = await Authority.make(directory);
    const [first, second] = [await authority.issue("first"), await authority.issue("second")];
    const log: string[] = [];
    const tls = new TlsIdentity(first, { log: (text) => log.push(text) });
    await using origin = await makeNode();
    const june3 = await origin.publish("june3", { a: new Uint8Array(3_000_000).fill(7) });
    const server = startServer(origin.node, {
      listen: { hostname: "127.0.0.1", port: 0 },
      www: { hostname: "127.0.0.1", port: 0 },
      tokens: {},
      tls,
      version: "test",
      log: (text) => log.push(text),
    });
    const believing = () =>
      Deno.createHttpClient({ caCerts: [Deno.readTextFileSync(authority.path)] });
    const [before, after] = [believing(), believing()];
    try {
      assert(/^https:/.test(server.url) && /^https:/.test(server.wwwUrl!), server.url);
      assertEquals(await subjectShownAt(server.url), "first");
      const credentials = { tokenFor: () => undefined, client: before };
      const plan = await new HttpPeer(server.url, { credentials }).plan({ site: "paris" });
      assertEquals(plan.top, june3);
      const slow = await fetch(`${server.url}/files/a`, { client: before });

      // A pair that does not fit changes nothing.
      await Deno.copyFile(second.cert, first.cert);
      server.reread();
      assertEquals(await subjectShownAt(server.url), "first");
      assert(log.some((text) => /the key is not that of the certificate/.test(text)), log.join());

      await Deno.copyFile(second.key, first.key);
      server.reread();
      for (const url of [server.url, server.wwwUrl!]) {
        while (await subjectShownAt(url) !== "second") await new Promise((r) => setTimeout(r, 5));
      }
      assertEquals((await slow.bytes()).length, 3_000_000);
      const fresh = await fetch(`${server.wwwUrl}/a`, { client: after });
      assertEquals((await fresh.bytes()).length, 3_000_000);
    } finally {
      await server.stop();
      before.close();
      after.close();
    }
  }));

test("a pair that does not fit, is none, or is not there is refused at the start", () =>
  inDirectory(async (directory) => {
    const authority = await Authority.make(directory);
    const [first, second] = [await authority.issue("first"), await authority.issue("second")];
    const open = (cert: string, key: string) => () =>
      new TlsIdentity({ cert, key }, { log: () => {} });
    assertThrows(open(first.cert, second.key), VolcastError, "not that of the certificate");
    assertThrows(open(first.key, first.key), VolcastError, "certificate");
    assertThrows(open(first.cert, first.cert), VolcastError, first.cert);
    assertThrows(open(`${directory}/none`, first.key), VolcastError, "there is no such file");
  }));
