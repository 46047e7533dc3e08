/**
 * Bandwidth limits at real servers, by a clock that the test lets go on: where it stands, nothing comes.
 */

import { assert, assertEquals } from "@std/assert";
import { HttpPeer, HttpStandby, Throttle, Traffic } from "../../src/http/mod.ts";
import { Mirror, Node, Puller } from "../../src/replication/mod.ts";
import { until } from "../e2e/harness.ts";
import { MirrorPair } from "../helpers/mirrors.ts";
import { Random } from "../helpers/random.ts";
import { VirtualClock } from "../helpers/virtual_clock.ts";
import { type Fixture, makeNode } from "./helpers.ts";
import { serveNode } from "./served.ts";

const RATE = 2 ** 20;
const BYTES = 3 * 2 ** 19;
/** What may pass while the clock stands: the burst, and the piece that ends it. */
const AT_ONCE = RATE / 20 + RATE / 50;

/** Bytes that no compression makes fewer. */
function noise(byteCount: number): Uint8Array {
  const random = new Random(11);
  return new Uint8Array(Uint32Array.from({ length: byteCount / 4 }, () => random.word()).buffer);
}

async function serving(
  traffic: Traffic,
  use: (at: { url: string; www: string; origin: Fixture }) => Promise<void>,
): Promise<void> {
  await using origin = await makeNode();
  await origin.publish("june3", { "small.txt": "hello", "big.bin": noise(BYTES) });
  const listen = { hostname: "127.0.0.1", port: 0 };
  const server = serveNode(origin.node, { listen, www: listen, traffic });
  try {
    await use({ url: server.url, www: server.wwwUrl!, origin });
  } finally {
    await server.stop();
  }
}

/** Gets all of it; what came so far can be seen. */
function getting(url: string, headers: Record<string, string> = {}): {
  count: number;
  readonly bytes: Promise<Uint8Array>;
} {
  const state = {
    count: 0,
    bytes: fetch(url, { headers }).then(async ({ body }) => {
      const chunks: Uint8Array<ArrayBuffer>[] = [];
      for await (const chunk of body!) {
        state.count += chunk.length;
        chunks.push(chunk);
      }
      return await new Response(new Blob(chunks)).bytes();
    }),
  };
  return state;
}

Deno.test("images go out at their rate: whole, in parts, compressed, and the same bytes", async () => {
  const clock = new VirtualClock();
  const traffic = new Traffic({}, { throttle: new Throttle(RATE, clock) });
  await serving(traffic, async ({ url, origin }) => {
    const image = await (await origin.get("/replicate")).bytes();
    const requests: [headers: Record<string, string>, skipped: number][] = [
      [{ "accept-encoding": "identity" }, 0],
      [{ range: `bytes=${BYTES / 2}-` }, BYTES / 2],
      [{ "accept-encoding": "zstd" }, 0],
    ];
    for (const [headers, skipped] of requests) {
      clock.now += 60_000;
      const begin = clock.now;
      const got = getting(`${url}/replicate`, headers);
      await until("it waits", () => clock.waiting > 0);
      assert(got.count <= AT_ONCE, `${got.count}`);
      const bytes = await clock.during(got.bytes);
      // Compressed, there is a little less of it.
      const sent = (headers["accept-encoding"] === "zstd" ? BYTES : image.length) - skipped;
      const leastMs = (sent - AT_ONCE) * 1000 / RATE;
      assert(clock.now - begin >= leastMs, `${clock.now - begin} ms, not ${leastMs}`);
      if (headers["accept-encoding"] !== "zstd") assertEquals(bytes, image.subarray(skipped));
    }
    // Files are not meant.
    assertEquals((await getting(`${url}/files/big.bin`).bytes).length, BYTES);
    assertEquals(clock.waiting, 0);
  });
});

Deno.test("files go out at the rate too where that is asked for, at both listeners", async () => {
  const clock = new VirtualClock();
  const traffic = new Traffic({}, { throttle: new Throttle(RATE, clock), throttleFiles: true });
  await serving(traffic, async ({ url, www }) => {
    for (const path of [`${url}/files/big.bin`, `${www}/big.bin`, `${url}/archive`]) {
      clock.now += 60_000;
      const begin = clock.now;
      const got = getting(path);
      await until("it waits", () => clock.waiting > 0);
      assert(got.count <= AT_ONCE, `${path}: ${got.count}`);
      const bytes = await clock.during(got.bytes);
      assert(bytes.length >= BYTES);
      assert(clock.now - begin >= (BYTES - AT_ONCE) * 1000 / RATE, path);
    }
    clock.now += 60_000;
    assertEquals((await getting(`${url}/files/small.txt`).bytes).length, 5);
    // How the server does is no file.
    assertEquals((await getting(`${url}/status`).bytes).length > 0, true);
  });
});

Deno.test("a site takes an image at its rate, and what it pulls is right", () =>
  serving(new Traffic(), async ({ url, origin }) => {
    const clock = new VirtualClock();
    const path = await Deno.makeTempDir({ prefix: "volcast-bandwidth-" });
    const site = new Node({ name: "paris", path: `${path}/paris.vol` });
    try {
      const parents = [new HttpPeer(url, { throttle: new Throttle(RATE, clock) })];
      const pulling = new Puller(site, { parents }).pull();
      await until("it waits", () => clock.waiting > 0);
      assert((site.transfer?.done ?? 0) <= AT_ONCE);
      assertEquals((await clock.during(pulling)).kind, "full");
      assert(clock.now >= (BYTES - AT_ONCE) * 1000 / RATE);
      assertEquals(site.volume.current.id, origin.volume.find("master")!.id);
    } finally {
      await site.volumeIfAny?.close();
      await Deno.remove(path, { recursive: true });
    }
  }));

Deno.test("a mirror sends at its rate", async () => {
  await using pair = await MirrorPair.make(64 * 2 ** 20);
  pair.startStandby();
  const server = serveNode(pair.standby);
  try {
    const clock = new VirtualClock();
    const throttle = new Throttle(RATE, clock);
    const mirror = new Mirror(pair.source, new HttpStandby(server.url, { throttle }));
    await pair.change(["a"], BYTES);
    const result = await clock.during(mirror.round());
    await pair.assertSame();
    assertEquals(result.kind, "full");
    // The last part begins when those before it are through: a part has a second of the rate at most.
    assert(clock.now >= (BYTES - RATE - AT_ONCE) * 1000 / RATE, `${clock.now}`);
  } finally {
    await server.stop();
  }
});
