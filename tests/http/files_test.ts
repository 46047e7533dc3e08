import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { readyFile, ReadyFiles } from "../../src/http/ready_files.ts";
import { ContentServer } from "../../src/http/www.ts";
import { json, makeNode } from "./helpers.ts";

Deno.test("files answers ranges and conditions", async () => {
  await using origin = await makeNode();
  const noise = crypto.getRandomValues(new Uint8Array(65_536)) as Uint8Array;
  const big = new Uint8Array(700_000);
  for (let at = 0; at < big.length; at += 50_000) big.set(noise.subarray(0, 50_000), at);
  await origin.publish("june3", { "small.txt": "hello", "big.bin": big });
  const small = await origin.get("/files/small.txt");
  assertEquals(small.headers.get("content-type"), "text/plain; charset=UTF-8");
  assertEquals(await small.text(), "hello");
  const whole = await origin.get("/files/big.bin");
  assertEquals(whole.headers.get("content-length"), String(big.length));
  assertEquals(new Uint8Array(await whole.arrayBuffer()), big);
  const etag = whole.headers.get("etag")!;
  const modified = whole.headers.get("last-modified")!;
  assert(!etag.startsWith("W/"));
  const ask = (headers: Record<string, string>) => origin.get("/files/big.bin", { headers });
  const part = await ask({ range: "bytes=4000-300000" });
  assertEquals(part.status, 206);
  assertEquals(new Uint8Array(await part.arrayBuffer()), big.slice(4000, 300_001));
  assertEquals((await ask({ range: "bytes=700000-" })).status, 416);
  assertEquals((await ask({ "if-none-match": `"x", W/${etag}` })).status, 304);
  assertEquals((await ask({ "if-none-match": "*" })).status, 304);
  assertEquals((await ask({ "if-modified-since": modified })).status, 304);
  const earlier = await ask({ "if-unmodified-since": "Thu, 01 Jan 1970 00:00:00 GMT" });
  assertEquals(earlier.status, 412);
  // A date that is later than the file's is that of another release.
  const later = await ask({ "if-modified-since": new Date(Date.now() + 1e6).toUTCString() });
  assertEquals(later.status, 200);
  await later.body?.cancel();
  const both = await ask({ "if-none-match": '"x"', "if-modified-since": modified });
  assertEquals(both.status, 200);
  await both.body?.cancel();
  const head = await origin.get("/files/big.bin", {
    method: "HEAD",
    headers: { range: "bytes=0-9" },
  });
  assertEquals(head.status, 200);
  assertEquals(head.headers.get("content-length"), String(big.length));
  assertEquals(head.headers.get("etag"), etag);
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("files reads the master, or the snapshot that is asked for", async () => {
  await using origin = await makeNode();
  await origin.publish("june3", { a: "old", gone: "x" });
  await origin.publish("june5", { a: "new" });
  await origin.volume.exclusive((writer) => {
    writer.fs.remove(INO.root, "gone");
    writer.fs.write(writer.fs.lookup(INO.root, "a")!, 0, new TextEncoder().encode("???"));
    return writer.checkpoint();
  });
  const text = async (path: string) => await (await origin.get(path)).text();
  assertEquals(await text("/files/a"), "new");
  assertEquals(await text("/files/a?at=master"), "new");
  assertEquals(await text("/files/a?at=june3"), "old");
  assertEquals(await text("/files/a?at=active"), "???");
  assertEquals((await origin.get("/files/gone?at=active")).status, 404);
  assertEquals((await origin.get("/files/a?at=never")).status, 404);
  const tags = await Promise.all(["june3", "june5"].map(async (at) => {
    const response = await origin.get(`/files/a?at=${at}`);
    await response.text();
    return response.headers.get("etag");
  }));
  assert(tags[0] !== tags[1]);
});

Deno.test("one answer reads one release to its end, whatever is published meanwhile", async () => {
  await using origin = await makeNode();
  const old = new Uint8Array(2 ** 20).fill(1);
  await origin.publish("june3", { a: old });
  const response = await origin.get("/files/a?at=june3");
  const reader = response.body!.getReader();
  const first = await reader.read();
  await origin.publish("june5", { a: new Uint8Array(2 ** 20).fill(2) });
  await origin.get("/snapshots/june3", { method: "DELETE" });
  // The space of june3 is wanted now, but it is being read.
  for (let i = 0; i < 8; i++) await origin.publish(`x${i}`, { b: new Uint8Array(2 ** 20).fill(i) });
  let count = first.value!.length;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    assert(value.every((byte) => byte === 1));
    count += value.length;
  }
  assertEquals(count, old.length);
});

Deno.test("files lists directories in HTML and JSON, in pages", async () => {
  await using origin = await makeNode();
  const files: Record<string, string> = { "sub/inner": "1" };
  for (let i = 0; i < 30; i++) files[`file ${i} <&>`] = String(i);
  await origin.publish("june3", files);
  const page = await origin.get("/files/");
  assertStringIncludes(page.headers.get("content-type") ?? "", "text/html");
  const html = await page.text();
  assertStringIncludes(html, 'href="./file%200%20%3C%26%3E"');
  assert(!html.includes("<&>"));
  const redirect = await origin.get("/files/sub");
  assertEquals([redirect.status, redirect.headers.get("location")], [301, "/files/sub/"]);

  const names: string[] = [];
  let after = "";
  for (;;) {
    const query = after === "" ? "" : `&after=${encodeURIComponent(after)}`;
    const listing = await json(await origin.get(`/files/?format=json&limit=7${query}`));
    for (const entry of listing.entries as { name: string }[]) names.push(entry.name);
    if (listing.next === undefined) break;
    after = String(listing.next);
  }
  assertEquals(names, [...Object.keys(files).filter((name) => name !== "sub/inner"), "sub"].sort());
  const info = await json(await origin.get("/files/sub/inner?format=json"));
  assertEquals([info.type, info.size, info.path], ["file", 1, "/sub/inner"]);
});

Deno.test("files refuses paths that are none", async () => {
  await using origin = await makeNode();
  await origin.publish("june3", { a: "x" });
  await origin.volume.exclusive(async (writer) => {
    writer.fs.create(INO.root, "out", { type: "symlink", target: "../../../../etc/passwd" });
    writer.fs.create(INO.root, "loop", { type: "symlink", target: "loop" });
    writer.fs.create(INO.root, "fifo", { type: "fifo" });
    await writer.checkpoint();
  });
  const status = async (path: string) => {
    const response = await origin.get(path);
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await status("/files/a%00b"), 400);
  assertEquals(await status("/files/%ff"), 400);
  assertEquals(await status("/files/a%2fb"), 400);
  assertEquals(await status("/files/..%2f..%2fetc"), 400);
  assertEquals(await status("/files/%2e%2e/a"), 404);
  assertEquals(await status("/files/a/b"), 404);
  assertEquals(await status(`/files/${"n".repeat(300)}`), 404);
  assertEquals(await status("/files/out?at=active"), 404);
  assertEquals(await status("/files/loop?at=active"), 404);
  assertEquals(await status("/files/fifo?at=active"), 400);
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("the content-only server gives the master's files and nothing else", async () => {
  await using origin = await makeNode();
  const site = new ContentServer(origin.node);
  const ask = (path: string, init?: RequestInit) =>
    site.answer(new Request(`http://localhost${path}`, init));
  await origin.publish("june3", { "index.html": "<p>home", "sub/index.html": "sub", "sub/a": "a" });
  assertEquals(await ask("/").text(), "<p>home");
  assertEquals(ask("/sub").headers.get("location"), "/sub/");
  assertEquals(await ask("/sub/").text(), "sub");
  assertEquals(await ask("/sub/a").text(), "a");
  for (const path of ["/status", "/replicate", "/files/sub/a", "/missing", "/a%00b"]) {
    assertEquals(ask(path).status, 404, path);
  }
  assertEquals(ask("/", { method: "POST" }).status, 405);
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("what the content-only server keeps is answered like what it reads, and goes with its release", async () => {
  await using origin = await makeNode();
  const site = new ContentServer(origin.node);
  const ask = async (path: string, headers: HeadersInit = {}, method = "GET") => {
    const response = site.answer(new Request(`http://localhost${path}`, { method, headers }));
    const fields = [...response.headers].filter(([name]) => name !== "etag");
    const bytes = await response.bytes();
    return { status: response.status, fields, bytes, text: new TextDecoder().decode(bytes) };
  };
  const asked = async (path: string) => [
    await ask(path),
    await ask(path, {}, "HEAD"),
    await ask(path, { range: "bytes=1-2" }),
    await ask(path, { range: "bytes=9-" }),
    await ask(path, { "if-none-match": "*" }),
    await ask(path, { "if-match": '"other"' }),
  ];
  const large = "x".repeat(70_000);
  const noise = Uint8Array.from({ length: 5 }, (_, i) => 253 + i);
  await origin.publish("june3", { "a.html": "june3", "dir/index.html": "home", large, noise });
  for (const path of ["/a.html", "/dir/", "/a.html?query", "/%61.html", "/large", "/noise"]) {
    const fresh = await asked(path);
    assertEquals(await asked(path), fresh, path);
    const behind = path === "/large" ? 206 : 416;
    assertEquals(fresh.map(({ status }) => status), [200, 200, 206, behind, 304, 412], path);
  }
  const { etag } = Object.fromEntries(site.answer(new Request("http://localhost/a.html")).headers);
  assertEquals((await ask("/a.html", { "if-none-match": etag })).status, 304);
  await origin.publish("june5", { "a.html": "june5", "new": "new" });
  assertEquals((await ask("/a.html", { "if-none-match": etag })).text, "june5");
  assertEquals((await ask("/new")).text, "new");
  const { id } = origin.volume.resolve("june3");
  await origin.volume.exclusive((writer) => writer.setPointer("master", id));
  assertEquals((await ask("/a.html")).text, "june3");
  assertEquals((await ask("/new")).status, 404);
  assertEquals(origin.volume.leases.size, 0);
});

Deno.test("no more files are kept ready than there is memory for, and those kept last stay", () => {
  const ready = new ReadyFiles();
  const content = { etag: '""', lastModified: 0, size: 0, headers: [], whole: [] };
  const keep = (address: string, size: number) =>
    ready.keep("june3", address, readyFile(content, new Uint8Array(size).fill(200)));
  const has = (address: string) => ready.find("june3", address) !== undefined;
  const count = (addresses: readonly string[]) => addresses.filter(has).length;
  const large = Array.from({ length: 400 }, (_, i) => `/${i}`);
  for (const address of large) keep(address, 65_536);
  const kept = count(large);
  assert(kept > 250 && kept * 65_536 <= 20 * 2 ** 20, `${kept} large ones`);
  assertEquals(large.slice(-kept).every(has), true, "the ones that were kept last");
  // One file by many addresses: they take memory, too.
  const long = Array.from({ length: 2000 }, (_, i) => `${"/".repeat(40_000)}${i}`);
  for (const address of long) keep(address, 1);
  assert(count(long) > 400 && count(long) * 40_000 <= 20 * 2 ** 20, `${count(long)} long ones`);
  const small = Array.from({ length: 30_000 }, (_, i) => `/small${i}`);
  for (const address of small) keep(address, 0);
  assert(count(small) > 10_000 && count(small) < 20_000, `${count(small)} small ones`);
  assertEquals([has("/399"), count(long), has("/small29999")], [false, 0, true]);
  assertEquals(ready.find("june5", "/small29999"), undefined);
  ready.keep("june5", "/a", readyFile(content, new Uint8Array(1)));
  assertEquals(has("/small29999"), false);
});

Deno.test("what is read through a lease ends with it: archives, and lines of names", async () => {
  await using origin = await makeNode();
  const files: Record<string, string | Uint8Array> = { big: new Uint8Array(2 ** 21).fill(1) };
  for (let i = 0; i < 2000; i++) files[`a file with a long name, number ${i}`] = "x";
  await origin.publish("june3", files);
  await origin.publish("june5", { other: "x" });
  for (const path of ["/archive?at=june3", "/tree?at=june3", "/diff?from=june5&to=june3"]) {
    if (path.startsWith("/diff")) {
      await origin.volume.exclusive(async (writer) => {
        for (let i = 0; i < 2000; i++) {
          writer.fs.remove(INO.root, `a file with a long name, number ${i}`);
        }
        await writer.takeSnapshot("june7", { pointers: ["master"] });
      });
    }
    const response = await origin.get(path.replace("june5", "june7"));
    const reader = response.body!.getReader();
    await reader.read();
    origin.volume.leases.endAll();
    await assertRejects(
      async () => {
        while (!(await reader.read()).done);
      },
      VolcastError,
      "its readers were ended",
      path,
    );
  }
});
