// Images by expression, and copies that keep history, over HTTP.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { imageOf, imageOfText, reachedFrom, replicaWith } from "../helpers/replicas.ts";
import { bytesOf, sourceOf } from "../helpers/streams.ts";
import { type Fixture, json, makeNode } from "./helpers.ts";

const identity = { headers: { "accept-encoding": "identity" } };

async function published(count: number): Promise<Fixture> {
  const origin = await makeNode();
  for (let i = 1; i <= count; i++) {
    const random = crypto.getRandomValues(new Uint8Array(20_000));
    await origin.publish(`june${i}`, { [`file${i}`]: random, same: "x".repeat(50_000), i: `${i}` });
  }
  return origin;
}

async function body(response: Response): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await response.arrayBuffer());
}

const query = (select: string) => `/image?${new URLSearchParams({ select })}`;

Deno.test("image answers any expression, with a tag, ranges and a name for ever", async () => {
  await using origin = await published(5);
  for (
    const [select, kind] of [
      ["june5 + june4 - june3", "increment"],
      ["june3 + june2 + june1", "full"],
      ["june5 - (june2 & june3)", "increment"],
      ["june5 & june3", "fragment"],
      ["master + june2 - june1", "increment"],
    ]
  ) {
    const wanted = await bytesOf(imageOfText(origin.volume, select));
    const response = await origin.get(query(select), identity);
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("volcast-image"), kind);
    assertEquals(Number(response.headers.get("content-length")), wanted.length);
    assertEquals(await body(response), wanted);
    const etag = response.headers.get("etag")!;
    assertEquals(etag, `"${imageOfText(origin.volume, select).etag}"`);
    const known = await origin.get(query(select), { headers: { "if-none-match": etag } });
    assertEquals(known.status, 304);
    // The canonical name: the same bytes, for ever.
    const path = response.headers.get("content-location")!;
    assertMatch(path, /^\/images\/[0-9a-f]{32}\?select=/);
    const head = await origin.get(path, { method: "HEAD" });
    assertEquals([head.status, head.headers.get("etag")], [200, etag]);
    assertStringIncludes(head.headers.get("cache-control")!, "immutable");
    const part = await origin.get(path, {
      headers: { range: "bytes=1000-5000", "if-range": etag },
    });
    assertEquals(part.status, 206);
    assertEquals(await body(part), wanted.subarray(1000, 5001));
  }
  // What is 'top - base' in effect has the name of that.
  const plain = await origin.get(query("(june5 + june5) - june3"), { method: "HEAD" });
  const [top, base] = ["june5", "june3"].map((name) => origin.volume.resolve(name).id);
  assertEquals(
    plain.headers.get("content-location"),
    `/images/${origin.volume.volumeId}/${base}/${top}`,
  );
  assertEquals(plain.headers.get("etag"), `"${imageOf(origin.volume, top, base).etag}"`);
});

Deno.test("a name that means another snapshot now gives another image, and no snapshot none", async () => {
  await using origin = await published(3);
  const asked = query("june3 + june2 - june1");
  const before = await origin.get(asked, { method: "HEAD" });
  const canonical = before.headers.get("content-location")!;
  await origin.get("/snapshots/june2", { method: "DELETE" });
  assertEquals((await origin.get(asked, { method: "HEAD" })).status, 404);
  assertEquals((await origin.get(canonical, { method: "HEAD" })).status, 404);
  const again = { method: "POST", body: JSON.stringify({ name: "june2" }) };
  assertEquals((await origin.get("/snapshots", again)).status, 201);
  const after = await origin.get(asked, { method: "HEAD" });
  assert(after.headers.get("etag") !== before.headers.get("etag"));
  assertEquals(after.headers.get("volcast-top"), origin.volume.resolve("june2").id);
  assertEquals((await origin.get(canonical, { method: "HEAD" })).status, 404);
});

Deno.test("images by name refuse what is no expression of ids, and what is not here", async () => {
  await using origin = await published(2);
  const { volumeId } = origin.volume;
  const cases: [path: string, status: number, reason: string][] = [
    [`/images/${volumeId}?select=june1+%2B+june2`, 400, "'june1'"],
    [`/images/${"0".repeat(32)}?select=3-00000001`, 404, "this is"],
    [`/images/${volumeId}?select=3-00000001`, 404, "3-00000001"],
    [`/images/${volumeId}`, 400, "select"],
    [`/images/${volumeId}?select=a&x=y`, 400, "x"],
    ["/image", 400, "neither 'select' nor 'snapshots'"],
    ["/image?select=june1&snapshots=all", 400, "both 'select' and 'snapshots'"],
    ["/image?selekt=june1", 400, "selekt"],
    ["/image?snapshots=june1,,june2", 400, "snapshots"],
    ["/image?snapshots=june1,june9", 404, "june9"],
    ["/plan", 400, "neither 'select' nor 'delete'"],
    ["/plan?select=june1&delete=june1", 400, "both"],
    ["/plan?delete=june9", 404, "june9"],
    ["/plan?delete=active", 400, "active"],
    [query("june1 - (june2"), 400, "parenthesis"],
  ];
  for (const [path, status, reason] of cases) {
    const response = await origin.get(path);
    assertEquals(response.status, status, path);
    assertStringIncludes(JSON.stringify(await json(response)), reason, path);
  }
});

Deno.test("plan counts expressions, and what deleting frees", async () => {
  await using origin = await published(4);
  const plan = await json(await origin.get("/plan?select=june4+%2B+june3+-+june2"));
  const image = imageOfText(origin.volume, "june4 + june3 - june2");
  assertEquals([plan.blocks, plan.bytes], [image.header.blockCount, image.byteCount]);
  assertEquals([plan.restores, plan.bases, plan.needs], [["june3", "june4"], ["june2"], "one"]);
  const { volume } = origin;
  const set = (name: string) => reachedFrom(volume, volume.resolve(name));
  const kept = set("june3").union(set("june4")).union(set("active"));
  assertEquals(await json(await origin.get("/plan?delete=june1,june2")), {
    snapshots: ["june1", "june2"],
    blocks: set("june1").union(set("june2")).difference(kept).size,
    bytes: set("june1").union(set("june2")).difference(kept).size * 4096,
  });
});

Deno.test("replicate sends snapshots along, under a name that means the same at every node", async () => {
  await using origin = await published(6);
  const { volume } = origin;
  const head = (path: string, node = origin) => node.get(path, { method: "HEAD" });
  const all = await head("/replicate?snapshots=all");
  const [first, , , , fifth, top] = volume.snapshots();
  assertEquals(all.headers.get("volcast-snapshots"), `${first.cp}..${fifth.cp}`);
  assertEquals(
    all.headers.get("content-location"),
    `/images/${volume.volumeId}/full/${top.id}?snapshots=${first.cp}..${fifth.cp}`,
  );
  const bytes = await body(await origin.get("/replicate?snapshots=all", identity));
  assertEquals(await body(await origin.get("/image?snapshots=all", identity)), bytes);
  const store = new MemoryStore(volume.zone.capacity);
  const copy = Volume.incoming(store, volume.volumeId);
  await applyImage(copy, sourceOf(bytes));
  assertEquals(copy.snapshots().map(({ name }) => name), [
    "june1",
    "june2",
    "june3",
    "june4",
    "june5",
    "june6",
  ]);
  await using site = await makeNode({ volume: copy });
  const path = all.headers.get("content-location")!;
  const half = Math.floor(bytes.length / 2);
  const rest = await site.get(path, {
    headers: { range: `bytes=${half}-`, "if-range": all.headers.get("etag")! },
  });
  assertEquals(rest.status, 206);
  assertEquals(await body(rest), bytes.subarray(half));

  // Since a base: what is newer than it. A list: those alone.
  const since = await head("/replicate?since=june3&snapshots=all");
  assertEquals(since.headers.get("volcast-base"), volume.resolve("june3").id);
  assertEquals(
    since.headers.get("volcast-snapshots"),
    `${volume.resolve("june4").cp}..${fifth.cp}`,
  );
  const some = await head("/replicate?since=june1&snapshots=june5,june3");
  assertEquals(
    some.headers.get("volcast-snapshots"),
    `${volume.resolve("june3").cp},${fifth.cp}`,
  );
  for (const list of ["june2", "june3,june5"]) {
    const refused = await origin.get(`/replicate?since=june3&snapshots=${list}`);
    assertEquals(refused.status, 400);
    assertStringIncludes(String((await json(refused)).title), "not newer than the base 'june3'");
  }
  // With nothing between, it is the plain image under the plain name.
  const plain = await head("/replicate?since=june5&snapshots=all");
  assertEquals(plain.headers.get("volcast-snapshots"), null);
  assertEquals(
    plain.headers.get("content-location"),
    `/images/${volume.volumeId}/${fifth.id}/${top.id}`,
  );
});

Deno.test("only snapshots that are whole at a parent count, and a name of others is not found there", async () => {
  await using origin = await published(6);
  const { volume } = origin;
  const partial = await replicaWith(volume, ["june2", "june5", "june6"]);
  await using site = await makeNode({ volume: partial.volume });
  const head = async (node: Fixture, path: string) =>
    (await node.get(path, { method: "HEAD" })).headers;
  const cp = (name: string) => volume.resolve(name).cp;
  const some = await head(site, "/replicate?snapshots=all");
  assertEquals(some.get("volcast-snapshots"), `${cp("june2")},${cp("june5")}`);
  // The origin has those too, and sends the same for that name.
  const path = some.get("content-location")!;
  assertEquals((await head(origin, path)).get("etag"), some.get("etag"));
  assertEquals(
    await body(await origin.get(path, identity)),
    await body(await site.get(path, identity)),
  );
  // The name of more is not found, and is not answered with less.
  const all = (await head(origin, "/replicate?snapshots=all")).get("content-location")!;
  const missing = await site.get(all);
  assertEquals(missing.status, 404);
  assertStringIncludes(String((await json(missing)).title), volume.resolve("june1").id);
  const base = `/images/${volume.volumeId}/full/${volume.resolve("june6").id}`;
  for (const ranges of ["900..950", "1", `${cp("june5")},${cp("june2")}`, "5..2", "x", "1..2..3"]) {
    const response = await origin.get(`${base}?snapshots=${ranges}`);
    assertEquals(response.status, 400, ranges);
    await response.body?.cancel();
  }
  assert(volume.leases.size === 0);
});
