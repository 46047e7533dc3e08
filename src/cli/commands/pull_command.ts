/**
 * `volcast pull`: brings a replica up to date once.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { HttpPeer } from "../../http/mod.ts";
import {
  describe,
  describeFlush,
  Node,
  type Peer,
  Puller,
  type PullOptions,
  type PullResult,
  type Trust,
} from "../../replication/mod.ts";
import { exists, openVolumeFile } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { BYTE_RATE, COMPRESS_OPTION, PULL_RATE_OPTION, throttleOf } from "../limits.ts";
import { NODE_NAME, PARENT_URL, REF } from "../schemas.ts";
import type { Terminal } from "../terminal.ts";
import { readTrust } from "../trust.ts";

const SCHEMA = z.object({
  site: NODE_NAME,
  parent: z.array(PARENT_URL).min(1, "at least one parent is needed"),
  snapshots: z.literal("all").optional(),
  pointer: REF.optional(),
  trust: z.string().min(1).optional(),
  "sealed-as": REF.optional(),
  "pull-rate": BYTE_RATE.optional(),
  compress: z.boolean().optional(),
  json: z.boolean().optional(),
});

/** See the module. */
export const pullCommand = defineRemoteCommand({
  name: ["pull"],
  summary: "bring a replica up to its parent's master, once",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `Only the blocks that changed since the replica's snapshot are fetched. A volume that does not exist
yet is made from the parent's full image. An interrupted pull goes on where it was. When there is
nothing new, the exit code is 3. Without --snapshots the replica gets the master alone, and keeps what it
has while that lasts; with it, every snapshot comes, and can be read and passed on there.`,
  examples: [
    "volcast pull paris.vol --site paris --parent http://127.0.0.1:8080",
    "volcast pull paris.vol --site paris --parent http://lyon:8080 --parent http://origin:8080",
  ],
  options: {
    site: { value: "NAME", help: "this node's name" },
    parent: { value: "URL", list: true, help: "pull from this server; may be repeated" },
    pointer: { value: "NAME", help: "follow this pointer of the parent's; master by default" },
    trust: { value: "FILE", help: "take only what a key in FILE has sealed" },
    "sealed-as": { value: "NAME", help: "what the origin calls the pointer; --pointer by default" },
    snapshots: { value: "all", help: "take and keep every snapshot since the replica's own" },
    "pull-rate": PULL_RATE_OPTION,
    compress: COMPRESS_OPTION,
    json: { help: "say what was done as JSON" },
  },
  schema: SCHEMA,
  async run([path], options, terminal): Promise<number> {
    const { credentials } = options;
    credentials.nameServers(options.parent);
    const throttle = throttleOf(options["pull-rate"]);
    const { compress } = options;
    const peerOptions = { credentials, throttle, compress };
    const parents = options.parent.map((url) => new HttpPeer(url, peerOptions));
    const volume = exists(path) ? openVolumeFile(path) : undefined;
    const node = new Node({
      name: options.site,
      path,
      ...(volume === undefined ? {} : { volume }),
    });
    try {
      node.trust = trustOf(options);
      const result = await pullShown(node, parents, terminal, options);
      if (options.json) terminal.printJson(result);
      else terminal.print(describe(result));
      return result.kind === "current" ? EXIT_CODES.nothing : EXIT_CODES.done;
    } finally {
      await node.volumeIfAny?.close();
    }
  },
});

/**
 * Whom the options say to believe, if it is not everybody.
 * @throws {VolcastError} `usage`, `not-found`.
 */
export function trustOf(
  options: {
    readonly trust?: string | undefined;
    readonly "sealed-as"?: string | undefined;
    readonly pointer?: string | undefined;
    readonly snapshots?: "all" | undefined;
  },
): Trust | undefined {
  if (options.trust === undefined) {
    if (options["sealed-as"] === undefined) return undefined;
    throw new VolcastError("usage", "Cannot use --sealed-as without --trust");
  }
  if (options.snapshots !== undefined) {
    throw new VolcastError(
      "usage",
      "Cannot use --trust with --snapshots: a seal is of the one snapshot that a pointer names",
      "Leave --snapshots out",
    );
  }
  return readTrust(options.trust, options["sealed-as"] ?? options.pointer);
}

/** Pulls once, and shows how far it is and what it means for this node. */
export async function pullShown(
  node: Node,
  parents: readonly Peer[],
  terminal: Terminal,
  { snapshots, pointer }: Pick<PullOptions, "snapshots" | "pointer"> = {},
): Promise<PullResult> {
  const progress = terminal.progress("Pulling");
  const unsubscribe = node.events.subscribe((event) => {
    if (event.type === "progress") progress.update(event.done, event.total);
    if (event.type === "flush") terminal.note(describeFlush(event));
  });
  try {
    const result = await new Puller(node, { parents, drainMs: 0, snapshots, pointer }).pull();
    progress.end();
    if (result.unconfirmed !== undefined) {
      terminal.note(`The parent does not know where this node stands: ${result.unconfirmed}`);
    }
    return result;
  } finally {
    unsubscribe();
    progress.end();
  }
}
