/**
 * The short form of `deno task soak`: each thing that is done to a hierarchy happens once at least.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { soak } from "../soak/soak.ts";
import { has } from "./harness.ts";

const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? Math.floor(Math.random() * 2 ** 31));

Deno.test({
  name:
    `readers of five nodes get whole releases through kill -9, stalls and cut lines (seed ${SEED})`,
  ignore: !(await has("rsync")),
  async fn() {
    const report = await soak({ seed: SEED, forMs: 0, eventsEach: 1, pace: 0.2 });
    assertEquals(report.failures, []);
    assert(Object.values(report.events).every((count) => count > 0), "every event happened");
    assert(report.originKills > 0 && report.published > 0 && report.requests > 0);
  },
});
