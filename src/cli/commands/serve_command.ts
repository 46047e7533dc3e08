/**
 * `volcast serve`: answers for a volume, and follows a parent where there is one.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { HttpPeer, type Listen, type RunningServer, startServer } from "../../http/mod.ts";
import { follow, Node, Puller } from "../../replication/mod.ts";
import { exists, openVolumeFile, type Volume, type VolumeOptions } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { siteTokensFromEnvironment, tokenFromEnvironment } from "../environment.ts";
import { EXIT_CODES } from "../exit.ts";
import { LISTEN, NODE_NAME, PARENT_URL } from "../schemas.ts";
import type { Terminal } from "../terminal.ts";
import { BYTE_SIZE, DURATION_MS } from "../units.ts";
import { VERSION } from "../version.ts";

const SCHEMA = z.object({
  listen: LISTEN.default({ hostname: "127.0.0.1", port: 8080 }),
  www: LISTEN.optional(),
  site: NODE_NAME.optional(),
  parent: z.array(PARENT_URL).optional(),
  every: DURATION_MS.default(60_000),
  "max-lag": DURATION_MS.optional(),
  memory: BYTE_SIZE.default(64 * 2 ** 20),
  "local-writes": z.boolean().default(false),
});
type Options = z.output<typeof SCHEMA>;
const GRACE_MS = 10_000;

/** See the module. */
export const serveCommand = defineCommand({
  name: ["serve"],
  summary: "serve a volume over HTTP; with a parent, keep it up to date",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `With --parent, VOLUME is a replica: it pulls the parent's master at the start, every --every,
and as soon as the parent announces one. A volume that does not exist yet is made from the parent's
full image. Several --parent are tried in the order given. A volume that was promoted follows nobody
any more: the server says so and serves it.

With --local-writes, import and publish work at a replica too. What they change is read with at=active;
master, the sites below and everybody else go on with what was pulled, and the next image takes the
changes away.

Routes that change something need the token in VOLCAST_TOKEN, unless none is set and the server
listens on loopback only. VOLCAST_SITE_TOKENS=paris=TOKEN,rome=TOKEN gives sites tokens of their own.`,
  examples: [
    "volcast serve site.vol --listen 127.0.0.1:8080",
    "volcast serve site.vol --listen 0.0.0.0:8080 --www 0.0.0.0:80",
    "volcast serve paris.vol --listen 127.0.0.1:8081 --site paris --parent http://127.0.0.1:8080 --every 30s",
  ],
  options: {
    listen: { value: "HOST:PORT", help: "where to listen; 127.0.0.1:8080 by default" },
    www: { value: "HOST:PORT", help: "serve files of the master at / here, and nothing else" },
    site: { value: "NAME", help: "this node's name; needed with --parent" },
    parent: { value: "URL", list: true, help: "pull from this server; may be repeated" },
    every: { value: "TIME", help: "time between pulls; 60s by default" },
    "max-lag": { value: "TIME", help: "/readyz says no when no parent was heard for this long" },
    memory: { value: "SIZE", help: "block cache; 64MiB by default" },
    "local-writes": { help: "let a replica be changed, until the next image comes in" },
  },
  schema: SCHEMA,
  async run([path], options: Options, terminal: Terminal): Promise<number> {
    const parents = options.parent ?? [];
    if (parents.length > 0 && options.site === undefined) {
      throw new VolcastError(
        "usage",
        "Cannot follow a parent without a name: --site is missing",
        "Add for example --site paris",
      );
    }
    const node = openNode(path, options, parents);
    const log = (text: string) => terminal.note(`${new Date().toISOString()} ${text}`);
    const followed = parentsToFollow(node, parents, log);
    const stopping = new AbortController();
    const stop = () => stopping.abort();
    const signals = ["SIGINT", "SIGTERM"] as const;
    for (const signal of signals) Deno.addSignalListener(signal, stop);
    let server: RunningServer | undefined;
    try {
      server = startServer(node, serverOptions(options, log));
      node.volumeIfAny?.noteOwner(server.url);
      terminal.print(`Serving ${path} at ${server.url}`);
      if (server.wwwUrl !== undefined) terminal.print(`Serving its files at ${server.wwwUrl}`);
      const following = followParents(
        node,
        options,
        { parents: followed, url: server.url, log },
        stopping.signal,
      );
      await aborted(stopping.signal);
      log("Stopping");
      // A parent that does not let go of a connection must not keep this process.
      await Promise.all([server.stop(), Promise.race([following, graceOver()])]);
    } finally {
      for (const signal of signals) Deno.removeSignalListener(signal, stop);
      await node.volumeIfAny?.close();
    }
    return EXIT_CODES.done;
  },
});

function openNode(path: string, options: Options, parents: readonly string[]): Node {
  const follower = parents.length > 0;
  const volume = follower && !exists(path)
    ? undefined
    : openVolumeFile(path, volumeOptions(options));
  if (follower && volume?.role === "origin" && volume.root.epoch === 1) {
    void volume.close();
    throw new VolcastError(
      "diverged",
      `Cannot follow a parent: ${path} is an origin and has a history of its own`,
      `Serve it without --parent, or see what it would lose by following: volcast resync ${path} ` +
        `--parent ${parents[0]}`,
    );
  }
  return new Node({
    name: options.site ?? "origin",
    path,
    ...(volume === undefined ? {} : { volume }),
  });
}

function volumeOptions(options: Options): VolumeOptions {
  return { cacheBytes: options.memory, localWrites: options["local-writes"] };
}

/**
 * A volume that was promoted keeps serving under the options it had as a site: after a takeover, a
 * restart must not end the service. But it never goes back to its old parents by itself.
 */
function parentsToFollow(
  { path, volumeIfAny: volume }: Node,
  parents: readonly string[],
  log: (text: string) => void,
): readonly string[] {
  if (volume?.role !== "origin" || parents.length === 0) return parents;
  log(
    `Not following ${parents.join(", ")}: ${path} was promoted and is the origin of epoch ` +
      `${volume.root.epoch}. To give that up: volcast resync ${path} --parent URL`,
  );
  return [];
}

function serverOptions(
  options: Options,
  log: (text: string) => void,
): Parameters<typeof startServer>[1] {
  const admin = tokenFromEnvironment();
  return {
    listen: options.listen as Listen,
    ...(options.www === undefined ? {} : { www: options.www as Listen }),
    tokens: { ...(admin === undefined ? {} : { admin }), sites: siteTokensFromEnvironment() },
    ...(options["max-lag"] === undefined ? {} : { maxLagMs: options["max-lag"] }),
    version: VERSION,
    log,
  };
}

async function followParents(
  node: Node,
  options: Options,
  server: { parents: readonly string[]; url: string; log: (text: string) => void },
  signal: AbortSignal,
): Promise<void> {
  const token = tokenFromEnvironment();
  const parents = server.parents.map((url) =>
    new HttpPeer(url, token === undefined ? {} : { token })
  );
  if (parents.length === 0) return;
  node.upstream = { parent: parents[0].name };
  const puller = new Puller(node, {
    parents,
    volumeOptions: volumeOptions(options),
    opened: (volume: Volume) => volume.noteOwner(server.url),
  });
  await follow(node, puller, { everyMs: options.every, parents, log: server.log }, signal);
}

/** The time that ending may take. */
function graceOver(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, GRACE_MS));
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}
