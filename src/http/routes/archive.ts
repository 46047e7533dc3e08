/**
 * `/archive`, `/import`, `/publish`, `/tree`: whole trees in and out, as tar.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import {
  entriesFromTar,
  importTree,
  tarFromEntries,
  treeEntries,
  type TreeEntry,
} from "../../archive/mod.ts";
import { VolcastError } from "../../core/mod.ts";
import { INO } from "../../format/mod.ts";
import { type FileSystem, MASTER, SeenDirectories, type View } from "../../volume/mod.ts";
import { bodyOf } from "../body.ts";
import { snapshotJson } from "../describe.ts";
import type { Env, RouteContext } from "../env.ts";
import { linesResponse } from "../lines_response.ts";
import { FLAG, readQuery, REF } from "../validate.ts";

const PATH = z.string().max(4096);

/** See the module. */
export const archiveRoutes = new Hono<Env>();

archiveRoutes.get("/archive", (c) => {
  const query = readQuery(c, z.strictObject({ at: REF.optional(), path: PATH.default("") }));
  const { volume } = c.get("node");
  const view = volume.view(query.at ?? (volume.find(MASTER) === undefined ? "active" : MASTER));
  try {
    view.fs.resolve(query.path);
    if (c.req.raw.method === "HEAD") {
      view.release();
      return c.body(null, 200, { "content-type": "application/x-tar" });
    }
    const tar = tarFromEntries(treeEntries(view.fs, query.path));
    return c.body(reading(tar, view), 200, {
      "content-type": "application/x-tar",
      "cache-control": "no-cache, no-transform",
    });
  } catch (error) {
    view.release();
    throw error;
  }
});

archiveRoutes.get("/tree", (c) => {
  const query = readQuery(c, z.strictObject({ at: REF.default("active") }));
  const view = c.get("node").volume.view(query.at);
  return linesResponse(c, treeLines(view.fs), [view]);
});

archiveRoutes.post("/import", async (c) => {
  const query = readQuery(
    c,
    z.strictObject({
      into: PATH.optional(),
      prune: FLAG.default(false),
      checksum: FLAG.default(false),
    }),
  );
  const { into, ...options } = query;
  const report = await c.get("node").volume.exclusive(async (writer) => {
    const done = await importTree(writer, tarEntries(c), {
      ...options,
      ...(into === undefined ? {} : { into }),
    });
    await writer.checkpoint();
    return done;
  });
  return c.json(report);
});

archiveRoutes.post("/publish", async (c) => {
  const query = readQuery(
    c,
    z.strictObject({
      as: z.string(),
      pointer: z.string().default(MASTER),
      checksum: FLAG.default(false),
    }),
  );
  const node = c.get("node");
  const { volume } = node;
  const result = await volume.exclusive(async (writer) => {
    // Before a byte is taken: a name that is in use would make all of it for nothing.
    writer.checkSnapshotName(query.as, [query.pointer]);
    const report = await importTree(writer, tarEntries(c), {
      prune: true,
      checksum: query.checksum,
    });
    const snapshot = await writer.takeSnapshot(query.as, { pointers: [query.pointer] });
    return { report, snapshot };
  });
  if (query.pointer === MASTER) node.announceMaster();
  return c.json({ report: result.report, snapshot: snapshotJson(volume, result.snapshot) }, 201);
});

/** The entries of the tar in a request's body; what is wrong with it is the client's mistake. */
async function* tarEntries(c: RouteContext): AsyncGenerator<TreeEntry> {
  const { bodyBytes } = c.get("options").traffic.limits;
  // The volume is held while the tree comes in; a client that fell silent must not hold it for ever.
  const body = bodyOf(c, { maxBytes: bodyBytes });
  if (c.req.raw.body === null) {
    throw new VolcastError("usage", "Cannot import: the request has no body");
  }
  try {
    yield* entriesFromTar(body);
  } catch (error) {
    if (!(error instanceof VolcastError) || error.kind !== "damaged") throw error;
    throw new VolcastError("usage", error.message, error.hint, { cause: error });
  }
}

function* treeLines(fs: FileSystem): Generator<string> {
  const seen = new SeenDirectories();
  function* walk(directory: number, prefix: string): Generator<string> {
    seen.enter(directory, prefix);
    for (const entry of fs.list(directory)) {
      const { ino, type, size, mtime } = fs.stat(entry.ino);
      const path = `${prefix}${entry.name}`;
      yield JSON.stringify({ path, type, size, mtime: String(mtime), ino }) + "\n";
      if (type === "directory") yield* walk(ino, `${path}/`);
    }
  }
  yield* walk(INO.root, "");
}

/** A stream that is read through a view: only while that holds, and it is released at the end. */
function reading(
  stream: ReadableStream<Uint8Array>,
  view: View,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  const end = () => view.release();
  return new ReadableStream({
    async pull(controller): Promise<void> {
      try {
        void view.fs;
        const { value, done } = await reader.read();
        if (!done) return controller.enqueue(value as Uint8Array<ArrayBuffer>);
        end();
        controller.close();
      } catch (error) {
        end();
        controller.error(error);
      }
    },
    async cancel(reason): Promise<void> {
      end();
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
