import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { json, makeNode } from "./helpers.ts";

const shadow = { method: "PATCH", body: JSON.stringify({ kind: "shadow" }) };
const confirm = (snapshot: string, needs: string[] = []) => ({
  method: "PUT",
  body: JSON.stringify({ snapshot, needs }),
});

Deno.test("PATCH makes a shadow, which is listed, looked at and deleted, and not read", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one", b: new Uint8Array(50_000).fill(1) });
  await origin.publish("june5", { a: "two", b: new Uint8Array(50_000).fill(2) });
  const made = await origin.get("/snapshots/june3", shadow);
  assertEquals(made.status, 200);
  const { kind, id, name, releasedBlocks } = await json(made);
  assertEquals([kind, id, name], ["shadow", june3, "june3"]);
  assert(Number(releasedBlocks) >= 13, `${releasedBlocks} blocks`);
  const { snapshots } = await json(await origin.get("/snapshots")) as {
    snapshots: { name: string; kind: string }[];
  };
  assertEquals(snapshots.map((one) => [one.name, one.kind]), [
    ["june3", "shadow"],
    ["june5", "regular"],
  ]);
  assertEquals((await json(await origin.get(`/snapshots/${june3}`))).kind, "shadow");
  for (const path of ["/files/a?at=june3", "/plan?select=june3", `/archive?at=${june3}`]) {
    const refused = await origin.get(path);
    assertEquals(refused.status, 400, path);
    const { title, hint } = await json(refused);
    assertStringIncludes(String(title), "is a shadow: its blocks may be used again");
    assertStringIncludes(String(hint), "base of an image");
  }
  assertEquals((await origin.get("/snapshots/june3", { method: "DELETE" })).status, 204);
  assertEquals((await origin.get("/snapshots/june3")).status, 404);
});

Deno.test("PATCH takes nothing but the kind shadow, of a snapshot that no pointer names", async () => {
  await using origin = await makeNode();
  await origin.publish("june3", { a: "one" });
  const patch = (ref: string, body: unknown) =>
    origin.get(`/snapshots/${ref}`, { method: "PATCH", body: JSON.stringify(body) });
  for (const body of [{}, { kind: "regular" }, { kind: "shadow", name: "x" }, []]) {
    assertEquals((await patch("june3", body)).status, 400, JSON.stringify(body));
  }
  assertEquals((await patch("june3", { kind: "shadow" })).status, 409);
  assertEquals((await patch("none", { kind: "shadow" })).status, 404);
  assertEquals((await patch("active", { kind: "shadow" })).status, 404);
  assertEquals(origin.volume.shadows().length, 0);
});

Deno.test("making a shadow needs a token", async () => {
  await using origin = await makeNode({ tokens: { admin: "root" }, loopback: false });
  await origin.publish("june3", { a: "one" });
  await origin.publish("june5", { a: "two" });
  assertEquals((await origin.get("/snapshots/june3", shadow)).status, 401);
  const headers = { authorization: "Bearer root" };
  assertEquals((await origin.get("/snapshots/june3", { ...shadow, headers })).status, 200);
});

Deno.test("a site may stand on a shadow, and gets an increment that names the shadow's state", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  const june5 = await origin.publish("june5", { a: "two" });
  await origin.get("/snapshots/june3", shadow);
  const put = await origin.get("/sites/paris", confirm(june3, [june3, "77-00000000"]));
  assertEquals(put.status, 200);
  const site = await json(put);
  assertEquals([site.snapshot, site.snapshotName, site.kind], [june3, "june3", "shadow"]);
  assertEquals([site.needs, site.pinnedBytes], [[june3], 0]);
  for (const since of ["master", june3]) {
    const plan = await origin.get(`/replicate?since=${since}&site=paris`, { method: "HEAD" });
    assertEquals(plan.status, 200);
    const location = plan.headers.get("content-location");
    // june5 was taken before june3 became a shadow: the oldest root that knows it so is the last one.
    const state = origin.volume.current.id;
    assertEquals(location, `/images/${origin.volume.volumeId}/${june3}~${state}/${june5}`);
    const image = await origin.get(location!);
    assertEquals(image.status, 200);
    const { byteLength } = await image.arrayBuffer();
    assertEquals(byteLength, Number(plan.headers.get("content-length")));
  }
  const june9 = await origin.publish("june9", { a: "three" });
  const next = await origin.get(`/replicate?since=master&site=paris`, { method: "HEAD" });
  assertEquals(
    next.headers.get("content-location"),
    `/images/${origin.volume.volumeId}/${june3}~${june9}/${june9}`,
  );
  // The same consistency point with another root is another history still.
  const other = `${june3.split("-")[0]}-00000000`;
  assertEquals((await origin.get(`/replicate?since=${other}`, { method: "HEAD" })).status, 409);
});

Deno.test("/sites, /status and /metrics say what each site keeps", async () => {
  await using origin = await makeNode();
  const fill = (value: number) => ({ b: new Uint8Array(100 * 4096).fill(value) });
  const first = await origin.publish("first", fill(1));
  const second = await origin.publish("second", fill(2));
  await origin.publish("third", fill(3));
  await origin.get("/sites/paris", confirm(first));
  await origin.get("/sites/rome", confirm(second, [first]));
  await origin.get("/sites/oslo", confirm(second));
  origin.node.pinBudgetBytes = 12_345_678;
  const { sites } = await json(await origin.get("/sites")) as {
    sites: { name: string; pinnedBlocks: number; pinnedBytes: number }[];
  };
  const bytes = Object.fromEntries(sites.map((site) => [site.name, site.pinnedBytes]));
  for (const { pinnedBlocks, pinnedBytes } of sites) assertEquals(pinnedBytes, pinnedBlocks * 4096);
  assert(bytes.paris >= 100 * 4096 && bytes.paris < 120 * 4096, `${bytes.paris} bytes`);
  assert(bytes.rome >= 200 * 4096 && bytes.rome < 240 * 4096, `${bytes.rome} bytes`);
  // What is common to both snapshots neither keeps alone, and rome keeps it by both.
  assert(bytes.rome >= bytes.paris + bytes.oslo);
  const status = await json(await origin.get("/status"));
  assertEquals([status.pinnedBytes, status.pinBudgetBytes], [bytes, 12_345_678]);
  const metrics = await (await origin.get("/metrics")).text();
  assertStringIncludes(metrics, `volcast_site_pinned_bytes{site="rome"} ${bytes.rome}\n`);
  assertStringIncludes(metrics, "volcast_pin_budget_bytes 12345678\n");
  assertMatch(metrics, /^volcast_shadows 0$/m);
  await origin.get("/snapshots/first", shadow);
  const after = await json(await origin.get("/status")) as { pinnedBytes: Record<string, number> };
  assertEquals(after.pinnedBytes.paris, 0);
  assertEquals(after.pinnedBytes.rome, after.pinnedBytes.oslo);
});

Deno.test("a node tells whoever watches it of each request that changed something", async () => {
  await using origin = await makeNode();
  const june3 = await origin.publish("june3", { a: "one" });
  let changes = 0;
  const forget = origin.node.onChange(() => changes++);
  const sent = async (path: string, init?: RequestInit) => {
    const before = changes;
    await (await origin.get(path, init)).body?.cancel();
    return changes - before;
  };
  const post = { method: "POST", body: JSON.stringify({ name: "june4" }) };
  assertEquals(await sent("/snapshots", post), 1);
  assertEquals(await sent("/snapshots", post), 0, "it is there already");
  assertEquals(await sent("/sites/paris", confirm(june3)), 1);
  assertEquals(await sent("/sites"), 0);
  assertEquals(await sent("/snapshots/june4", shadow), 1);
  assertEquals(await sent("/sites/paris", { method: "DELETE" }), 1);
  forget();
  assertEquals(await sent("/snapshots/june4", { method: "DELETE" }), 0);
});
