/**
 * A node with a volume in memory, and its routes without a network.
 *
 * @module
 */

import { Access, createApp, type Tokens, Traffic } from "../../src/http/mod.ts";
import { Node } from "../../src/replication/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";

/** A node under test. */
export interface Fixture extends AsyncDisposable {
  readonly node: Node;
  readonly volume: Volume;
  /** What the log got. */
  readonly log: string[];
  /** Sends a request. */
  get(path: string, init?: RequestInit): Promise<Response>;
  /** Writes files and publishes them as a snapshot that `master` points at. */
  publish(name: string, files: Record<string, string | Uint8Array>): Promise<string>;
}

/** Makes a node called `origin`. */
export async function makeNode(
  options: {
    tokens?: Tokens;
    loopback?: boolean;
    blocks?: number;
    volume?: Volume;
    traffic?: Traffic;
    maxLagMs?: number;
  } = {},
): Promise<Fixture> {
  const volume = options.volume ??
    await Volume.create(new MemoryStore(options.blocks ?? 16384));
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const log: string[] = [];
  const app = createApp(node, {
    access: new Access({ tokens: options.tokens ?? {}, loopback: options.loopback ?? true }),
    traffic: options.traffic ?? new Traffic(),
    version: "test",
    ...(options.maxLagMs === undefined ? {} : { maxLagMs: options.maxLagMs }),
    onShutdown: () => () => {},
  }, (text) => log.push(text));
  return {
    node,
    volume,
    log,
    get: async (path, init) => await app.fetch(new Request(`http://localhost${path}`, init)),
    async publish(name, files): Promise<string> {
      const snapshot = await volume.exclusive((writer) => {
        for (const [path, content] of Object.entries(files)) {
          const [directory, file] = path.includes("/") ? path.split("/") : ["", path];
          let parent: number = INO.root;
          if (directory !== "") {
            parent = writer.fs.lookup(INO.root, directory) ??
              writer.fs.create(INO.root, directory, { type: "directory", permissions: 0o755 });
          }
          const ino = writer.fs.lookup(parent, file) ??
            writer.fs.create(parent, file, { type: "file" });
          writer.fs.truncate(ino, 0);
          const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
          writer.fs.write(ino, 0, bytes);
        }
        return writer.takeSnapshot(name, { pointers: ["master"] });
      });
      return snapshot.id;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await volume.close();
    },
  };
}

/** JSON of an answer. */
export async function json(response: Response): Promise<Record<string, unknown>> {
  return await response.json();
}
