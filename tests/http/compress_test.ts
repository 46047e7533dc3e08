// Images that come compressed: fewer bytes on the line, the same volume, from any byte on.

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { VolcastError } from "../../src/core/mod.ts";
import { HttpPeer } from "../../src/http/mod.ts";
import { unzstd } from "../../src/http/recoded.ts";
import { Node, Puller } from "../../src/replication/mod.ts";
import { until } from "../e2e/harness.ts";
import { Proxy } from "../e2e/proxy.ts";
import { assertClean } from "../helpers/history.ts";
import { TestPatience } from "../helpers/patience.ts";
import { Random } from "../helpers/random.ts";
import { collect, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { type Fixture, makeNode } from "./helpers.ts";
import { serveNode } from "./served.ts";

const TEXT = "a line of a page that is like others\n".repeat(60_000);

interface Place {
  readonly origin: Fixture;
  readonly line: Proxy;
  readonly site: Node;
  /** @returns Bytes on the line. */
  pull(compress: boolean): Promise<number>;
}

/** An origin behind a line, and a site that has nothing yet. */
async function withSite(use: (place: Place) => Promise<void>): Promise<void> {
  await using origin = await makeNode({ blocks: 32_768 });
  const server = serveNode(origin.node);
  await using line = new Proxy(Number(new URL(server.url).port), { counts: "server" });
  const directory = await Deno.makeTempDir({ prefix: "volcast-compress-" });
  const site = new Node({ name: "paris", path: `${directory}/paris.vol` });
  const pull = async (compress: boolean): Promise<number> => {
    const before = line.sent + line.received;
    const patience = new TestPatience({ attempts: 1 });
    const parents = [new HttpPeer(line.url, { compress, patience })];
    await new Puller(site, { parents, drainMs: 0 }).pull();
    return line.sent + line.received - before;
  };
  try {
    await use({ origin, line, site, pull });
  } finally {
    await site.volumeIfAny?.close();
    await Deno.remove(directory, { recursive: true });
    await server.stop();
  }
}

test("what comes compressed is fewer bytes on the line, and the same volume", () =>
  withSite(async ({ origin, site, pull }) => {
    const bytes: number[] = [];
    for (const [i, compress] of [true, true, false].entries()) {
      await origin.publish(`r${i}`, { page: `${i}${TEXT}` });
      bytes.push(await pull(compress));
      assertEquals(site.volume.current.id, origin.volume.resolve(`r${i}`).id);
      assertClean(site.volume);
    }
    assert(Math.max(bytes[0], bytes[1]) * 5 < bytes[2], bytes.join());
  }));

test("a pull that was cut goes on where it was, compressed or not", () =>
  withSite(async ({ origin, line, site, pull }) => {
    for (const [i, compress] of [true, false].entries()) {
      await origin.publish(`r${i}`, { noise: new Random(i).bytes(24 * 2 ** 20) });
      let isBegun = false;
      line.cutEvery(() => {
        line.isDown = isBegun;
        isBegun = true;
        // More than lies in the buffers of the line, which is lost.
        return 18 * 2 ** 20;
      });
      await assertRejects(() => pull(true), VolcastError);
      line.isDown = false;
      line.cutEvery(() => Infinity);
      const rest = await pull(compress);
      assert(rest < 22 * 2 ** 20, `${rest} bytes came again`);
      assertEquals(site.volume.current.id, origin.volume.resolve(`r${i}`).id);
      assertClean(site.volume);
    }
  }));

test("the rest of an image is what follows its byte, and is to be had compressed only", () =>
  withSite(async ({ origin }) => {
    await origin.publish("r1", { page: TEXT });
    const head = await origin.get("/replicate", { method: "HEAD" });
    const path = head.headers.get("content-location")!;
    const plain = await (await origin.get(path)).bytes();
    const rest = (from: number | string, headers: HeadersInit = { "accept-encoding": "zstd" }) =>
      origin.get(`${path}?from=${from}`, { headers });
    const tags = new Set([head.headers.get("etag")]);
    for (const from of [0, 1, 5000, plain.length - 1]) {
      const response = await rest(from);
      assertEquals(response.headers.get("content-encoding"), "zstd");
      assertStringIncludes(response.headers.get("vary")!, "Accept-Encoding");
      tags.add(response.headers.get("etag"));
      const unpacked = new Uint8Array(zstdDecompressSync(await response.bytes()));
      assertEquals(unpacked, plain.subarray(from));
    }
    assertEquals(tags.size, 5);
    const wrong: Response[] = [
      await rest(plain.length),
      await rest("x"),
      await rest(5, { "accept-encoding": "identity" }),
      await rest(5, { "accept-encoding": "zstd", range: "bytes=7-" }),
    ];
    for (const response of wrong) {
      assertEquals(response.status, 400);
      await response.body?.cancel();
    }
    assertEquals(origin.volume.leases.size, 0);
  }));

test("an answer that is another image's, or was unpacked on its way, is not taken for the rest", () =>
  withSite(async ({ origin, line }) => {
    await origin.publish("r1", { page: TEXT });
    const peerOf = (change: (response: Response) => Response) =>
      new HttpPeer(line.url, {
        compress: true,
        fetch: async (input, init) => change(await fetch(input, init)),
      });
    const opened = async (offset: number, change: (response: Response) => Response) => {
      const plan = await peerOf((response) => response).plan({ site: "paris" });
      return await collect(await peerOf(change).open(plan, offset));
    };
    const whole = await opened(0, (response) => response);
    assertEquals(await opened(5000, (response) => response), whole.subarray(5000));
    const other = ({ body, headers, status }: Response) => {
      const changed = new Headers(headers);
      changed.set("etag", '"other"');
      return new Response(body, { status, headers: changed });
    };
    await assertRejects(() => opened(0, other), VolcastError, 'the image "other"');
    const unpacked = ({ body, headers, status }: Response) => {
      const left = new Headers(headers);
      for (const name of ["content-encoding", "etag"]) left.delete(name);
      return new Response(unzstd(body!), { status, headers: left });
    };
    assertEquals(await opened(0, unpacked), whole);
    await assertRejects(() => opened(5000, unpacked), VolcastError, "begin anywhere");
  }));

test("who leaves a compressed image leaves nothing held", () =>
  withSite(async ({ origin, line }) => {
    await origin.publish("r1", { noise: new Random(7).bytes(24 * 2 ** 20) });
    const path = (await origin.get("/replicate", { method: "HEAD" })).headers.get(
      "content-location",
    );
    const headers = { "accept-encoding": "zstd" };
    const { body } = await fetch(`${line.url}${path}?from=0`, { headers });
    const reader = body!.getReader();
    await reader.read();
    assertEquals(origin.volume.leases.size, 1);
    await reader.cancel();
    await until("nobody reads", () => origin.volume.leases.size === 0);
  }));

test("what cannot be unpacked ends the stream, and who reads no more ends its source", async () => {
  const packed = Uint8Array.from(zstdCompressSync(new Random(8).bytes(300_000)));
  const unpacked = (bytes: Uint8Array) => collect(unzstd(streamOf(bytes)));
  await assertRejects(() => unpacked(new TextEncoder().encode("no zstd at all")));
  // What is cut off may end early as well as badly: an image tells that by itself.
  const part = await unpacked(packed.slice(0, 200_000)).catch(() => new Uint8Array(0));
  assert(part.length < 300_000, `${part.length}`);
  assertEquals((await unpacked(packed)).length, 300_000);
  const params = { [constants.ZSTD_c_windowLog]: 27 };
  const greedy = Uint8Array.from(zstdCompressSync(new Uint8Array(2 ** 27), { params }));
  await assertRejects(() => unpacked(greedy), Error, "too much memory");
  // Who never read is told of nothing, and leaves nothing behind.
  let isUnread = true;
  const unread = new ReadableStream<Uint8Array>({ cancel: () => void (isUnread = false) });
  await unzstd(unread).cancel();
  assertEquals(isUnread, false);
  let isLeft = false;
  let taken = 0;
  const zeros = zstdCompressSync(new Uint8Array(64 * 2 ** 20));
  const source = new ReadableStream<Uint8Array>({
    pull(controller): void {
      taken++;
      controller.enqueue(Uint8Array.from(zeros));
    },
    cancel(): void {
      isLeft = true;
    },
  }, { highWaterMark: 0 });
  const reader = unzstd(source).getReader();
  let count = 0;
  while (count < 2 ** 20) count += (await reader.read()).value!.length;
  await reader.cancel();
  await until("the source is left", () => isLeft);
  // Each part is 64 MiB unpacked; what waits is packed, and little.
  assert(taken * zeros.length < 2 ** 18 && count < 2 ** 21, `${taken} parts, ${count} bytes`);
});
