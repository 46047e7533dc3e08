import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { HttpPeer } from "../../src/http/mod.ts";
import { watched } from "../../src/http/patience.ts";
import { makeNode } from "./helpers.ts";
import { serveNode } from "./served.ts";

Deno.test("watched ends a stream on which nothing comes as soon as its signal fires", async () => {
  let cancelled = false;
  const silent = new ReadableStream<Uint8Array>({ cancel: () => void (cancelled = true) });
  const stopping = new AbortController();
  const reader = watched(silent, "nobody", stopping.signal).getReader();
  const pending = reader.read();
  stopping.abort(new Error("stop"));
  await assertRejects(() => pending, Error, "stop");
  assert(cancelled);
  const late = watched(new ReadableStream(), "nobody", stopping.signal).getReader();
  await assertRejects(() => late.read(), Error, "stop");
});

Deno.test("HttpPeer plans, opens, confirms, hears events, and lets go when told", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const server = serveNode(origin.node);
  const peer = new HttpPeer(server.url);
  const plan = await peer.plan({ site: "paris" });
  assertEquals([plan.top, plan.topName, plan.base], [june3, "june3", undefined]);
  assertEquals(plan.chain, ["origin"]);
  const tail = await new Response(await peer.open(plan, plan.byteCount - 64)).arrayBuffer();
  assertEquals(tail.byteLength, 64);
  await peer.confirm("paris", { snapshot: june3, needs: [] });
  assertEquals(origin.volume.local.sites.paris.snapshot, june3);
  const refused = await assertRejects(
    () => peer.plan({ since: june3.replace(/.$/, (c) => c === "0" ? "1" : "0"), site: "paris" }),
    VolcastError,
  );
  assertEquals(refused.kind, "diverged");
  assertStringIncludes(
    refused.hint,
    "volcast resync",
    "an answer to HEAD has no body to say it in",
  );

  const stopping = new AbortController();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of peer.events(stopping.signal)) heard.push(event.type);
  })();
  const ended = assertRejects(() => listening);
  while (heard.length < 2) {
    origin.node.announceMaster();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assertEquals(heard.slice(0, 2), ["connected", "master"]);
  stopping.abort();
  await ended;
  await server.stop();
});
