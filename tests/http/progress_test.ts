// How far an image is: told at the beginning and the end, and in between now and then.

import { assert, assertEquals } from "@std/assert";
import { HOST_CLOCK } from "../../src/core/mod.ts";
import { HttpPeer } from "../../src/http/mod.ts";
import { Node, type NodeEvent, Puller } from "../../src/replication/mod.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { makeNode } from "./helpers.ts";
import { serveNode } from "./served.ts";

/** At least so many, a MiB each at most. */
const FRAMES = 12;
const BYTES = FRAMES * 2 ** 20;

test("sites below hear of an image's progress now and then, not with every frame", async () => {
  await using origin = await makeNode({ blocks: 16_384 });
  const publish = (name: string) => origin.publish(name, { noise: new Random(1).bytes(BYTES) });
  await publish("june3");
  const server = serveNode(origin.node);
  const directory = await Deno.makeTempDir({ prefix: "volcast-progress-" });
  // While the first image comes no time passes; each look at the clock takes a second with the next.
  let stepMs = 0;
  let now = 0;
  const clock = { ...HOST_CLOCK, elapsed: () => now += stepMs };
  const site = new Node({ name: "paris", path: `${directory}/paris.vol`, clock });
  const told: Extract<NodeEvent, { type: "progress" }>[] = [];
  site.events.subscribe((event) => void (event.type === "progress" && told.push(event)));
  const parents = [new HttpPeer(server.url)];
  const pull = async () => {
    told.length = 0;
    await new Puller(site, { parents, drainMs: 0 }).pull();
    return told.map(({ done, total }) => done / total);
  };
  try {
    const [first, ...rest] = await pull();
    assert(first < 1);
    assertEquals(new Set(rest), new Set([1]));
    assert(rest.length <= 2, `${told.length} events`);
    await publish("june5");
    stepMs = 1000;
    assert((await pull()).length > FRAMES, `${told.length} events`);
  } finally {
    await site.volumeIfAny?.close();
    await Deno.remove(directory, { recursive: true });
    await server.stop();
  }
});
