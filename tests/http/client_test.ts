import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { HttpPeer, nameOf, requestFrom } from "../../src/http/mod.ts";
import { test } from "../helpers/strict.ts";

const TOKEN = "volcast_the-secret";

/** A server that keeps what it was shown. */
function listening(
  answer: (request: Request) => Response,
): { url: string; shown: (string | null)[]; server: Deno.HttpServer<Deno.NetAddr> } {
  const shown: (string | null)[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    shown.push(request.headers.get("authorization"));
    return answer(request);
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, shown, server };
}

test("a token is not taken along to where a server redirects to", async () => {
  const other = listening(() => new Response("got it"));
  const here = listening((request) => {
    const { pathname } = new URL(request.url);
    const to = pathname === "/away" ? other.url : "";
    return pathname === "/end"
      ? new Response("here")
      : new Response(null, { status: 307, headers: { location: `${to}/end` } });
  });
  try {
    const server = { name: here.url, token: TOKEN };
    // These are no volcast servers.
    const anybody = { anybody: true };
    assertEquals(await (await requestFrom(server, "/near", anybody)).text(), "here");
    assertEquals(here.shown, [`Bearer ${TOKEN}`, `Bearer ${TOKEN}`]);
    assertEquals(await (await requestFrom(server, "/away", anybody)).text(), "got it");
    assertEquals(other.shown, [null]);
  } finally {
    await here.server.shutdown();
    await other.server.shutdown();
  }
});

test("a server that says back what it was shown does not bring it into messages", async () => {
  const { url, server } = listening((request) => {
    const echo = `You said: ${request.headers.get("authorization")}`;
    if (new URL(request.url).pathname === "/plain") return new Response(echo, { status: 500 });
    return new Response(
      request.method === "HEAD" ? null : JSON.stringify({ title: echo, kind: "io" }),
      {
        status: 500,
        headers: {
          "volcast-problem": "io",
          "volcast-problem-title": encodeURIComponent(echo),
          "volcast-problem-hint": encodeURIComponent(echo),
        },
      },
    );
  });
  try {
    for (const [path, method] of [["/plain", "GET"], ["/x", "GET"], ["/x", "HEAD"]] as const) {
      const error = await assertRejects(
        () => requestFrom({ name: url, token: TOKEN }, path, { method }),
        VolcastError,
        "You said",
      );
      assert(!(error.message + error.hint).includes(TOKEN), error.message);
    }
  } finally {
    await server.shutdown();
  }
});

test("a URL with a password is refused, and not shown", () => {
  for (const make of [nameOf, (url: string) => new HttpPeer(url)]) {
    const error = assertThrows(
      () => make("https://me:secret@a.example/"),
      VolcastError,
      "a.example",
    );
    assert(!error.message.includes("secret"), error.message);
  }
  assertEquals(nameOf("https://a.example//"), "https://a.example");
});
