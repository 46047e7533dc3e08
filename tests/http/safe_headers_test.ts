import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { INO } from "../../src/format/mod.ts";
import { startServer } from "../../src/http/mod.ts";
import { setPrivate } from "../../src/http/safe_headers.ts";
import { rawHead } from "../helpers/raw_http.ts";
import { type Fixture, makeNode } from "./helpers.ts";

const PAGE = "<script>fetch('/snapshots', { method: 'POST' })</script>";

/** A real server with its two listeners; with a token, a private one. */
async function serving(
  use: (at: { url: string; www: string; origin: Fixture }) => Promise<void>,
  token?: string,
): Promise<void> {
  await using origin = await makeNode();
  const listen = { hostname: "127.0.0.1", port: 0 };
  const server = startServer(origin.node, {
    listen,
    www: listen,
    tokens: token === undefined ? {} : { admin: token },
    isPrivate: token !== undefined,
    version: "test",
    log: (text) => origin.log.push(text),
  });
  try {
    await use({ url: server.url, www: server.wwwUrl!, origin });
  } finally {
    await server.stop();
  }
}

async function headersOf(url: string, init?: RequestInit): Promise<Headers> {
  const response = await fetch(url, { redirect: "manual", ...init });
  await response.body?.cancel();
  return response.headers;
}

Deno.test("no answer lets a browser make more of it than it is, whatever its status", () =>
  serving(async ({ url, www, origin }) => {
    await origin.publish("june3", { "page.html": PAGE, "sub/a.svg": "<svg/>" });
    const paths = ["/", "/status", "/snapshots", "/nothing", "/metrics", "/events", "/replicate"];
    for (const path of [...paths, "/files", "/%66iles/page.html", "/image?select=june3"]) {
      const headers = await headersOf(url + path);
      assertEquals(headers.get("x-content-type-options"), "nosniff", path);
      assertEquals(headers.get("cross-origin-resource-policy"), "same-origin", path);
      assertEquals(headers.get("referrer-policy"), "no-referrer", path);
      assertStringIncludes(headers.get("content-security-policy")!, "frame-ancestors 'none'", path);
      for (const name of ["server", "x-powered-by", "access-control-allow-origin"]) {
        assertEquals(headers.get(name), null, path);
      }
    }
    // What anybody wrote is shown, but acts for nobody: not in this server's name, and not on it.
    for (
      const path of [
        "/files/page.html",
        "/files/sub/a.svg",
        "/files/none",
        "/files/page.html?at=june3",
      ]
    ) {
      const headers = await headersOf(url + path);
      assertEquals(headers.get("content-security-policy"), "sandbox", path);
      assertEquals(headers.get("x-content-type-options"), "nosniff", path);
      // Its pictures come from another origin then, since a sandbox is one of its own.
      assertEquals(headers.get("cross-origin-resource-policy"), "cross-origin", path);
    }
    const listing = await headersOf(`${url}/files/`);
    assertStringIncludes(listing.get("content-security-policy")!, "default-src 'none'");
    // The content-only listener is a plain site.
    for (const path of ["/page.html", "/none", "/sub"]) {
      const headers = await headersOf(www + path);
      assertEquals(headers.get("content-security-policy"), null, path);
      assertEquals(headers.get("x-content-type-options"), "nosniff", path);
      assertEquals(headers.get("cross-origin-resource-policy"), "cross-origin", path);
    }
    const refused = await headersOf(`${www}/${"a".repeat(50_000)}`);
    assertEquals(refused.get("x-content-type-options"), "nosniff");
  }));

Deno.test("no name of a file gets out of its place in a header or a page", () =>
  serving(async ({ url, www, origin }) => {
    const names = [
      "a\r\nx-evil: 1",
      '"><script>alert(1)',
      "'onmouseover='x",
      "evil\u2028.html\r\n\r\n<b>",
      "javascript:alert(1)",
      "&lt;x",
      "\\\\evil.example",
    ];
    await origin.volume.exclusive((writer) => {
      for (const name of names) {
        const options = { type: "directory", permissions: 0o755 } as const;
        const directory = writer.fs.create(INO.root, name, options);
        writer.fs.create(directory, `${name}.${name}`, { type: "file" });
      }
      return writer.takeSnapshot("june3", { pointers: ["master"] });
    });
    const html = await (await fetch(`${url}/files/`)).text();
    const links = [...html.matchAll(/<a href="([^"]*)">([^<]*)<\/a>/g)];
    assertEquals(links.length, names.length);
    for (const [, href] of links) {
      assert(/^\.\/[\w%.~!*'()-]+\/$/.test(href), href);
      const { pathname } = new URL(href, `${url}/files/`);
      assert(pathname.startsWith("/files/"), pathname);
    }
    assert(!/<script|<b>|x-evil: 1\s*</.test(html.replace(/<style>.*<\/style>/s, "")));
    const inner = await (await fetch(`${url}/files/${encodeURIComponent(names[1])}/`)).text();
    assert(!inner.includes("<script"));
    for (const name of names) {
      const encoded = encodeURIComponent(name);
      for (const at of [`${url}/files/${encoded}`, `${www}/${encoded}`]) {
        const headers = await headersOf(at);
        assertEquals(headers.get("x-evil"), null);
        assertEquals(headers.get("location"), `${new URL(at).pathname}/`);
        const file = await headersOf(`${at}/${encoded}.${encoded}`);
        assertEquals([file.get("x-evil"), file.get("etag") !== null], [null, true], name);
      }
    }
  }));

Deno.test("no redirect leads to another host", () =>
  serving(async ({ url, www, origin }) => {
    await origin.publish("june3", { "evil.example/a": "1", "sub/a": "1" });
    const paths = [
      "//evil.example",
      "///evil.example",
      "/\\evil.example",
      "/%2Fevil.example",
      "/./evil.example",
      "//evil.example/../sub",
      "/sub",
      "http://evil.example/sub",
      "/sub?//evil",
      "/%5Cevil.example",
      "//evil.example/%2e%2e",
      "/evil.example//",
    ];
    for (const at of [url, www]) {
      for (const path of paths) {
        for (const prefix of at === url ? ["", "/files"] : [""]) {
          const target = path.startsWith("http")
            ? path.replace("/sub", `${prefix}/sub`)
            : prefix + path;
          const head = await rawHead(at, `GET ${target} HTTP/1.1\r\nhost: good.example\r\n\r\n`);
          const location = /^location: (.*)$/im.exec(head)?.[1].trim();
          if (location === undefined) continue;
          const { host } = new URL(location, "http://good.example/x/");
          assertEquals(host, "good.example", `${target}: ${location}`);
        }
      }
    }
    const moved = await rawHead(www, "GET //evil.example HTTP/1.1\r\nhost: good.example\r\n\r\n");
    assertStringIncludes(moved, "location: /evil.example/");
  }));

Deno.test("answers of a private server are for no shared cache, but what everybody may have", () =>
  serving(async ({ url, www, origin }) => {
    const id = await origin.publish("june3", { a: "hello" });
    const headers = { authorization: "Bearer secret1" };
    const image = `/images/${origin.volume.volumeId}/full/${id}`;
    for (const path of ["/files/a", "/files/", image, "/replicate", "/status", "/archive"]) {
      const answer = await headersOf(url + path, { headers });
      const said = answer.get("cache-control")!;
      assert(/^(private\b|no-store$)/.test(said), `${path}: ${said}`);
      assert(!said.includes("public"), path);
      assertStringIncludes(answer.get("vary")!, "Authorization", path);
      assertEquals(answer.get("cross-origin-resource-policy"), "same-origin", path);
      assertEquals((await headersOf(url + path)).get("cache-control"), "no-store", path);
    }
    assertEquals((await headersOf(`${www}/a`)).get("cache-control"), "no-cache");
  }, "secret1"));

Deno.test("setPrivate keeps an answer from shared caches and from other origins", () => {
  const said = (cacheControl: string | undefined) => {
    const headers = new Headers(
      cacheControl === undefined ? {} : { "cache-control": cacheControl },
    );
    setPrivate(headers);
    assertEquals(headers.get("cross-origin-resource-policy"), "same-origin");
    assertStringIncludes(headers.get("vary")!, "Authorization");
    return headers.get("cache-control");
  };
  assertEquals(said(undefined), "no-store");
  assertEquals(said("no-store"), "no-store");
  assertEquals(said("no-cache, no-transform"), "private, no-cache, no-transform");
  const image = "public, max-age=31536000, immutable, no-transform";
  assertEquals(said(image), "private, max-age=31536000, immutable, no-transform");
});
