import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { HttpTarget } from "../../src/cli/http_target.ts";
import { PATIENCE, UnansweredError, VolcastError, waitMsOf } from "../../src/core/mod.ts";
import { HttpPeer, HttpStandby } from "../../src/http/mod.ts";
import { retryAfterMsOf } from "../../src/http/retry_after.ts";
import { follow, Node, type Peer, Puller, type PullResult } from "../../src/replication/mod.ts";
import { type Fault, FAULTS, FaultyProxy } from "../helpers/faulty_proxy.ts";
import { Line } from "../helpers/fault_matrix.ts";
import { TestPatience } from "../helpers/patience.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { until } from "../helpers/until.ts";
import { type Served, served, serveNode } from "./served.ts";

test("waitMsOf leaves all of a wait to chance, up to a limit that doubles", () => {
  const at = (chance: number) => ({ ...PATIENCE, random: () => chance });
  for (let failures = 1; failures < 20; failures++) {
    assertEquals(waitMsOf(at(0), failures), 0);
    const most = Math.min(PATIENCE.limitMs, PATIENCE.firstMs * 2 ** (failures - 1));
    assertEquals(waitMsOf(at(0.5), failures), most / 2);
  }
  // Many that failed together come back one by one.
  const waits = Array.from({ length: 100 }, (_, seed) => {
    const random = new Random(seed);
    return waitMsOf({ ...PATIENCE, random: () => random.below(1000) / 1000 }, 4);
  });
  assert(new Set(waits.map((ms) => Math.floor(ms / 100))).size > 8, "spread over all of it");
});

test("waitMsOf leaves whoever asks for it alone, and not for ever", () => {
  const patience = { ...PATIENCE, random: () => 0.5 };
  const asking = (retryAfterMs: number) => new VolcastError("busy", "later", "", { retryAfterMs });
  assertEquals(waitMsOf(patience, 1, asking(7000)), 7000 + patience.firstMs / 2);
  assertEquals(waitMsOf(patience, 1, asking(1e9)), PATIENCE.askedLimitMs + patience.firstMs / 2);
});

test("retryAfterMsOf reads seconds and dates, these by the server's own clock", () => {
  const of = (headers: Record<string, string>) => retryAfterMsOf(new Headers(headers));
  assertEquals(of({}), undefined);
  assertEquals(of({ "retry-after": "120" }), 120_000);
  const date = "Fri, 05 Jun 2026 12:00:00 GMT";
  assertEquals(of({ "retry-after": "Fri, 05 Jun 2026 12:00:30 GMT", date }), 30_000);
  assertEquals(of({ "retry-after": "Fri, 05 Jun 2026 11:00:00 GMT", date }), 0);
  assertEquals(of({ "retry-after": "soon", date }), undefined);
  assertEquals(of({ "retry-after": "-5", date }), undefined);
  assertEquals(of({ "retry-after": "99999999999", date }), undefined);
});

test("a client waits as long as it is asked to, in seconds or until a date", async () => {
  await using origin = await served();
  await using line = new Line(origin.url);
  const { proxy, patience } = line;
  await using target = new HttpTarget(proxy.url, { patience });
  for (const fault of ["429 with seconds", "429 with a date", "503 with seconds"] as const) {
    patience.waits = [];
    proxy.begin((index) => index === 0 ? fault : undefined);
    await target.status();
    const [ms] = patience.waits;
    assert(ms >= 7000 && ms < 7000 + patience.firstMs, `${fault}: ${ms}`);
  }
  patience.waits = [];
  proxy.begin((index) => index === 0 ? "502" : undefined);
  await target.status();
  assert(patience.waits[0] < patience.firstMs, "by chance alone");
});

test("whatever is not a server's own answer is unknown, and none of its refusals", async () => {
  await using origin = await served();
  await using line = new Line(origin.url);
  const { proxy } = line;
  const patience = new TestPatience({ attempts: 1 });
  patience.watch(proxy);
  const standby = new HttpStandby(proxy.url, { patience });
  const peer = new HttpPeer(proxy.url, { patience });
  const asks: Record<string, () => Promise<unknown>> = {
    position: () => standby.position(),
    plan: () => peer.plan({ site: "paris" }),
    blocks: () => peer.blocks(origin.volume.volumeId, "1-00000000", [3]),
    confirm: () => peer.confirm("paris", { snapshot: "1-00000000", needs: [] }),
  };
  const pages: Fault[] = FAULTS.filter((fault) =>
    /page|^[45]|stall before|stall in the head|cut before|lost|without an end/.test(fault) &&
    fault !== "headers lost"
  );
  for (const [what, ask] of Object.entries(asks)) {
    proxy.begin();
    const own = await assertRejects(ask, VolcastError);
    assert(!(own instanceof UnansweredError), `${what}: ${own.message}`);
    for (const fault of pages) {
      await until("nobody waits", () => !patience.isStalled);
      proxy.begin(() => fault);
      const error = await assertRejects(ask, VolcastError);
      assert(error instanceof UnansweredError, `${what}, ${fault}: ${error.kind} ${error.message}`);
    }
    await until("nobody waits", () => !patience.isStalled);
  }
});

/** A site that has the release before the last, and a line that is good. */
async function withSite(
  work: (site: {
    node: Node;
    line: Line;
    origin: Served;
    pull: (...urls: string[]) => Promise<PullResult>;
  }) => Promise<void>,
): Promise<void> {
  await using origin = await served();
  await origin.publish();
  await using line = new Line(origin.url);
  const node = new Node({ name: "paris", path: `${line.directory}/paris.vol` });
  const { patience } = line;
  const pull = (...urls: string[]) => {
    const parents = urls.map((url) => new HttpPeer(url, { patience }));
    return new Puller(node, { parents, patience, drainMs: 0 }).pull();
  };
  try {
    await pull(origin.url);
    await origin.publish();
    await work({ node, line, origin, pull });
  } finally {
    await node.volumeIfAny?.close();
  }
}

test("after a cut only the rest comes, and nothing of an image with another tag", async () => {
  await withSite(async ({ line: { proxy }, origin, node, pull }) => {
    const isImage = ({ path }: { path: string }) => path.startsWith("/images/");
    let images = 0;
    proxy.begin((_, request) => {
      if (!isImage(request)) return undefined;
      return (["short body", "another tag"] as const)[images++];
    });
    await pull(proxy.url);
    assertEquals(node.volume.current.id, origin.top);
    const [cut, other, rest] = proxy.seen.filter(isImage);
    assertEquals([cut.range, other.fault], [undefined, "another tag"]);
    assert(rest !== undefined, "what has another tag is not taken, the right one is asked for");
    assertEquals(rest.range, other.range);
    const from = Number(/^bytes=(\d+)-$/.exec(rest.range ?? "")?.[1]);
    assert(from > 0 && from <= cut.sent, `from ${from}, ${cut.sent} were sent`);
    const plan = await new HttpPeer(origin.url).plan({
      site: "paris",
      since: origin.volume.snapshots()[0].id,
    });
    assertEquals(rest.sent, plan.byteCount - from);
  });
});

test("an answer that lost what it is since does not make a full image come", async () => {
  await withSite(async ({ line: { proxy }, pull, node }) => {
    const { id } = node.volume.current;
    proxy.begin((_, { method }) => method === "HEAD" ? "headers lost" : undefined);
    await assertRejects(() => pull(proxy.url), UnansweredError, "without saying why");
    assert(proxy.seen.every(({ method }) => method === "HEAD"), "nothing was taken");
    assertEquals(node.volume.current.id, id);
  });
});

test("a parent that falls silent, wherever that is, is passed over for another one", async () => {
  const stalls = ["stall before the head", "stall in the head", "stall in the body"] as const;
  for (const fault of stalls) {
    for (const phase of ["HEAD", "GET"] as const) {
      if (fault === "stall in the body" && phase === "HEAD") continue;
      await withSite(async ({ line: { proxy, patience }, origin, node, pull }) => {
        await using silent = new FaultyProxy(origin.url);
        patience.watch(silent);
        silent.begin((_, { method }) => method === phase ? fault : undefined);
        const result = await pull(silent.url, proxy.url);
        assertEquals([result.kind, node.volume.current.id], ["increment", origin.top]);
        assert(silent.seen.some((seen) => seen.fault === fault));
        assert(proxy.seen.length > 0, "the other one was asked");
        await until("nobody waits", () => !patience.isStalled);
      });
    }
  }
  // The image is here; what the parent does not hear, it hears with the next pull.
  await withSite(async ({ line: { proxy, patience }, origin, node, pull }) => {
    proxy.begin((_, { method }) => method === "PUT" ? "stall before the head" : undefined);
    const result = await pull(proxy.url);
    assertEquals([result.kind, node.volume.current.id], ["increment", origin.top]);
    assertStringIncludes(result.unconfirmed ?? "", "no answer within 30 s");
    await until("nobody waits", () => !patience.isStalled);
    proxy.begin();
    assertEquals((await pull(proxy.url)).unconfirmed, undefined);
  });
});

test("the watchdog ends a pull in which nothing happens, and says in which phase", async () => {
  await withSite(async ({ node, origin }) => {
    const real = new HttpPeer(origin.url);
    const never = () => new Promise<never>(() => {});
    const peer = (stuck: Partial<Peer>): Peer => ({
      name: "deaf",
      plan: (request, signal) => real.plan(request, signal),
      bringPlane: never,
      open: (plan, offset, signal) => real.open(plan, offset, signal),
      confirm: (site, position, signal) => real.confirm(site, position, signal),
      async *events(): AsyncGenerator<never> {},
      ...stuck,
    });
    /** Why a pull from it ended; one that does not end by itself is ended. */
    const failureOf = async (stuck: Partial<Peer>): Promise<string> => {
      const puller = new Puller(node, { parents: [peer(stuck)], drainMs: 0, stuckMs: 50 });
      const ending = new AbortController();
      const timer = setTimeout(() => ending.abort(new Error("it never ends")), 60_000);
      const error = await assertRejects(() => puller.pull(ending.signal), Error);
      clearTimeout(timer);
      return error.message;
    };
    const asked = await failureOf({ plan: never });
    assert(
      /^Cannot go on pulling from deaf: nothing has happened for \d+ s while asking$/.test(asked),
      asked,
    );
    // On a loaded machine even a plan may take too long for a watchdog of that little patience.
    let received = "";
    while (!received.endsWith("while receiving")) {
      received = await failureOf({ open: never });
      assert(received.includes("nothing has happened"), received);
    }
    const { status } = node.watch;
    assert(status.phase === "idle" && status.failures >= 2 && status.failuresInAll >= 2);
    assertEquals(status.error, received);
    assert(status.succeededAt !== undefined, "it went well before");
  });
});

test("/status and /metrics say what a pull does, since when, and how the last ones went", async () => {
  await withSite(async ({ node, origin, line }) => {
    const server = serveNode(node);
    const { proxy, patience } = line;
    const log: string[] = [];
    const parents = [new HttpPeer(proxy.url, { patience })];
    const stopping = new AbortController();
    proxy.begin(() => "502");
    node.upstream = { parent: proxy.url };
    const puller = new Puller(node, { parents, patience, drainMs: 0 });
    const following = follow(node, puller, {
      everyMs: 20,
      parents,
      log: (text) => log.push(text),
    }, stopping.signal);
    const get = async (path: string) => await (await fetch(server.url + path)).text();
    try {
      await until("failing", () => node.watch.status.failures >= 2);
      const { pull } = JSON.parse(await get("/status"));
      assert(pull.failures >= 2 && pull.failuresInAll >= 2, JSON.stringify(pull));
      assertStringIncludes(pull.error, "status 502");
      assert(!Number.isNaN(Date.parse(pull.since)) && !Number.isNaN(Date.parse(pull.succeededAt)));
      assert(/\nvolcast_pull_failing ([2-9]|\d\d)/.test(await get("/metrics")));
      // The same failure is told once.
      assertEquals(log.filter((text) => text.includes("502")).length, 1);
      proxy.begin();
      await until("well again", () => node.volume.current.id === origin.top);
      await until("idle", () => node.watch.status.failures === 0);
      const metrics = await get("/metrics");
      assert(/\nvolcast_pull_last_success_timestamp_seconds \d{10}/.test(metrics), metrics);
      assertStringIncludes(metrics, "\nvolcast_pull_failing 0\n");
      assert(/\nvolcast_pull_phase_timestamp_seconds\{phase="\w+"\} \d{10}/.test(metrics), metrics);
    } finally {
      stopping.abort();
      await following;
      await server.stop();
    }
  });
});
