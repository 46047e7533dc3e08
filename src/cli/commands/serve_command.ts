/**
 * `volcast serve`: answers for a volume, and follows a parent where there is one.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { HttpPeer, type Listen, startServer, type Traffic } from "../../http/mod.ts";
import {
  follow,
  keepPinBudget,
  keepSealed,
  keepWritable,
  Node,
  Puller,
  Receiver,
  Scrub,
  type SigningKey,
} from "../../replication/mod.ts";
import { exists, type Volume, type VolumeOptions } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { COMPRESS_OPTION, LIMIT_OPTIONS, LIMIT_SHAPES, throttleOf, trafficOf } from "../limits.ts";
import { keepAllMirrored, standbysOf } from "../mirroring.ts";
import { openVolume } from "../open_volume.ts";
import { LISTEN, NODE_NAME, PARENT_URL, REF, STANDBY_URLS } from "../schemas.ts";
import { accessOf, rereadOnHangup } from "../server_access.ts";
import type { Terminal } from "../terminal.ts";
import { readKey } from "../trust.ts";
import { BYTE_SIZE, DURATION_MS } from "../units.ts";
import { VERSION } from "../version.ts";
import { trustOf } from "./pull_command.ts";
import { SEAL_LIFETIME_MS } from "./seal_command.ts";

const SCHEMA = z.object({
  listen: LISTEN.default({ hostname: "127.0.0.1", port: 8080 }),
  www: LISTEN.optional(),
  site: NODE_NAME.optional(),
  parent: z.array(PARENT_URL).optional(),
  every: DURATION_MS.default(60_000),
  snapshots: z.literal("all").optional(),
  pointer: REF.optional(),
  standby: z.boolean().optional(),
  "mirror-to": z.array(STANDBY_URLS).transform((lists) => lists.flat()).optional(),
  "mirror-base": z.string().min(1).optional(),
  "mirror-into": z.string().min(1).optional(),
  "mirror-every": DURATION_MS.default(10_000),
  "max-lag": DURATION_MS.optional(),
  memory: BYTE_SIZE.default(64 * 2 ** 20),
  "local-writes": z.boolean().default(false),
  "pin-budget": BYTE_SIZE.optional(),
  scrub: BYTE_SIZE.refine((rate) => rate >= 4096, "at least 4096 bytes a second").optional(),
  "scrub-every": DURATION_MS.default(7 * 86_400_000),
  "repair-from": z.array(PARENT_URL).optional(),
  sign: z.string().min(1).optional(),
  "seal-for": DURATION_MS.default(SEAL_LIFETIME_MS),
  trust: z.string().min(1).optional(),
  "sealed-as": REF.optional(),
  tokens: z.string().min(1).optional(),
  private: z.boolean().optional(),
  "tls-cert": z.string().min(1).optional(),
  "tls-key": z.string().min(1).optional(),
  compress: z.boolean().optional(),
  ...LIMIT_SHAPES,
});
type Options = z.output<typeof SCHEMA> & WithCredentials;
const GRACE_MS = 10_000;

/** See the module. */
export const serveCommand = defineRemoteCommand({
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

With --pin-budget, a site that falls behind cannot fill the volume: its base becomes a shadow (see
snapshot shadow) when it keeps more than SIZE from being used again. Snapshots that a pointer names
stay as they are.

With --standby, VOLUME takes what a source sends it (volcast mirror, or serve --mirror-to there), and
does not exist before. With --mirror-to, it is such a source. With --mirror-base and --mirror-into it
keeps an incremental mirror on this host, see volcast mirror.

With --scrub, every block is looked at as it lies on the disk, at most SIZE a second, beside the readers.
What is bad is fetched from --repair-from, the parents and the standbys, in this order, and put back; so is
what a reader meets. It is off by default: how much a disk may read by itself is its owner's to say.

With --limit-rate, images go out no faster than that in all, in equal shares; --limit-files counts files
too. --pull-rate is for what comes in. Where --max-transfers images are being sent, who asks for another
one is told when to come again, and sites do so by themselves. Each site also has a request open that
waits for events: --max-requests counts it.

With --sign, an origin seals what its pointers name, and renews the seals before they expire; see seal.
With --trust, a replica makes nothing current that none of the keys has sealed, whoever sent it.

What changes something needs a token with the scope for it, from --tokens FILE (see token create), which
is read again when it changes and on SIGHUP; VOLCAST_TOKEN, which may do everything; or
VOLCAST_SITE_TOKENS=paris=TOKEN,rome=TOKEN, which let sites replicate. A server without any token lets
its own machine's programs do everything if it listens on loopback, and nobody change anything if not.
With --private reading needs a token too. A certificate that changes is taken anew in 2 seconds.

What this server shows others (parents, standbys) is in --token-file. Without that it is VOLCAST_TOKEN,
and goes to the first of them only.`,
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
    pointer: {
      value: "NAME",
      help: "with --parent: follow this pointer of its; master by default",
    },
    snapshots: {
      value: "all",
      help: "with --parent: take and keep every snapshot, not the master alone",
    },
    standby: { help: "take what a mirror sends; needs --site" },
    "mirror-to": { value: "URL", list: true, help: "mirror to this standby; may be repeated" },
    "mirror-base": {
      value: "BASE",
      help: "base of an incremental mirror: an image, or a directory/",
    },
    "mirror-into": { value: "MIRROR", help: "file with what is newer than that base" },
    "mirror-every": { value: "TIME", help: "time between rounds of mirrors; 10s by default" },
    "max-lag": { value: "TIME", help: "/readyz says no when no parent was heard for this long" },
    "pin-budget": {
      value: "SIZE",
      help: "most that a site's base may keep from being used again; more makes it a shadow",
    },
    scrub: { value: "SIZE", help: "look at this many bytes a second for blocks that rotted" },
    "scrub-every": { value: "TIME", help: "time between two looks at all of it; 7d by default" },
    "repair-from": {
      value: "URL",
      list: true,
      help: "with --scrub: a node to heal from, besides the parents; may be repeated",
    },
    sign: { value: "KEY", help: "seal what pointers name with this private key" },
    "seal-for": { value: "TIME", help: "how long a seal counts; 7d by default" },
    trust: { value: "FILE", help: "with --parent: take only what a key in FILE has sealed" },
    "sealed-as": { value: "NAME", help: "what the origin calls the pointer; --pointer by default" },
    tokens: { value: "FILE", help: "tokens that are let in, made by token create" },
    private: { help: "let nobody read without a token either; --www stays public" },
    "tls-cert": { value: "FILE", help: "serve over TLS: the certificate and its issuers, PEM" },
    "tls-key": { value: "FILE", help: "its private key, PEM" },
    memory: { value: "SIZE", help: "block cache; 64MiB by default" },
    "local-writes": { help: "let a replica be changed, until the next image comes in" },
    compress: COMPRESS_OPTION,
    ...LIMIT_OPTIONS,
  },
  schema: SCHEMA,
  async run([path], options: Options, terminal: Terminal): Promise<number> {
    const parents = options.parent ?? [];
    checkRoles(options);
    const traffic = trafficOf(options);
    const standbys = standbysOf(
      {
        urls: options["mirror-to"] ?? [],
        base: options["mirror-base"],
        into: options["mirror-into"],
        throttle: traffic.throttle,
        names: { to: "--mirror-to", base: "--mirror-base", into: "--mirror-into" },
      },
      options.credentials,
      terminal,
    );
    const key = options.sign === undefined ? undefined : readKey(options.sign);
    const trust = trustOf(options);
    const log = (text: string) => terminal.note(`${new Date().toISOString()} ${text}`);
    options.credentials.nameServers([...parents, ...options["repair-from"] ?? []]);
    const access = accessOf(options, log);
    const node = await openNode(path, options, parents);
    node.trust = trust;
    const followed = parentsToFollow(node, parents, log);
    const stopping = new AbortController();
    const stop = () => stopping.abort();
    const signals = ["SIGINT", "SIGTERM"] as const;
    for (const signal of signals) Deno.addSignalListener(signal, stop);
    let ignoreHangup = () => {};
    try {
      const server = startServer(node, { ...access, ...serverOptions(options, traffic, log) });
      ignoreHangup = rereadOnHangup(options, server);
      node.volumeIfAny?.noteOwner(server.url);
      terminal.print(`Serving ${path} at ${server.url}`);
      if (server.wwwUrl !== undefined) terminal.print(`Serving its files at ${server.wwwUrl}`);
      const following = followParents(
        node,
        options,
        { parents: followed, url: server.url, log },
        stopping.signal,
      );
      const recovering = keepWritable(node, { log }, stopping.signal);
      const budgeting = keepBudget(node, options, log, stopping.signal);
      const scrubbing = keepScrubbed(node, options, log, stopping.signal);
      const sealing = keepSeals(node, options, { key, log }, stopping.signal);
      if (options.standby) node.receiver = receiverFor(node, options, { url: server.url, log });
      const mirroring = keepAllMirrored(node, standbys, {
        everyMs: options["mirror-every"],
        log,
      }, stopping.signal);
      await aborted(stopping.signal);
      log("Stopping");
      const ended = Promise.all([
        following,
        recovering,
        budgeting,
        scrubbing,
        sealing,
        mirroring,
        node.receiver?.stop(),
      ]);
      // A parent that does not let go of a connection must not keep this process.
      await Promise.all([server.stop(), Promise.race([ended, graceOver()])]);
    } finally {
      ignoreHangup();
      for (const signal of signals) Deno.removeSignalListener(signal, stop);
      await node.volumeIfAny?.close();
    }
    return EXIT_CODES.done;
  },
});

/** What a server is to others. @throws {VolcastError} `usage` for roles that exclude each other. */
function checkRoles(options: Options): void {
  const follows = (options.parent ?? []).length > 0;
  if (options.standby && options.trust !== undefined) {
    throw new VolcastError(
      "usage",
      "Cannot use --trust with --standby: what a mirror sends has no seal",
      "Guard a standby by its token: VOLCAST_TOKEN",
    );
  }
  const { "mirror-to": to = [], "mirror-base": base, "mirror-into": into } = options;
  const mirrors = to.length > 0 || base !== undefined || into !== undefined;
  if ((follows || options.standby) && options.site === undefined) {
    throw new VolcastError(
      "usage",
      `Cannot ${follows ? "follow a parent" : "be a standby"} without a name: --site is missing`,
      "Add for example --site paris",
    );
  }
  if (options["repair-from"] !== undefined && options.scrub === undefined) {
    throw new VolcastError(
      "usage",
      "Cannot use --repair-from without --scrub: nothing looks for what is to be healed",
      "Add for example --scrub 20MiB",
    );
  }
  const roles = [
    ...(follows ? ["--parent"] : []),
    ...(options.standby ? ["--standby"] : []),
    ...(mirrors ? [to.length > 0 ? "--mirror-to" : "--mirror-base"] : []),
  ];
  if (roles.length < 2) return;
  throw new VolcastError(
    "usage",
    `Cannot serve with ${roles.join(" and ")}: each says where the volume's changes come from`,
    "An origin mirrors, a standby takes what it is sent, a replica follows its parent",
  );
}

async function openNode(
  path: string,
  options: Options,
  parents: readonly string[],
): Promise<Node> {
  const follower = parents.length > 0 || options.standby === true;
  const volume = follower && !exists(path)
    ? undefined
    : await openVolume(path, volumeOptions(options));
  if (follower && volume?.role === "origin" && volume.root.epoch === 1) {
    void volume.close();
    throw new VolcastError(
      "diverged",
      `Cannot ${
        options.standby ? "be a standby" : "follow a parent"
      }: ${path} is an origin and has a history of its own`,
      options.standby
        ? "Choose another path for the standby, or serve it without --standby"
        : `Serve it without --parent, or see what it would lose by following: volcast resync ${path} ` +
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
  traffic: Traffic,
  log: (text: string) => void,
): Omit<Parameters<typeof startServer>[1], "tokens"> {
  return {
    listen: options.listen as Listen,
    ...(options.www === undefined ? {} : { www: options.www as Listen }),
    ...(options["max-lag"] === undefined ? {} : { maxLagMs: options["max-lag"] }),
    version: VERSION,
    traffic,
    log,
  };
}

async function followParents(
  node: Node,
  options: Options,
  server: { parents: readonly string[]; url: string; log: (text: string) => void },
  signal: AbortSignal,
): Promise<void> {
  const { credentials } = options;
  const throttle = throttleOf(options["pull-rate"]);
  const peerOptions = { credentials, throttle, compress: options.compress };
  const parents = server.parents.map((url) => new HttpPeer(url, peerOptions));
  if (parents.length === 0) return;
  node.upstream = { parent: parents[0].name };
  const puller = new Puller(node, {
    parents,
    volumeOptions: volumeOptions(options),
    snapshots: options.snapshots,
    pointer: options.pointer,
    opened: (volume: Volume) => volume.noteOwner(server.url),
  });
  await follow(node, puller, { everyMs: options.every, parents, log: server.log }, signal);
}

async function keepBudget(
  node: Node,
  options: Options,
  log: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const bytes = options["pin-budget"];
  if (bytes === undefined) return;
  node.pinBudgetBytes = bytes;
  await keepPinBudget(node, { bytes, log }, signal);
}

async function keepScrubbed(
  node: Node,
  options: Options,
  log: (text: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const bytesPerSecond = options.scrub;
  if (bytesPerSecond === undefined) return;
  const { credentials } = options;
  const urls = new Set([
    ...options["repair-from"] ?? [],
    ...options.parent ?? [],
    ...options["mirror-to"] ?? [],
  ]);
  const relatives = [...urls].map((url) => new HttpPeer(url, { credentials }));
  const everyMs = options["scrub-every"];
  node.scrub = new Scrub(node, { bytesPerSecond, everyMs, relatives, log });
  await node.scrub.run(signal);
}

async function keepSeals(
  node: Node,
  options: Options,
  { key, log }: { key: SigningKey | undefined; log: (text: string) => void },
  signal: AbortSignal,
): Promise<void> {
  if (key === undefined) return;
  await keepSealed(node, { key, lifetimeMs: options["seal-for"], log }, signal);
}

function receiverFor(
  node: Node,
  options: Options,
  server: { url: string; log: (text: string) => void },
): Receiver {
  return new Receiver(node, {
    volumeOptions: volumeOptions(options),
    opened: (volume: Volume) => volume.noteOwner(server.url),
    log: server.log,
  });
}

/** The time that ending may take. */
function graceOver(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, GRACE_MS));
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}
