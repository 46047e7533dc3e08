/**
 * The host's clock is set back and forth: what waits, waits as long as it meant to.
 */

import { assert, assertEquals } from "@std/assert";
import { pause } from "../../src/core/mod.ts";
import { BLOCK_SIZE } from "../../src/format/mod.ts";
import {
  keepMirrored,
  type MirrorResult,
  Node,
  type Rounds,
  Scrub,
} from "../../src/replication/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { json, makeNode } from "../http/helpers.ts";
import { test } from "../helpers/strict.ts";
import { until } from "../helpers/until.ts";

const YEAR_MS = 365 * 86_400_000;

/** Runs `work` while the clock can be set. */
async function withClock(work: (set: (offsetMs: number) => void) => Promise<void>): Promise<void> {
  const real = Date.now;
  let offset = 0;
  Date.now = () => real() + offset;
  try {
    await work((offsetMs) => offset = offsetMs);
  } finally {
    Date.now = real;
  }
}

const short = () => new Promise<void>((resolve) => setTimeout(resolve, 40));

for (const offset of [-YEAR_MS, 10 * YEAR_MS]) {
  const way = offset < 0 ? "back" : "forth";

  test(`a mirror goes on round by round when the clock is set ${way}`, async () => {
    await withClock(async (set) => {
      const stop = new AbortController();
      let rounds = 0;
      const mirror: Rounds = {
        round(): Promise<MirrorResult> {
          rounds++;
          set(offset);
          return Promise.resolve({ kind: "nothing", top: "", name: "" } as MirrorResult);
        },
        get status() {
          return { to: "there", aliveAt: performance.now(), phase: "idle" } as Rounds["status"];
        },
      };
      // The next one is due in a minute: none comes at once, and it is not put off by a year either.
      const waits = keepMirrored(mirror, { everyMs: 60_000, log: () => {} }, stop.signal);
      await short();
      assertEquals(rounds, 1);
      stop.abort();
      await waits;
      const again = new AbortController();
      rounds = 0;
      const goes = keepMirrored(mirror, { everyMs: 1, log: () => {} }, again.signal);
      await until("three rounds", () => rounds >= 3);
      again.abort();
      await goes;
    });
  });

  test(`readers who must go get the time they have when the clock is set ${way}`, async () => {
    await withClock(async (set) => {
      const volume = await Volume.create(new MemoryStore(300));
      const view = volume.view();
      const cleared = volume.leases.clear(new Set([view.snapshot.id]), 60_000);
      set(offset);
      // Somebody else goes: who waits looks at the time again.
      volume.view().release();
      await short();
      assertEquals(volume.leases.size, 1);
      assertEquals(view.fs.list(2).next().done, true);
      view.release();
      await cleared;
      const stays = volume.view();
      const ended = volume.leases.clear(new Set([stays.snapshot.id]), 30);
      set(0);
      await ended;
      assertEquals(volume.leases.size, 0);
      await volume.close();
    });
  });

  test(`a site knows how long its parent was silent when the clock is set ${way}`, async () => {
    await withClock(async (set) => {
      await using fixture = await makeNode({ maxLagMs: 60_000 });
      const { node } = fixture;
      const ready = async () => (await json(await fixture.get("/status"))).ready;
      Object.defineProperty(node, "isReady", { value: true });
      node.upstream = { parent: "http://parent", seenAt: Date.now(), heardAt: performance.now() };
      set(offset);
      assertEquals(await ready(), true);
      node.upstream = { ...node.upstream, heardAt: performance.now() - 61_000 };
      assertEquals(await ready(), false);
    });
  });
}

test("a scrub that ended in the future is done again: the clock was set back since", async () => {
  const volume = await Volume.create(new MemoryStore(300));
  await volume.updateLocal((state) => {
    state.scrub = { next: 0, completedAt: Date.now() + YEAR_MS };
  });
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const stop = new AbortController();
  const scrub = new Scrub(node, {
    bytesPerSecond: 1000 * BLOCK_SIZE,
    relatives: [],
    log: () => {},
  });
  const run = scrub.run(stop.signal);
  await until("a pass", () => (volume.local.scrub?.completedAt ?? Infinity) <= Date.now());
  stop.abort();
  await run;
  await volume.close();
});

test("a pause that is longer than timers take does not end at once", async () => {
  const stop = new AbortController();
  let ended = false;
  const waits = pause(2 ** 40, stop.signal).then(() => void (ended = true));
  await short();
  assert(!ended);
  stop.abort();
  await waits;
});
