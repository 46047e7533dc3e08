import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { zstdDecompressSync } from "node:zlib";
import { json, makeNode } from "./helpers.ts";

const identity = { headers: { "accept-encoding": "identity" } };

Deno.test("replicate gives a site what came after the master that it confirmed", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const asked = "/replicate?since=master&site=paris";
  const first = await origin.get(asked, { method: "HEAD" });
  assertEquals(first.headers.get("volcast-image"), "full; because=new-site");

  const put = { method: "PUT", body: JSON.stringify({ snapshot: june3 }) };
  for (let i = 0; i < 2; i++) assertEquals((await origin.get("/sites/paris", put)).status, 200);
  const june5 = await origin.publish("june5", { a: "two", b: "more" });
  const second = await origin.get(asked, { method: "HEAD" });
  assertEquals(second.headers.get("volcast-base"), june3);
  assertEquals(second.headers.get("volcast-top"), june5);
  assertEquals(
    second.headers.get("content-location"),
    `/images/${origin.volume.volumeId}/${june3}/${june5}`,
  );
  const body = await origin.get(asked, identity);
  assertEquals(
    (await body.arrayBuffer()).byteLength,
    Number(second.headers.get("content-length")),
  );
  // Another site has a position of its own, and none yet.
  const rome = await origin.get("/replicate?since=master&site=rome", { method: "HEAD" });
  assertEquals(rome.headers.get("volcast-base"), null);
});

Deno.test("replicate asked about the server's own pointer goes to the newest snapshot", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const empty = await origin.get("/replicate?since=master", { method: "HEAD" });
  assertEquals(empty.headers.get("volcast-blocks"), "0");
  assertEquals(empty.headers.get("volcast-base"), june3);
  const later = await origin.get("/snapshots", {
    method: "POST",
    body: JSON.stringify({ name: "later" }),
  });
  const { id } = await json(later);
  const next = await origin.get("/replicate?since=master", { method: "HEAD" });
  assertEquals(next.headers.get("volcast-top"), id);
});

Deno.test("replicate falls back to a full image, or says 410 and where to find it", async () => {
  await using origin = await makeNode();
  await origin.publish("june3", { a: "one" });
  await origin.publish("june5", { a: "two" });
  await origin.get("/snapshots/june3", { method: "DELETE" });
  const full = await origin.get("/replicate?since=june3", { method: "HEAD" });
  assertEquals(full.status, 200);
  assertEquals(full.headers.get("volcast-image"), "full; because=unknown-base");
  const never = await origin.get("/replicate?since=june3&full=never");
  assertEquals(never.status, 410);
  assertEquals(never.headers.get("content-type"), "application/problem+json");
  assertEquals((await json(never)).kind, "unknown-base");
  const link = /^<([^>]+)>; rel="alternate"$/.exec(never.headers.get("link") ?? "");
  assertEquals((await origin.get(link![1], { method: "HEAD" })).status, 200);
});

Deno.test("replicate refuses a base of another history", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const other = june3.replace(/.$/, (digit) => digit === "0" ? "1" : "0");
  const response = await origin.get(`/replicate?since=${other}`);
  assertEquals(response.status, 409);
  assertEquals((await json(response)).kind, "diverged");
});

Deno.test("replicate refuses what it does not understand, naming it", async () => {
  await using origin = await makeNode();
  const nothing = await origin.get("/replicate");
  assertEquals(nothing.status, 404);
  assertStringIncludes(String((await json(nothing)).title), "nothing has been published");
  await origin.publish("june3", { a: "one" });
  for (
    const query of [
      "sinse=june3",
      "full=maybe",
      `since=${"x".repeat(300)}`,
      "since=a%00b",
      "since=../../etc",
      "site=a%20b",
      "to=",
    ]
  ) {
    const response = await origin.get(`/replicate?${query}`);
    assertEquals(response.status, 400, query);
    const problem = await json(response);
    assertEquals(problem.kind, "usage");
    assertMatch(String(problem.title), /^Cannot use the query/);
  }
  assertEquals((await origin.get("/replicate?to=nowhere")).status, 404);
  assertEquals((await origin.get("/replicate", { method: "POST" })).status, 404);
});

Deno.test("images answer ranges and conditions as a resuming client needs them", async () => {
  await using origin = await makeNode();
  const noise = crypto.getRandomValues(new Uint8Array(60_000));
  await origin.publish("june3", { a: noise });
  const whole = await origin.get("/replicate", identity);
  const bytes = new Uint8Array(await whole.arrayBuffer());
  const url = whole.headers.get("content-location")!;
  const etag = whole.headers.get("etag")!;
  const ask = (headers: Record<string, string>, path = url) => origin.get(path, { headers });

  for (const path of [url, "/replicate"]) {
    for (const from of [0, 1, 1023, 1024, 5000, bytes.length - 65, bytes.length - 1]) {
      const part = await ask({ range: `bytes=${from}-` }, path);
      assertEquals(part.status, 206);
      assertEquals(
        part.headers.get("content-range"),
        `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
      );
      assertEquals(new Uint8Array(await part.arrayBuffer()), bytes.slice(from));
    }
  }
  const middle = await ask({ range: "bytes=100-199" });
  assertEquals(new Uint8Array(await middle.arrayBuffer()), bytes.slice(100, 200));
  const tail = await ask({ range: "bytes=-64" });
  assertEquals(new Uint8Array(await tail.arrayBuffer()), bytes.slice(-64));

  const done = await ask({ range: `bytes=${bytes.length}-` });
  assertEquals(done.status, 416);
  assertEquals(done.headers.get("cache-control"), "no-store");
  assertEquals(done.headers.get("content-range"), `bytes */${bytes.length}`);
  assertEquals((await done.arrayBuffer()).byteLength, 0);

  assertEquals((await ask({ "if-none-match": etag })).status, 304);
  assertEquals((await ask({ "if-match": '"other"' })).status, 412);
  const same = await ask({ range: "bytes=10-19", "if-range": etag });
  assertEquals(same.status, 206);
  assertEquals((await same.arrayBuffer()).byteLength, 10);
  const changed = await ask({ range: "bytes=10-19", "if-range": '"other"' });
  assertEquals(changed.status, 200);
  assertEquals((await changed.arrayBuffer()).byteLength, bytes.length);
  for (const odd of ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6"]) {
    const answer = await ask({ range: odd });
    assertEquals(answer.status, 200, odd);
    await answer.body?.cancel();
  }
  for (const bad of [url.replace(/full/, "9-00000000"), url.replace(/.$/, "z"), "/images/x/y/z"]) {
    const answer = await origin.get(bad);
    assert(answer.status === 404 || answer.status === 400);
    await answer.body?.cancel();
  }
  // Every answer was taken or given up: nobody holds a root any more.
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("replicate compresses on the fly for who asks, under another tag", async () => {
  await using origin = await makeNode();
  await origin.publish("june3", { a: "words ".repeat(20_000) });
  const plain = await origin.get("/replicate", identity);
  const bytes = new Uint8Array(await plain.arrayBuffer());
  const zstd = await origin.get("/replicate", { headers: { "accept-encoding": "gzip, zstd" } });
  assertEquals(zstd.headers.get("content-encoding"), "zstd");
  assert(zstd.headers.get("etag") !== plain.headers.get("etag"));
  assertEquals(zstd.headers.get("accept-ranges"), null);
  const packed = new Uint8Array(await zstd.arrayBuffer());
  assert(packed.length < bytes.length / 2);
  assertEquals(new Uint8Array(zstdDecompressSync(packed)), bytes);
  const gzip = await origin.get("/replicate", { headers: { "accept-encoding": "gzip" } });
  const unpacked = gzip.body!.pipeThrough(new DecompressionStream("gzip"));
  assertEquals(new Uint8Array(await new Response(unpacked).arrayBuffer()), bytes);
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("a snapshot that a site stands on, or that a pointer names, is not deleted", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  await origin.get("/sites/paris", {
    method: "PUT",
    body: JSON.stringify({ snapshot: june3, needs: [] }),
  });
  await origin.publish("june5", { a: "two" });
  const held = await origin.get("/snapshots/june3", { method: "DELETE" });
  assertEquals(held.status, 409);
  assertStringIncludes(String((await json(held)).title), "'paris'");
  const pointed = await origin.get("/snapshots/june5", { method: "DELETE" });
  assertStringIncludes(String((await json(pointed)).title), "'master'");
  assertEquals((await origin.get("/sites/paris", { method: "DELETE" })).status, 204);
  assertEquals((await origin.get("/sites/paris", { method: "DELETE" })).status, 404);
  assertEquals((await origin.get("/snapshots/june3", { method: "DELETE" })).status, 204);
});

Deno.test("the active file system is no snapshot: no pointer names it, and it is not deleted", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  for (const ref of ["active", origin.volume.current.id]) {
    const put = await origin.get("/pointers/master", {
      method: "PUT",
      body: JSON.stringify({ snapshot: ref }),
    });
    assertEquals(put.status, 404, ref);
    await put.body?.cancel();
    const gone = await origin.get(`/snapshots/${ref}`, { method: "DELETE" });
    assertEquals(gone.status, 404, ref);
    await gone.body?.cancel();
  }
  assertEquals(origin.volume.find("master")?.id, june3);
});

Deno.test("a local zone that is full refuses one more site and goes on", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const put = (name: string) =>
    origin.get(`/sites/${name}`, { method: "PUT", body: JSON.stringify({ snapshot: june3 }) });
  let status = 200;
  let count = 0;
  while (status === 200 && count < 1000) {
    const response = await put(`${"s".repeat(200)}${count++}`);
    status = response.status;
    await response.body?.cancel();
  }
  assertEquals(status, 507);
  assertEquals(origin.volume.poisoned, undefined);
  assertEquals((await origin.get(`/sites/${"s".repeat(200)}0`, { method: "DELETE" })).status, 204);
  assertEquals((await put(`${"s".repeat(200)}x`)).status, 200);
  for (const name of ["constructor", "toString"]) {
    assertEquals((await origin.get(`/sites/${name}`, { method: "DELETE" })).status, 404);
  }
  assertEquals((await put("__proto__")).status, 400);
});
