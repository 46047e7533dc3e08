import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  Access,
  createApp,
  ROUTE_TABLE,
  type RouteRule,
  type Scope,
  type Tokens,
  Traffic,
} from "../../src/http/mod.ts";
import { openTokenFile } from "../../src/http/mod.ts";
import type { Node } from "../../src/replication/mod.ts";
import { json, makeNode } from "./helpers.ts";
import { test } from "../helpers/strict.ts";
import { makeTokenFile, tokenText } from "../helpers/tokens.ts";

/** What the middleware itself is among the routes. */
const MIDDLEWARE = "ALL /*";

/** Who asks: the header, and what the token is good for where it is known. */
interface Caller {
  readonly header?: string;
  readonly scopes?: readonly Scope[];
  readonly site?: string;
}

const CALLERS: Readonly<Record<string, Caller>> = {
  "nobody": {},
  "a wrong token": { header: "Bearer wrong" },
  "a password": { header: `Basic ${btoa("root:secret-admin")}` },
  "no token": { header: "Bearer " },
  "a digest": { header: "Bearer sha256:" + "0".repeat(64) },
  "read": { header: "Bearer secret-read", scopes: ["read"] },
  "replicate": { header: "Bearer secret-replicate", scopes: ["replicate"] },
  "write": { header: "Bearer secret-write", scopes: ["write"] },
  "admin": { header: "Bearer secret-admin", scopes: ["admin"] },
  "own site": { header: "Bearer secret-paris", scopes: ["replicate"], site: "paris" },
  "other site": { header: "Bearer secret-rome", scopes: ["replicate"], site: "rome" },
  "admin of a site": { header: "Bearer secret-lyon", scopes: ["admin"], site: "lyon" },
};

/** How a server can be. */
const MODES = {
  open: { loopback: true, isPrivate: false, tokens: false },
  closed: { loopback: false, isPrivate: false, tokens: false },
  guarded: { loopback: true, isPrivate: false, tokens: true },
  "guarded, elsewhere": { loopback: false, isPrivate: false, tokens: true },
  private: { loopback: true, isPrivate: true, tokens: true },
} as const;
type Mode = keyof typeof MODES;

/** What the answer must be: `0` is let in, whatever the route says then. */
function expected(rule: RouteRule, mode: Mode, caller: Caller): number {
  if (rule.scopes.length === 0 || mode === "open") return 0;
  const asks = rule.changes || mode === "private";
  if (caller.header === undefined) return !asks ? 0 : mode === "closed" ? 403 : 401;
  if (mode === "closed" || caller.scopes === undefined) return 401;
  const suffices = caller.scopes.includes("admin") ||
    rule.scopes.some((scope) => caller.scopes!.includes(scope));
  if (asks && !suffices) return 403;
  // Every request here that speaks for a site speaks for paris.
  return rule.site !== undefined && caller.site !== undefined && caller.site !== "paris" ? 403 : 0;
}

/** The node, and what was asked of it. */
function watchedNode(node: Node): { node: Node; touched: Set<PropertyKey> } {
  const touched = new Set<PropertyKey>();
  const proxy = new Proxy(node, {
    get(target, key): unknown {
      touched.add(key);
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { node: proxy, touched };
}

/** What state headers are made of: an answer of a public server has them, refusals too. */
const STATE = new Set<PropertyKey>(["name", "chain", "volumeIfAny", "upstream", "clock"]);

test("every route is in the table, and lets in or refuses every kind of caller as it says", async () => {
  using file = makeTokenFile(
    Object.values(CALLERS).flatMap(({ header, scopes, site }) =>
      scopes === undefined ? [] : [{ token: header!.slice("Bearer ".length), scopes, site }]
    ),
  );
  let checked = 0;
  for (const mode of Object.keys(MODES) as Mode[]) {
    await using fixture = await makeNode();
    const june3 = await fixture.publish("june3", { a: "one" });
    const { node, touched } = watchedNode(fixture.node);
    const { loopback, isPrivate, tokens } = MODES[mode];
    const known: Tokens = tokens ? { file: openTokenFile(file.path, { log: () => {} }) } : {};
    const app = createApp(node, {
      access: new Access({ tokens: known, loopback, isPrivate }),
      traffic: new Traffic(),
      version: "test",
      onShutdown: () => () => {},
    }, () => {});
    const routes = app.routes.map(({ method, path }) => `${method} ${path}`)
      .filter((route) => route !== MIDDLEWARE);
    assertEquals([...routes].sort(), Object.keys(ROUTE_TABLE).sort());
    for (const route of routes) {
      const [method, pattern] = route.split(" ");
      const path = pattern.replace("*", "a").replace(":name", "paris").replace(":ref", "june3")
        .replace(":volume", fixture.volume.volumeId).replace(":base", "full").replace(":top", june3)
        .replace(":pointer", "master");
      const query = ROUTE_TABLE[route].site === "query" ? "?site=paris" : "";
      for (const [name, caller] of Object.entries(CALLERS)) {
        for (const sent of method === "GET" ? ["GET", "HEAD"] : [method]) {
          touched.clear();
          const response = await app.fetch(
            new Request(`http://localhost${path}${query}`, {
              method: sent,
              headers: caller.header === undefined ? {} : { authorization: caller.header },
              ...(sent === "GET" || sent === "HEAD" ? {} : { body: "x" }),
            }),
          );
          await response.body?.cancel();
          const refused = [401, 403].includes(response.status) ? response.status : 0;
          const what = `${mode}: ${sent} ${path}${query} by ${name}`;
          assertEquals(refused, expected(ROUTE_TABLE[route], mode, caller), what);
          if (refused !== 0) {
            const allowed = isPrivate ? new Set<PropertyKey>() : STATE;
            assertEquals([...touched].filter((key) => !allowed.has(key)), [], what);
            assertEquals(
              response.headers.has("www-authenticate"),
              refused === 401 || (
                caller.scopes !== undefined && !/in the name of/.test(
                  decodeURIComponent(response.headers.get("volcast-problem-title") ?? ""),
                )
              ),
              what,
            );
          } else if (isPrivate && caller.scopes === undefined) {
            // Health: whether it is well is all that a stranger hears of a private server.
            assert(!response.headers.has("volcast-snapshot"), what);
          }
          checked++;
        }
      }
    }
  }
  assert(checked > 2000, String(checked));
});

test("the table itself: what changes is never open, and only health always is", () => {
  for (const [route, { scopes, changes }] of Object.entries(ROUTE_TABLE)) {
    assertEquals(changes, !route.startsWith("GET "), route);
    assertEquals(scopes.length === 0, /^GET \/(healthz|readyz)$/.test(route), route);
  }
});

test("a route that is not in the table is refused to everybody", async () => {
  await using fixture = await makeNode();
  const app = createApp(fixture.node, {
    access: new Access({ tokens: {}, loopback: true }),
    traffic: new Traffic(),
    version: "test",
    onShutdown: () => () => {},
  }, () => {});
  let ran = 0;
  app.get("/forgotten", (c) => c.text(`${++ran}`));
  app.all("/forgotten/all", (c) => c.text(`${++ran}`));
  for (const path of ["/forgotten", "/forgotten/all"]) {
    assertEquals((await app.request(path)).status, 403, path);
  }
  assertEquals((await app.request("/forgotten/all", { method: "POST" })).status, 403);
  assertEquals((await app.request("/unknown", { method: "POST" })).status, 404);
  assertEquals(ran, 0);
});

test("a site's token is of that site, however the request writes the name", async () => {
  await using origin = await makeNode({
    tokens: { sites: new Map([["paris", "p"], ["rome", "r"]]) },
  });
  const june3 = await origin.publish("june3", { a: "one" });
  const headers = { authorization: "Bearer p" };
  const put = async (path: string) =>
    (await origin.get(path, { method: "PUT", headers, body: `{"snapshot":"${june3}"}` })).status;
  assertEquals(await put("/sites/paris"), 200);
  assertEquals(await put("/sites/p%61ris"), 200);
  for (
    const path of [
      "/sites/rome",
      "/sites/r%6fme",
      "/sites/r%256fme",
      "/sites/%ff",
      "/sites/paris%2frome",
    ]
  ) {
    assertEquals(await put(path), 403, path);
  }
  assertEquals(Object.keys(origin.volume.local.sites), ["paris"]);
  for (
    const [query, status] of [
      ["", 200],
      ["site=paris", 200],
      ["site=rome", 403],
      ["s%69te=rome", 403],
      ["site=paris&site=rome", 403],
      ["site=rome&site=paris", 403],
    ] as const
  ) {
    const response = await origin.get(`/replicate?${query}`, { method: "HEAD", headers });
    assertEquals(response.status, status, query);
  }
});

test("a site's name is compared as the route reads it, with what a URL writes in its own way", async () => {
  await using origin = await makeNode({ tokens: { sites: new Map([["a:b@c", "p"]]) } });
  const june3 = await origin.publish("june3", { a: "one" });
  const put = async (name: string) =>
    (await origin.get(`/sites/${name}`, {
      method: "PUT",
      headers: { authorization: "Bearer p" },
      body: `{"snapshot":"${june3}"}`,
    })).status;
  assertEquals([await put("a:b@c"), await put(encodeURIComponent("a:b@c"))], [200, 200]);
  assertEquals([await put("a%3Ab"), await put("a%253Ab@c")], [403, 403]);
});

test("events end with the token that they were asked for with", async () => {
  using file = makeTokenFile([{ token: "one", scopes: ["read"] }, {
    token: "two",
    scopes: ["read"],
  }]);
  await using fixture = await makeNode();
  await fixture.publish("june3", { a: "one" });
  const app = createApp(fixture.node, {
    access: new Access({
      tokens: { file: openTokenFile(file.path, { log: () => {}, everyMs: 0 }) },
      loopback: true,
      isPrivate: true,
    }),
    traffic: new Traffic(),
    version: "test",
    onShutdown: () => () => {},
  }, () => {});
  const listen = async (token: string) => {
    const headers = { authorization: `Bearer ${token}` };
    const response = await app.request("/events", { headers });
    return response.body!.pipeThrough(new TextDecoderStream()).getReader();
  };
  const [one, two] = [await listen("one"), await listen("two")];
  for (const reader of [one, two]) assertEquals((await reader.read()).value, ": volcast\n\n");
  file.write(tokenText([{ token: "two", scopes: ["read"] }]));
  fixture.node.announceMaster();
  assertEquals((await one.read()).done, true);
  assertStringIncludes((await two.read()).value!, "event: master");
  await two.cancel();
});

test("a refusal names the scope that is needed and how to give it, and never the token", async () => {
  using file = makeTokenFile([{ token: "secret-of-ci", scopes: ["read"], name: "ci" }]);
  await using origin = await makeNode({
    tokens: { file: openTokenFile(file.path, { log: () => {} }) },
  });
  const post = (headers: Record<string, string>) =>
    origin.get("/publish?as=x", { method: "POST", headers, body: "x" });
  const without = await post({});
  assertEquals(without.headers.get("www-authenticate"), 'Bearer realm="volcast"');
  const unknown = await post({ authorization: "Bearer secret-of-ci2" });
  assertEquals(
    [unknown.status, unknown.headers.get("www-authenticate")],
    [401, 'Bearer realm="volcast", error="invalid_token"'],
  );
  const known = await post({ authorization: "Bearer secret-of-ci" });
  assertEquals(
    [known.status, known.headers.get("www-authenticate")],
    [403, 'Bearer realm="volcast", error="insufficient_scope", scope="write"'],
  );
  const all = [without, unknown, known];
  const texts = all.map((response) => JSON.stringify([...response.headers]));
  const problem = await json(known.clone());
  assertEquals(problem.scopes, ["write"]);
  assertEquals(
    problem.title,
    "Cannot POST /publish: it needs the scope 'write', the token 'ci' has 'read'",
  );
  for (const response of all) texts.push(await response.text());
  texts.push(...origin.log);
  assert(!texts.join().includes("secret-of-ci"), texts.join("\n"));
});
