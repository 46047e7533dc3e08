/**
 * An origin that is served over HTTP, with a volume in memory.
 *
 * @module
 */

import { type RunningServer, type ServerOptions, startServer } from "../../src/http/mod.ts";
import type { Node } from "../../src/replication/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { Random } from "../helpers/random.ts";
import { makeNode } from "./helpers.ts";

/** See the module. */
export interface Served extends AsyncDisposable {
  readonly node: Node;
  readonly volume: Volume;
  readonly url: string;
  /** Id of what was published last. */
  readonly top: string;
  /** Publishes something new, several frames of it; snapshots that nobody needs go. */
  publish(): Promise<string>;
}

/** Serves a node on this host, to everybody. @param options What is to be otherwise. */
export function serveNode(node: Node, options: Partial<ServerOptions> = {}): RunningServer {
  return startServer(node, {
    listen: { hostname: "127.0.0.1", port: 0 },
    tokens: {},
    version: "test",
    log: () => {},
    graceMs: 1000,
    ...options,
  });
}

/** Bytes of a file that changes; a few frames of blocks are several. */
const FILE_BYTES = 60_000;

/** Starts one. */
export async function served(seed = 1): Promise<Served> {
  const fixture = await makeNode({ blocks: 65_536 });
  const server = serveNode(fixture.node);
  const random = new Random(seed);
  const { volume } = fixture;
  let count = 0;
  let top = "";
  return {
    node: fixture.node,
    volume,
    url: server.url,
    get top(): string {
      return top;
    },
    async publish(): Promise<string> {
      const file = () => {
        const words = new Uint32Array(FILE_BYTES / 4);
        for (let at = 0; at < words.length; at += 16) words[at] = random.word() | 1;
        return new Uint8Array(words.buffer);
      };
      top = await fixture.publish(`r${++count}`, { a: file(), b: file(), c: file() });
      for (const old of volume.snapshots().slice(0, -6)) {
        try {
          await volume.exclusive((writer) => writer.deleteSnapshot(old.id));
        } catch (error) {
          if (!(error instanceof VolcastError)) throw error;
        }
      }
      return top;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await server.stop();
      await fixture[Symbol.asyncDispose]();
    },
  };
}
