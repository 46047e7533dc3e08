/**
 * The routes of a node, put together.
 *
 * @module
 */

import { Hono } from "hono";
import { matchedRoutes } from "hono/route";
import { VolcastError } from "../core/mod.ts";
import type { Node } from "../replication/mod.ts";
import type { Access, Grant } from "./access.ts";
import type { Env, HttpOptions, RouteContext } from "./env.ts";
import { problemResponse } from "./problem.ts";
import { ROUTE_TABLE, sitesNamed } from "./route_table.ts";
import { archiveRoutes } from "./routes/archive.ts";
import { fileRoutes } from "./routes/files.ts";
import { healthRoutes } from "./routes/health.ts";
import { imagesRoutes, selectRoutes } from "./routes/images.ts";
import { replicateRoutes } from "./routes/replicate.ts";
import { sealRoutes } from "./routes/seals.ts";
import { siteRoutes } from "./routes/sites.ts";
import { snapshotRoutes } from "./routes/snapshots.ts";
import { standbyRoutes } from "./routes/standby.ts";
import { takeoverRoutes } from "./routes/takeover.ts";
import { setPrivate } from "./safe_headers.ts";
import { HEADERS, setStateHeaders } from "./state_headers.ts";

/** Most that is read of a body that nobody wants, bytes and ms. */
const REST_BYTES = 256 * 2 ** 20;
const REST_MS = 5_000;

/** The application that answers for a node. `log` gets what strangers are not told. */
export function createApp(
  node: Node,
  options: HttpOptions,
  log: (text: string) => void,
): Hono<Env> {
  const app = new Hono<Env>();
  app.onError(async (error, c) => {
    if (!(error instanceof VolcastError)) log(error.stack ?? String(error));
    else if (error.kind === "damaged" || error.kind === "io") log(error.message);
    await takeRest(c.req.raw);
    const response = problemResponse(error);
    if (c.get("seesState")) setStateHeaders(response.headers, node);
    return response;
  });
  app.notFound((c) =>
    problemResponse(
      new VolcastError(
        "not-found",
        `Cannot find ${c.req.path.slice(0, 200)}: there is no such route`,
        "Routes: /replicate /images /image /plan /snapshots /pointers /sites /seals /files /archive /diff /promote /scrub /events /status",
      ),
    )
  );
  app.use(async (c, next) => {
    c.set("node", node);
    c.set("options", options);
    const grant = admit(c, options.access);
    c.set("tokenSite", grant.site);
    c.set("seesState", grant.seesState);
    c.set("isStillAdmitted", () => isAdmitted(c, options.access));
    await next();
    const { method } = c.req.raw;
    if (c.res.ok && method !== "GET" && method !== "HEAD") node.changed();
    if (grant.seesState) setStateHeaders(c.res.headers, node);
    if (options.access.isPrivate) setPrivate(c.res.headers);
    c.res.headers.set(HEADERS.mark, "1");
    // How things are now: an old answer to that would be a wrong one.
    if (!c.res.headers.has("cache-control")) c.res.headers.set("cache-control", "no-store");
  });
  app.route("/replicate", replicateRoutes);
  app.route("/images", imagesRoutes);
  app.route("/sites", siteRoutes);
  app.route("/files", fileRoutes);
  app.route("/seals", sealRoutes);
  for (
    const routes of [
      selectRoutes,
      snapshotRoutes,
      archiveRoutes,
      takeoverRoutes,
      healthRoutes,
      standbyRoutes,
    ]
  ) {
    app.route("/", routes);
  }
  app.get("/", (c) => c.redirect("/files/"));
  return app;
}

/** The middleware itself, as hono names it. */
const EVERY_ROUTE = "ALL /*";

/**
 * Lets a request pass to every route that would answer it, or to none: to the answer that there is none.
 * @throws {VolcastError} `denied`.
 */
function admit(c: RouteContext, access: Access): Grant {
  let grant: Grant = access.stranger;
  // A refusal states what a stranger may know.
  c.set("seesState", grant.seesState);
  const [path, query] = [c.req.path, c.req.queries("site") ?? []];
  for (const { method, path: pattern } of matchedRoutes(c)) {
    const route = `${method} ${pattern}`;
    if (route === EVERY_ROUTE) continue;
    if (!Object.hasOwn(ROUTE_TABLE, route)) {
      throw new VolcastError("denied", `Cannot answer ${route}: nothing says what it needs`);
    }
    const rule = ROUTE_TABLE[route];
    grant = access.admit(c.req.raw, rule, sitesNamed(rule, route, { path, query }));
  }
  return grant;
}

function isAdmitted(c: RouteContext, access: Access): boolean {
  try {
    admit(c, access);
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads what is left of a refused request's body, within bounds: whoever is still sending when the
 * connection ends gets a broken pipe, and not the answer that says why.
 */
async function takeRest({ body }: Request): Promise<void> {
  if (body === null || body.locked) return;
  const reader = body.getReader();
  const timer = setTimeout(() => void reader.cancel().catch(() => {}), REST_MS);
  try {
    for (let left = REST_BYTES; left > 0;) {
      const { done, value } = await reader.read();
      if (done) return;
      left -= value.length;
    }
    await reader.cancel();
  } catch {
    // The sender went: nobody is there to be answered.
  } finally {
    clearTimeout(timer);
  }
}
