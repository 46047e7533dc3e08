import { assert, assertEquals } from "@std/assert";
import { Scrub } from "../../src/replication/mod.ts";
import { test } from "../helpers/strict.ts";
import { json, makeNode } from "./helpers.ts";

test("POST /scrub begins a pass, and status, metrics and events tell of it", async () => {
  await using origin = await makeNode();
  await origin.publish("june1", { "index.html": "hello" });
  const { node } = origin;
  const post = () => origin.get("/scrub", { method: "POST" });
  const refused = await post();
  assertEquals(refused.status, 400);
  assert((await refused.text()).includes("without --scrub"));
  assertEquals((await json(await origin.get("/status"))).scrub, null);
  assert(!(await (await origin.get("/metrics")).text()).includes("volcast_scrub"));

  node.scrub = new Scrub(node, { bytesPerSecond: 2 ** 40, relatives: [], log: () => {} });
  const done = Promise.withResolvers<void>();
  node.events.subscribe((event) => {
    if (event.type === "scrub" && event.result === "complete") done.resolve();
  });
  const stopping = new AbortController();
  const running = node.scrub.run(stopping.signal);
  assertEquals((await post()).status, 202);
  await done.promise;
  stopping.abort();
  await running;
  const status = (await json(await origin.get("/status"))).scrub as Record<string, unknown>;
  assertEquals([status.badBlocks, status.healedBlocks, status.affected], [0, 0, []]);
  const checked = status.checkedBlocks as number;
  assert(checked >= origin.volume.current.blockCount, `${checked} blocks`);
  const metrics = await (await origin.get("/metrics")).text();
  assert(metrics.includes(`\nvolcast_scrub_checked_blocks_total ${checked}\n`), metrics);
  assert(metrics.includes("\nvolcast_scrub_bad_blocks 0\n"), metrics);
});

test("POST /scrub needs the token", async () => {
  await using origin = await makeNode({ tokens: { admin: "secret" } });
  assertEquals((await origin.get("/scrub", { method: "POST" })).status, 401);
});
