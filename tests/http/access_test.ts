import { assertEquals, assertStringIncludes } from "@std/assert";
import { tarFromEntries } from "../../src/archive/mod.ts";
import { json, makeNode } from "./helpers.ts";

const snapshot = (name: string, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  body: JSON.stringify({ name }),
  headers,
});

Deno.test("changing something needs the token, unless there is none and the server is on loopback", async () => {
  await using open = await makeNode();
  assertEquals((await open.get("/snapshots", snapshot("a"))).status, 201);
  const foreign = await open.get("/snapshots", snapshot("b", { origin: "https://evil.example" }));
  assertEquals(foreign.status, 403);
  // A name that was made to mean this machine: the page's origin and the host agree then.
  const rebound = await open.get(
    "/snapshots",
    snapshot("b", { host: "evil.example:80", origin: "http://evil.example:80" }),
  );
  assertEquals(rebound.status, 403);
  // A proxy on this machine asks for somebody who is elsewhere.
  const proxied = await open.get("/snapshots", snapshot("b", { "x-forwarded-for": "192.0.2.1" }));
  assertEquals(proxied.status, 403);
  const local = { host: "127.0.0.1:8080", origin: "http://127.0.0.1:8080" };
  assertEquals((await open.get("/snapshots", snapshot("b", local))).status, 201);

  await using closed = await makeNode({ loopback: false });
  const refused = await closed.get("/snapshots", snapshot("a"));
  assertEquals(refused.status, 403);
  assertStringIncludes(String((await json(refused)).hint), "VOLCAST_TOKEN");
  assertEquals((await closed.get("/snapshots")).status, 200);

  await using guarded = await makeNode({ tokens: { admin: "secret" } });
  assertEquals((await guarded.get("/snapshots", snapshot("a"))).status, 401);
  const wrong = await guarded.get("/snapshots", snapshot("a", { authorization: "Bearer wrong" }));
  assertEquals(wrong.status, 401);
  const right = await guarded.get("/snapshots", snapshot("a", { authorization: "Bearer secret" }));
  assertEquals(right.status, 201);
  for (
    const [path, method] of [
      ["/snapshots/a", "DELETE"],
      ["/pointers/master", "PUT"],
      ["/sites/paris", "PUT"],
      ["/sites/paris", "DELETE"],
      ["/import", "POST"],
      ["/publish?as=x", "POST"],
    ]
  ) {
    assertEquals(
      (await guarded.get(path, { method, body: method === "DELETE" ? null : "{}" })).status,
      401,
      path,
    );
  }
});

Deno.test("a site's token names the site and lets it confirm, and nothing else", async () => {
  await using origin = await makeNode({
    loopback: false,
    tokens: { admin: "root", sites: new Map([["paris", "p"], ["rome", "r"]]) },
  });
  const june3 = await origin.publish("june3", { a: "one" });
  const paris = { authorization: "Bearer p" };
  const confirm = (site: string) =>
    origin.get(`/sites/${site}`, {
      method: "PUT",
      body: JSON.stringify({ snapshot: june3 }),
      headers: paris,
    });
  assertEquals((await confirm("paris")).status, 200);
  assertEquals((await confirm("rome")).status, 403);
  assertEquals((await origin.get("/snapshots", snapshot("x", paris))).status, 403);
  await origin.publish("june5", { a: "two" });
  // The plain URL means this site's master, since the token says who asks.
  const plain = await origin.get("/replicate?since=master", { method: "HEAD", headers: paris });
  assertEquals(plain.headers.get("volcast-base"), june3);
});

Deno.test("a server that has given a token to a site is open to nobody, on loopback neither", async () => {
  await using origin = await makeNode({ tokens: { sites: new Map([["paris", "p"]]) } });
  const june3 = await origin.publish("june3", { a: "one" });
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  const confirm = async (headers: Record<string, string>) =>
    (await origin.get("/sites/paris", {
      method: "PUT",
      body: JSON.stringify({ snapshot: june3 }),
      headers,
    })).status;
  assertEquals(await confirm(bearer("p")), 200);
  assertEquals(await confirm(bearer("q")), 401);
  assertEquals(await confirm({}), 401);
  for (const [headers, status] of [[{}, 401], [bearer("p"), 403], [bearer("q"), 401]] as const) {
    assertEquals((await origin.get("/snapshots", snapshot("x", headers))).status, status);
    const plane = await origin.get("/sites/rome/plane", { method: "PUT", body: "x", headers });
    assertEquals(plane.status, status);
  }
});

Deno.test("publish takes a tar as one step, and refuses before it takes anything", async () => {
  await using origin = await makeNode();
  const tar = () =>
    tarFromEntries([{
      path: "hello",
      type: "file",
      permissions: 0o644,
      uid: 0,
      gid: 0,
      mtime: 1_000_000_000n,
      size: 5,
      read: () => [new TextEncoder().encode("hello")],
    }]);
  const post = (query: string, body: BodyInit) =>
    origin.get(`/publish?${query}`, { method: "POST", body });
  const bytes = () => new Response(tar()).arrayBuffer();
  const done = await post("as=june3", await bytes());
  assertEquals(done.status, 201);
  assertEquals(await (await origin.get("/files/hello")).text(), "hello");
  for (
    const [query, body, status] of [
      ["as=june3", await bytes(), 409],
      ["as=a%20b", await bytes(), 400],
      ["as=full", await bytes(), 400],
      ["", await bytes(), 400],
      ["as=june4&pointer=june3", await bytes(), 409],
      ["as=june4", new Uint8Array(5000).fill(7), 400],
    ] as [string, BodyInit, number][]
  ) {
    const refused = await post(query, body);
    assertEquals(refused.status, status, `${query}: ${await refused.text()}`);
  }
  assertEquals(origin.volume.snapshots().map(({ name }) => name), ["june3"]);
  assertEquals(await (await origin.get("/files/hello")).text(), "hello");
});

Deno.test("bodies are validated and bounded", async () => {
  await using origin = await makeNode();
  const post = (body: string) => origin.get("/snapshots", { method: "POST", body });
  const large = await post(JSON.stringify({ name: "x".repeat(100_000) }));
  assertEquals(large.status, 413);
  assertStringIncludes(String((await json(large)).title), "65536");
  for (const body of ["", "{", "[]", '{"name":5}', '{"name":"a","extra":1}', '{"name":"../a"}']) {
    assertEquals((await post(body)).status, 400, body);
  }
  assertEquals(origin.volume.snapshots().length, 0);
});

Deno.test("a refused request's body is taken, so that its sender gets the answer", async () => {
  await using node = await makeNode({ loopback: false });
  let taken = 0;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller): void {
      if (++taken > 64) controller.close();
      else controller.enqueue(new Uint8Array(65536));
    },
  });
  const refused = await node.get("/publish?as=june3", { method: "POST", body });
  assertEquals(refused.status, 403);
  assertEquals(taken, 65);
});
