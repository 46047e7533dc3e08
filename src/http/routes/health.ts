/**
 * `/healthz`, `/readyz`, `/status`, `/metrics`, `/events`; `POST /scrub`.
 *
 * @module
 */

import { Hono } from "hono";
import { VolcastError } from "../../core/mod.ts";
import { BLOCK_SIZE, sealedId } from "../../format/mod.ts";
import { sealOf } from "../../replication/mod.ts";
import { MASTER, sitePins, type Volume } from "../../volume/mod.ts";
import { volumeStatus } from "../describe.ts";
import type { Env, RouteContext } from "../env.ts";
import { mirroringJson, mirroringMetrics } from "../mirror_status.ts";
import { pullJson, pullMetrics } from "../pull_status.ts";
import { scrubMetrics } from "../scrub_status.ts";
import { trafficMetrics } from "../traffic_metrics.ts";

/** See the module. */
export const healthRoutes = new Hono<Env>();

healthRoutes.get("/healthz", (c) => c.text("ok\n"));

healthRoutes.get("/readyz", (c) => {
  const reason = notReady(c);
  if (reason === undefined) return c.text("ready\n");
  return c.text(`not ready: ${reason}\n`, 503, { "retry-after": "2" });
});

healthRoutes.get("/status", (c) => c.json(statusOf(c)));

healthRoutes.get("/metrics", (c) => c.text(metricsOf(c)));

healthRoutes.post("/scrub", (c) => {
  const { scrub } = c.get("node");
  if (scrub === undefined) {
    throw new VolcastError(
      "usage",
      "Cannot scrub: this server was started without --scrub",
      "Start it with for example --scrub 20MiB, or stop it and run: volcast fsck, volcast repair",
    );
  }
  scrub.begin();
  return c.json(scrub.status, 202);
});

healthRoutes.get("/events", (c) => {
  if (c.req.raw.method === "HEAD") return c.body(null);
  const { events, clock } = c.get("node");
  const encoder = new TextEncoder();
  let end = () => {};
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start(controller): void {
      const send = (text: string) => {
        // It goes on for as long as its listener likes, and the token may be revoked meanwhile.
        if (!c.get("isStillAdmitted")()) {
          end();
          return controller.close();
        }
        // A listener that does not read must not fill the memory: what it misses it can ask for.
        if ((controller.desiredSize ?? 0) > -256) controller.enqueue(encoder.encode(text));
      };
      send(": volcast\n\n");
      const unsubscribe = events.subscribe((event) => {
        send(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
      });
      let stop = () => {};
      const beat = () => {
        stop = clock.timer(15_000, () => {
          send(": still here\n\n");
          beat();
        });
      };
      beat();
      const forget = c.get("options").onShutdown(() => {
        end();
        controller.close();
      });
      end = () => {
        unsubscribe();
        stop();
        forget();
      };
    },
    cancel: () => end(),
  });
  return c.body(body, 200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
});

function notReady(c: RouteContext): string | undefined {
  const node = c.get("node");
  const { maxLagMs } = c.get("options");
  if (!node.isReady) return "the first full image has not come in yet";
  const poisoned = node.volume.poisoned;
  if (poisoned !== undefined) return poisoned.message;
  const stale = node.trust?.whyStale(node.volume);
  if (stale !== undefined) return stale;
  if (maxLagMs === undefined || node.upstream === undefined) return undefined;
  if (node.upstream.heardAt === undefined) return "no parent was heard yet";
  const lag = node.clock.elapsed() - node.upstream.heardAt;
  return lag > maxLagMs ? `the parent was last heard ${Math.round(lag / 1000)} s ago` : undefined;
}

function statusOf(c: RouteContext): Record<string, unknown> {
  const node = c.get("node");
  const base = {
    version: c.get("options").version,
    node: node.name,
    chain: [node.name, ...node.chain],
    ready: notReady(c) === undefined,
    upstream: node.upstream === undefined ? null : {
      ...node.upstream,
      heardAt: undefined,
      seenAt: node.upstream.seenAt === undefined
        ? null
        : new Date(node.upstream.seenAt).toISOString(),
    },
    pull: pullJson(node),
    unconfirmed: node.unconfirmed ?? null,
    transfer: node.transfer ?? null,
    pinBudgetBytes: node.pinBudgetBytes ?? null,
    scrub: node.scrub?.status ?? null,
    access: c.get("options").access.status,
    seals: Object.fromEntries(
      Object.entries(node.volumeIfAny?.local.seals ?? {}).map(([pointer, text]) => {
        const seal = sealOf(text);
        const expiresAt = new Date(Number(seal.expiresAt / 1_000_000n)).toISOString();
        return [pointer, { snapshot: sealedId(seal), sequence: seal.sequence, expiresAt }];
      }),
    ),
    ...mirroringJson(node),
  };
  const volume = node.volumeIfAny;
  return volume === undefined ? { ...base, volume: null } : { ...base, ...volumeStatus(volume) };
}

function metricsOf(c: RouteContext): string {
  const node = c.get("node");
  const volume = node.volumeIfAny;
  const lines = trafficMetrics(c.get("options").traffic);
  const gauge = (name: string, help: string, value: number, labels = "") => {
    lines.push(`# HELP volcast_${name} ${help}`, `# TYPE volcast_${name} gauge`);
    lines.push(`volcast_${name}${labels} ${value}`);
  };
  gauge("ready", "Whether there is something to serve.", notReady(c) === undefined ? 1 : 0);
  gauge("memory_rss_bytes", "Resident memory.", Deno.memoryUsage().rss);
  lines.push(...pullMetrics(node));
  if (node.upstream?.seenAt !== undefined) {
    gauge(
      "upstream_seen_timestamp_seconds",
      "When the parent was last heard.",
      node.upstream.seenAt / 1000,
    );
  }
  if (volume === undefined) return lines.join("\n") + "\n";
  gauge("capacity_blocks", "Blocks of the volume.", volume.zone.capacity);
  gauge("used_blocks", "Blocks of the current file system.", volume.root.blockCount);
  if (volume.role === "origin") gauge("free_blocks", "Blocks free.", volume.freeBlocks);
  gauge("writable", "Whether the volume can be written.", volume.unwritable === undefined ? 1 : 0);
  gauge("snapshots", "Snapshots kept.", volume.snapshots().length);
  gauge("shadows", "Shadow snapshots.", volume.shadows().length);
  gauge("leases", "Readers that hold a root.", volume.leases.size);
  const master = volume.find(MASTER);
  if (master !== undefined) {
    gauge("master_cp", "Consistency point of the master snapshot.", master.cp);
    gauge(
      "master_timestamp_seconds",
      "When the master snapshot was taken.",
      Number(master.time / 1_000_000n) / 1000,
    );
  }
  lines.push(
    ...mirroringMetrics(node),
    ...sealMetrics(volume),
    ...scrubMetrics(node.scrub?.status),
  );
  if (node.pinBudgetBytes !== undefined) {
    gauge("pin_budget_bytes", "Bytes that a site's base may keep.", node.pinBudgetBytes);
  }
  const perSite = (name: string, help: string, values: Iterable<[site: string, value: number]>) => {
    lines.push(`# HELP volcast_${name} ${help}`, `# TYPE volcast_${name} gauge`);
    for (const [site, value] of values) {
      const label = site.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
      lines.push(`volcast_${name}{site="${label}"} ${value}`);
    }
  };
  perSite(
    "site_confirmed_timestamp_seconds",
    "When a site confirmed last.",
    Object.entries(volume.local.sites)
      .map(([site, { confirmedAt }]) => [site, (confirmedAt ?? 0) / 1000]),
  );
  perSite(
    "site_pinned_bytes",
    "Bytes that only this site keeps from being used again.",
    sitePins(volume).map(({ site, blocks }) => [site, blocks * BLOCK_SIZE]),
  );
  return lines.join("\n") + "\n";
}

function sealMetrics({ local: { seals = {} } }: Volume): string[] {
  const name = "volcast_seal_expires_timestamp_seconds";
  const values = Object.entries(seals).map(([pointer, text]) =>
    `${name}{pointer="${pointer}"} ${Number(sealOf(text).expiresAt / 1_000_000n) / 1000}`
  );
  if (values.length === 0) return [];
  return [`# HELP ${name} Until when a pointer's seal counts.`, `# TYPE ${name} gauge`, ...values];
}
