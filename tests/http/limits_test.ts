import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { PATIENCE, VolcastError } from "../../src/core/mod.ts";
import { HttpPeer, type Limits, Traffic } from "../../src/http/mod.ts";
import { clientOf, RateLimit } from "../../src/http/rate_limit.ts";
import { Node, Puller } from "../../src/replication/mod.ts";
import { until } from "../e2e/harness.ts";
import { RawConnection, rawHead } from "../helpers/raw_http.ts";
import { Random } from "../helpers/random.ts";
import { type Fixture, makeNode } from "./helpers.ts";
import { serveNode } from "./served.ts";

/** A real server of a node in memory. */
async function serving(
  limits: Partial<Limits>,
  use: (at: { url: string; www: string; origin: Fixture; traffic: Traffic }) => Promise<void>,
): Promise<void> {
  await using origin = await makeNode();
  await origin.publish("june3", { "index.html": "hello", "big.bin": noise(12 * 2 ** 20) });
  const traffic = new Traffic(limits);
  const listen = { hostname: "127.0.0.1", port: 0 };
  const server = serveNode(origin.node, {
    listen,
    www: listen,
    log: (text) => origin.log.push(text),
    traffic,
  });
  try {
    await use({ url: server.url, www: server.wwwUrl!, origin, traffic });
  } finally {
    await server.stop();
  }
}

function noise(byteCount: number): Uint8Array {
  const random = new Random(7);
  const words = new Uint32Array(byteCount / 4);
  for (let i = 0; i < words.length; i++) words[i] = random.word() | 1;
  return new Uint8Array(words.buffer);
}

/** What a refusal says. */
async function problem(response: Response): Promise<[status: number, limit: unknown]> {
  assertEquals(response.headers.get("content-type"), "application/problem+json");
  return [response.status, (await response.json()).limit];
}

/** How often a limit was met, as `/metrics` says. */
async function refusedBy(url: string, limit: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`volcast_refused_total\\{limit="${limit}"\\} (\\d+)`).exec(text)?.[1]);
}

const headOf = (path: string, headers: string) =>
  `GET ${path} HTTP/1.1\r\nhost: x\r\n${headers}\r\n`;
const statusOf = (head: string) => Number(head.split(" ")[1]);

Deno.test("the head of a request is bounded by the runtime, and more closely here", () =>
  serving({}, async ({ url, www, origin }) => {
    for (const at of [url, www]) {
      // What the README says of the runtime.
      const many = (count: number) =>
        headOf("/healthz", Array.from({ length: count }, (_, i) => `x${i}: 1\r\n`).join(""));
      assertEquals(statusOf(await rawHead(at, many(127))), at === url ? 200 : 404);
      assertEquals(statusOf(await rawHead(at, many(128))), 400);
      assertEquals(statusOf(await rawHead(at, headOf(`/${"a".repeat(66_000)}`, ""))), 400);
      const address = await rawHead(at, headOf(`/${"a".repeat(50_000)}`, ""));
      assertEquals(statusOf(address), 414);
      assertStringIncludes(address, "application/problem+json");
      const header = await rawHead(at, headOf("/", `x: ${"a".repeat(20_000)}\r\n`));
      assertEquals(statusOf(header), 431);
      assertEquals(statusOf(await rawHead(at, "GET / HTTP/1.1\r\nhost: a b/c\r\n\r\n")), 400);
      const twice = await rawHead(at, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
      assertEquals(statusOf(twice), 400);
    }
    assertEquals(await refusedBy(url, "address"), 2);
    assertEquals(await refusedBy(url, "headers"), 4);
    assertEquals(origin.log, []);
  }));

Deno.test("a body is refused by what it says it has, and by what it has", () =>
  serving({ bodyBytes: 100_000 }, async ({ url, origin }) => {
    // What is said beforehand is what the refusal names.
    const told = async (method: string, path: string, byteCount: number) => {
      const refused = await fetch(url + path, { method, body: new Uint8Array(byteCount) });
      assertStringIncludes(
        decodeURIComponent(refused.headers.get("volcast-problem-title")!),
        ` ${byteCount} `,
      );
      assertEquals(await problem(refused), [413, "body"]);
    };
    await told("POST", "/snapshots", 65_537);
    await told("POST", "/import", 100_001);
    await told("POST", "/publish?as=june5", 3_000_000);
    await told("PUT", "/sites/paris/plane", 1_200_000);
    // Chunked: nobody knows before.
    const chunked = (path: string, byteCount: number) =>
      fetch(url + path, { method: "POST", body: new Blob([new Uint8Array(byteCount)]).stream() });
    assertEquals(await problem(await chunked("/snapshots", 65_537)), [413, "body"]);
    assertEquals(await problem(await chunked("/import", 3_000_000)), [413, "body"]);
    assertEquals(await refusedBy(url, "body"), 6);
    // Where it fits, it is taken for what it is.
    const taken = await chunked("/import", 1024);
    assertEquals(taken.status, 200, await taken.text());
    assertEquals(origin.volume.snapshots().length, 1);
  }));

Deno.test("a body that does not come ends, and what it held is free again", () =>
  serving({ bodySilenceMs: 50 }, async ({ url, origin }) => {
    using silent = await RawConnection.to(url);
    const head = "POST /import HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 10000\r\n\r\n";
    await silent.send(head + "x".repeat(100));
    assertEquals(await silent.status(), 408);
    assertEquals(await refusedBy(url, "body-time"), 1);
    // Nobody can fill the log so; and the volume is not held any more.
    assertEquals(origin.log, []);
    assertEquals((await postName(url, "june4")).status, 201);
    assertEquals(origin.volume.snapshots().length, 2);
  }));

Deno.test("a body that comes byte by byte ends too", () =>
  serving({ jsonMs: 100 }, async ({ url }) => {
    using slow = await RawConnection.to(url);
    await slow.send("POST /snapshots HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 60000\r\n\r\n");
    let status: number | undefined;
    const answered = slow.status().then((value) => status = value);
    await until("the answer", async () => {
      await slow.send(" ").catch(() => {});
      return status !== undefined;
    });
    await answered;
    assertEquals(status, 408);
  }));

Deno.test("requests at once are bounded; how the server does can be asked nevertheless", () =>
  serving({ requests: 2 }, async ({ url, traffic }) => {
    using first = await RawConnection.to(url);
    using second = await RawConnection.to(url);
    for (const listener of [first, second]) {
      await listener.send(headOf("/events", ""));
      await listener.until((text) => text.includes(": volcast"));
    }
    const refused = await fetch(`${url}/snapshots`);
    const retryAfter = Number(refused.headers.get("retry-after"));
    assert(retryAfter >= 2 && retryAfter <= 6);
    assertEquals(await problem(refused), [503, "requests"]);
    assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
    assertEquals(await refusedBy(url, "requests"), 1);
    first[Symbol.dispose]();
    await until("room for a request", () => traffic.requests < 2);
    const answered = await fetch(`${url}/snapshots`);
    assertEquals(answered.status, 200);
    await answered.body?.cancel();
  }));

Deno.test("images at once are bounded, and a refused site comes back when it was told to", () =>
  serving({ transfers: 1, transferRetryS: [1, 1] }, async ({ url, traffic, origin }) => {
    const held = await RawConnection.to(url);
    await held.send(headOf("/replicate", ""));
    assertEquals(await held.status(), 200);
    const refused = await fetch(`${url}/replicate`);
    assertEquals(refused.headers.get("retry-after"), "1");
    assertEquals(await problem(refused), [503, "transfers"]);
    const plan = await fetch(`${url}/replicate`, { method: "HEAD" });
    assertEquals(plan.status, 200);
    // One attempt more than its backoff would last.
    const path = await Deno.makeTempDir({ prefix: "volcast-limits-" });
    const site = new Node({ name: "paris", path: `${path}/paris.vol` });
    try {
      const parents = [new HttpPeer(url)];
      const patience = { ...PATIENCE, firstMs: 1, attempts: 60 };
      const begin = performance.now();
      const pulled = new Puller(site, { parents, patience }).pull();
      await until("a refused pull", () => traffic.refused.get("transfers")! >= 2);
      held[Symbol.dispose]();
      assertEquals((await pulled).kind, "full");
      assert(performance.now() - begin >= 1000, "it waited as long as it was told");
      assertEquals(site.volume.current.id, origin.volume.find("master")!.id);
    } finally {
      held[Symbol.dispose]();
      await site.volumeIfAny?.close();
      await Deno.remove(path, { recursive: true });
    }
    await until("no transfer", () => traffic.transfers === 0);
    assertEquals(origin.volume.leases.size, 0);
  }));

Deno.test("a reader that takes nothing loses what it holds, though its connection stays", () =>
  serving({ readerMs: 100 }, async ({ url, www, origin, traffic }) => {
    using image = await RawConnection.to(url);
    using file = await RawConnection.to(www);
    await image.send(headOf("/replicate", ""));
    await file.send(headOf("/big.bin", ""));
    assertEquals([await image.status(), await file.status()], [200, 200]);
    await until(
      "both are let go",
      () => origin.volume.leases.size === 0 && traffic.transfers === 0,
    );
    assertEquals(await refusedBy(url, "reader"), 2);
    // When they read on, the connection ends: never other data.
    const text = await image.until(() => false);
    assert(text.length < 12 * 2 ** 20);
  }));

Deno.test("requests a second of one address are bounded where that is asked for", () =>
  serving({ clientRate: 1 }, async ({ url }) => {
    const answers = await Promise.all(Array.from({ length: 100 }, () => fetch(`${url}/healthz`)));
    const refused = answers.filter(({ status }) => status === 429);
    assert(refused.length > 0);
    assertEquals(refused[0].headers.get("retry-after"), "1");
    for (const answer of answers) await answer.body?.cancel();
  }));

Deno.test("RateLimit lets a rate pass and a burst, for each client", () => {
  let now = 0;
  const limit = new RateLimit(10, () => now);
  const passed = (address: string) => {
    let count = 0;
    while (limit.take(address) === 0) count++;
    return count;
  };
  assertEquals(passed("10.0.0.1"), 20);
  assertEquals(passed("10.0.0.2"), 20);
  assertEquals(limit.take("10.0.0.1"), 0.1);
  now = 500;
  assertEquals(passed("10.0.0.1"), 5);
  now = 60_000;
  assertEquals(passed("10.0.0.1"), 20);
});

Deno.test("clientOf takes a subscriber's addresses for one", () => {
  const network = "2001:db8:1:2::/64";
  for (const address of ["2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::%eth0"]) {
    assertEquals(clientOf(address), network);
  }
  assertEquals(clientOf("::1"), "0:0:0:0::/64");
  assertEquals(clientOf("::ffff:192.0.2.1"), "192.0.2.1");
  assertEquals(clientOf("192.0.2.1"), "192.0.2.1");
});

Deno.test("a refusal reaches a client as what it is", () =>
  serving({ transfers: 0, transferRetryS: [7, 7] }, async ({ url }) => {
    const peer = new HttpPeer(url);
    const plan = await peer.plan({ site: "paris" });
    const error = await assertRejects(() => peer.open(plan, 0), VolcastError);
    assertEquals([error.kind, error.retryAfterMs], ["busy", 7000]);
  }));

function postName(url: string, name: string): Promise<Response> {
  return fetch(`${url}/snapshots`, { method: "POST", body: JSON.stringify({ name }) })
    .then(async (response) => {
      await response.body?.cancel();
      return response;
    });
}
