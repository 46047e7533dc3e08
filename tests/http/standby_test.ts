/**
 * A standby over HTTP: the routes, and the client that mirrors use.
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { HttpStandby, type RunningServer } from "../../src/http/mod.ts";
import { Image } from "../../src/image/mod.ts";
import { keepMirrored, Mirror } from "../../src/replication/mod.ts";
import { MirrorPair } from "../helpers/mirrors.ts";
import { bytesOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { serveNode } from "./served.ts";

/** A pair whose standby is reached over HTTP. */
async function serving(
  work: (pair: MirrorPair, server: RunningServer) => Promise<void>,
  options: { token?: string; receiver?: Record<string, number>; log?: string[] } = {},
): Promise<void> {
  await using pair = await MirrorPair.make(64 * 2 ** 20);
  Object.assign(pair.standbyOptions, options.receiver);
  pair.startStandby();
  const server = serveNode(pair.standby, {
    tokens: options.token === undefined ? {} : { admin: options.token },
    log: (text) => options.log?.push(text),
  });
  try {
    await work(pair, server);
  } finally {
    await server.stop();
  }
}

async function imageAt(pair: MirrorPair, name: string, byteCount: number): Promise<Image> {
  await pair.change(["a"], byteCount);
  const top = await pair.volume.exclusive((w) => w.takeSnapshot(name));
  return new Image(pair.volume, top);
}

const pathOf = ({ name: { volumeId, base, top } }: Image) =>
  `/images/${volumeId}/${base ?? "full"}/${top}`;

test("HttpStandby hands over images in parts, full and incremental", async () => {
  await serving(async (pair, { url }) => {
    const standby = new HttpStandby(`${url}/`);
    assertEquals(await standby.position(), { node: "paris", role: "replica" });
    const mirror = new Mirror(pair.source, standby);
    // Larger than a part, of one byte, and nothing.
    for (const byteCount of [20_000_000, 1, 3_000_000]) {
      await pair.change(["a"], byteCount);
      const result = await mirror.round();
      assert(result.kind !== "nothing");
      await pair.assertSame();
    }
    assertEquals((await mirror.round()).kind, "nothing");
    const { current, epoch, volumeId } = await standby.position();
    assertEquals(current?.id, pair.volume.snapshots()[0].id);
    assertEquals([epoch, volumeId], [1, pair.volume.volumeId]);
  });
});

test("HttpStandby asks again where the standby takes its time", async () => {
  await serving(async (pair, { url }) => {
    const standby = new HttpStandby(url);
    const mirror = new Mirror(pair.source, standby);
    await pair.change(["a", "b"], 4_000_000);
    assertEquals((await mirror.round()).kind, "full");
    await pair.change(["b"], 2_000_000);
    assertEquals((await mirror.round()).kind, "increment");
    await pair.assertSame();
  }, { receiver: { answerMs: 0 } });
});

test("a whole image can be sent with one PUT, as curl does, and gone on with", async () => {
  await serving(async (pair, { url }) => {
    const image = await imageAt(pair, "s1", 5_000_000);
    const bytes = await bytesOf(image);
    const put = (body: BodyInit, headers: HeadersInit = {}) =>
      fetch(url + pathOf(image), { method: "PUT", body, headers });
    const first = await put(streamOf(bytes.subarray(0, 3_000_001), 65_536) as BodyInit);
    assertEquals([first.status, await first.json()], [202, { kind: "more", offset: 3_000_001 }]);
    const status = await (await fetch(`${url}/status`)).json();
    assertEquals(status.standby.coming, {
      top: image.name.top,
      state: "wants",
      offset: 3_000_001,
    });
    const rest = await put(bytes.subarray(3_000_001), {
      "content-range": `bytes 3000001-${bytes.length - 1}/${bytes.length}`,
    });
    assertEquals([rest.status, (await rest.json()).kind], [200, "applied"]);
    assertEquals((await (await put(bytes)).json()).kind, "current");
    await pair.assertSame();
    for (const range of ["bytes 5-2/x", "lines 1-2/3", "bytes */5"]) {
      const refused = await put("", { "content-range": range });
      assertEquals([refused.status, (await refused.json()).kind], [400, "usage"]);
    }
  });
});

test("pushing needs the token, and a server that is a standby", async () => {
  await serving(async (pair, { url }) => {
    const image = await imageAt(pair, "s1", 10_000);
    const stranger = new Mirror(pair.source, new HttpStandby(url));
    const error = await assertRejects(() => stranger.round(), VolcastError, "bearer token");
    assertEquals(error.kind, "denied");
    const known = new Mirror(pair.source, new HttpStandby(url, { token: "secret" }));
    assertEquals((await known.round()).kind, "full");

    const { receiver } = pair.standby;
    pair.standby.receiver = undefined;
    await assertRejects(() => known.round(), VolcastError, "it is no standby");
    const refused = await fetch(url + pathOf(image), {
      method: "PUT",
      body: "",
      headers: { authorization: "Bearer secret" },
    });
    const { kind, hint } = await refused.json();
    assertEquals([refused.status, kind], [409, "read-only"]);
    assertStringIncludes(hint, "--standby");
    pair.standby.receiver = receiver;
  }, { token: "secret" });
});

test("a second sender is told to come later", async () => {
  await serving(async (pair, { url }) => {
    const image = await imageAt(pair, "s1", 100_000);
    let release = () => {};
    const body = new ReadableStream<Uint8Array>({
      start(controller): void {
        controller.enqueue(new Uint8Array(10));
        release = () => controller.error(new Error("gone"));
      },
    });
    const first = fetch(url + pathOf(image), { method: "PUT", body }).catch(() => undefined);
    const standby = new HttpStandby(url);
    while ((await standby.position()).coming === undefined);
    const second = await fetch(url + pathOf(image), { method: "PUT", body: await bytesOf(image) });
    assertEquals([second.status, second.headers.get("retry-after")], [503, "2"]);
    assertEquals((await second.json()).kind, "busy");
    const mirror = new Mirror(pair.source, standby);
    assertEquals((await assertRejects(() => mirror.round(), VolcastError)).kind, "busy");
    release();
    await first;
    while ((await standby.position()).coming?.state === "works");
    assertEquals((await mirror.round()).kind, "full");
    await pair.assertSame();
  });
});

test("keepMirrored goes on through failures, ends what is stuck, and says how it is", async () => {
  const log: string[] = [];
  await serving(async (pair, { url }) => {
    await pair.change(["a"], 100_000);
    const mirror = new Mirror(pair.source, new HttpStandby(url));
    pair.source.mirrors.push(mirror);
    const source = serveNode(pair.source);
    const stopping = new AbortController();
    const running = keepMirrored(mirror, {
      everyMs: 10,
      stuckMs: 150,
      log: (text) => log.push(text),
    }, stopping.signal);
    const until = async (what: string, test: () => boolean) => {
      for (let i = 0; i < 18_000 && !test(); i++) await new Promise((r) => setTimeout(r, 10));
      assert(test(), `${what}\n${log.join("\n")}`);
    };
    await until("up to date", () => mirror.status.lagBlocks === 0);
    // The standby answers nothing any more.
    const { receiver } = pair.standby;
    pair.standby.receiver = undefined;
    await until("failing", () => mirror.status.failures > 0);
    pair.standby.receiver = receiver;
    await pair.change(["a"], 200_000);
    await until("again", () => mirror.status.failures === 0 && mirror.status.lagBlocks === 0);
    await pair.assertSame();

    // A transfer on which nothing comes through.
    const stuck = new Mirror(pair.source, {
      name: "stuck",
      position: () => Promise.resolve({ node: "stuck", role: "replica" }),
      take: (_, { signal }) =>
        new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason))),
    });
    const ending = new AbortController();
    const stalled = keepMirrored(stuck, {
      everyMs: 10,
      stuckMs: 50,
      log: (text) => log.push(text),
    }, ending.signal);
    await until("ended", () => stuck.status.failures > 0);
    assertStringIncludes(stuck.status.error ?? "", "nothing has happened for");
    ending.abort();
    await stalled;

    const status = await (await fetch(`${source.url}/status`)).json();
    assertEquals(status.mirrors.length, 1);
    assertEquals(status.mirrors[0].to, url);
    assertEquals([status.mirrors[0].lagBlocks, status.mirrors[0].lagBytes], [0, 0]);
    assertEquals(status.mirrors[0].standsOn.id, pair.standby.volume.current.id);
    const metrics = await (await fetch(`${source.url}/metrics`)).text();
    assertStringIncludes(metrics, `volcast_mirror_lag_blocks{to="${url}"} 0\n`);
    assert(/volcast_mirror_success_timestamp_seconds\{to="[^"]+"\} \d{10}/.test(metrics), metrics);
    assert(/volcast_mirror_failures_total\{to="[^"]+"\} [1-9]/.test(metrics), metrics);
    stopping.abort();
    await running;
    await source.stop();
    assert(log.some((text) => text.startsWith("Mirrored 'mirror.paris.")), log.join("\n"));
  });
});
