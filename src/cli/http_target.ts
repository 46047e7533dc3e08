/**
 * A volume that a server has, reached over HTTP.
 *
 * Trees travel as tar. Before one is sent, the server's listing is fetched, so that files it has
 * already go as headers without content; the server compares again, and refuses what is not so.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { z } from "zod";
import {
  entriesFromTar,
  type ImportOptions,
  type ImportReport,
  tarFromEntries,
  type TreeEntry,
} from "../archive/mod.ts";
import { messageOf, UnansweredError, VolcastError } from "../core/mod.ts";
import type { TypeName } from "../format/mod.ts";
import {
  AskedServer,
  bodyOf,
  requestFrom,
  requestJson,
  type RequestOptions,
  type ServerOptionsOfClient,
  type SnapshotInfo,
  understood,
} from "../http/mod.ts";
import type { DeletePlan, Plan, RangedImage } from "../image/mod.ts";
import { ACTIVE, type TreeChange } from "../volume/mod.ts";
import { RemoteBytes } from "./remote_bytes.ts";
import type {
  Entries,
  FileDescription,
  ImageBytes,
  ImageRequest,
  PointerInfo,
  PublishOptions,
  ShadowInfo,
  Target,
} from "./target.ts";

/** Entries of a directory that one request asks for. */
const LIST_LIMIT = 1000;

/** Longest wait for an answer, ms: planning and, more, writing at the other end take their time. */
const ANSWER_MS = { reading: 120_000, writing: 600_000 } as const;

const count = z.number().int().nonnegative();
const time = z.string().regex(/^-?\d+$/).transform(BigInt);
const TYPE = z.enum(
  [
    "file",
    "directory",
    "symlink",
    "charDevice",
    "blockDevice",
    "fifo",
    "socket",
  ] as const satisfies TypeName[],
);
const SNAPSHOT = z.object({
  id: z.string(),
  name: z.string(),
  // Servers before shadows said nothing of it.
  kind: z.enum(["regular", "shadow"]).default("regular"),
  cp: count,
  time: z.string(),
  blocks: count,
  bytes: count,
  pointers: z.array(z.string()),
});
const SHADOW = SNAPSHOT.extend({ releasedBlocks: count });
const POINTER = z.object({ name: z.string(), snapshot: z.string(), snapshotName: z.string() });
const names = z.array(z.string());
const PLAN = z.object({
  blocks: count,
  bytes: count,
  runs: count,
  blockBytes: count,
  restores: names,
  bases: names,
  needs: z.enum(["nothing", "one", "all"]),
});
const DELETE_PLAN = z.object({ snapshots: names, blocks: count, bytes: count });
const FILE = z.object({
  path: z.string(),
  name: z.string(),
  ino: count,
  type: TYPE,
  mode: count,
  uid: count,
  gid: count,
  nlink: count,
  size: count,
  atime: time,
  mtime: time,
  ctime: time,
  btime: time,
  rdev: count,
  dos: count,
  generation: count,
  version: count,
  target: z.string().optional(),
  xattrs: z.record(z.string(), z.string()).optional(),
});
const LISTING = FILE.extend({ entries: z.array(FILE).optional(), next: z.string().optional() });
const REPORT = z.object({
  files: count,
  directories: count,
  symlinks: count,
  hardLinks: count,
  others: count,
  bytesRead: count,
  unchanged: count,
  created: count,
  changed: count,
  removed: count,
  skipped: z.array(z.object({ path: z.string(), reason: z.string() })),
  skippedCount: count,
});
const TREE_CHANGE = z.object({
  kind: z.enum(["created", "changed", "removed"]),
  path: z.string(),
  type: TYPE,
});
const TREE_LINE = z.object({ path: z.string(), type: TYPE, size: count, mtime: time });

/** See the module. */
export class HttpTarget extends AskedServer implements Target {
  readonly #options: ServerOptionsOfClient;
  readonly #ending = new AbortController();

  /** @param url Where the server listens. */
  constructor(url: string, options: ServerOptionsOfClient = {}) {
    super(url, options);
    this.#options = options;
  }

  async importTree(entries: Entries, options: ImportOptions = {}): Promise<ImportReport> {
    const query = new URLSearchParams({
      ...(options.into === undefined ? {} : { into: options.into }),
      ...(options.prune ? { prune: "1" } : {}),
      ...(options.checksum ? { checksum: "1" } : {}),
    });
    return await this.#send(`/import?${query}`, entries, options, {
      schema: REPORT,
      ifUnknown: `Run it again: what is at ${this.name} already stays as it is`,
    });
  }

  async publish(
    entries: Entries,
    options: PublishOptions,
  ): Promise<{ report: ImportReport; snapshot: SnapshotInfo }> {
    const query = new URLSearchParams({
      as: options.as,
      ...(options.pointer === undefined ? {} : { pointer: options.pointer }),
      ...(options.checksum ? { checksum: "1" } : {}),
    });
    const result = z.object({ report: REPORT, snapshot: SNAPSHOT });
    return await this.#send(`/publish?${query}`, entries, options, {
      schema: result,
      ifUnknown: `${this.#seeSnapshots}. If '${options.as}' is not there, run it again`,
    });
  }

  async *entries(ref?: string, path?: string): AsyncGenerator<TreeEntry> {
    const query = new URLSearchParams({
      ...(ref === undefined ? {} : { at: ref }),
      ...(path === undefined ? {} : { path }),
    });
    yield* entriesFromTar(this.#body(await this.#request(`/archive?${query}`)));
  }

  status(): Promise<Record<string, unknown>> {
    return this.#json("/status", z.record(z.string(), z.unknown()));
  }

  async snapshots(): Promise<SnapshotInfo[]> {
    return (await this.#json("/snapshots", z.object({ snapshots: z.array(SNAPSHOT) }))).snapshots;
  }

  createSnapshot(name: string, options: { pointers?: string[] } = {}): Promise<SnapshotInfo> {
    return this.#json("/snapshots", SNAPSHOT, {
      ...jsonBody("POST", { name, ...options }),
      ifUnknown: this.#seeSnapshots,
    });
  }

  shadowSnapshot(ref: string): Promise<ShadowInfo> {
    const path = `/snapshots/${encodeURIComponent(ref)}`;
    return this.#json(path, SHADOW, {
      ...jsonBody("PATCH", { kind: "shadow" }),
      ifUnknown: this.#seeSnapshots,
    });
  }

  async deleteSnapshot(ref: string): Promise<void> {
    const path = `/snapshots/${encodeURIComponent(ref)}`;
    const options = { method: "DELETE", ifUnknown: this.#seeSnapshots };
    await (await this.#request(path, options)).body?.cancel();
  }

  async pointers(): Promise<PointerInfo[]> {
    return (await this.#json("/pointers", z.object({ pointers: z.array(POINTER) }))).pointers;
  }

  setPointer(name: string, ref: string): Promise<PointerInfo> {
    const path = `/pointers/${encodeURIComponent(name)}`;
    return this.#json(path, POINTER, {
      ...jsonBody("PUT", { snapshot: ref }),
      ifUnknown: `See whether it was: volcast pointer list ${this.name}. It may be done again`,
    });
  }

  plan(select: string): Promise<Plan> {
    return this.#json(`/plan?${new URLSearchParams({ select })}`, PLAN);
  }

  async *diff(from: string, to: string): AsyncGenerator<TreeChange> {
    yield* this.#lines(`/diff?${new URLSearchParams({ from, to })}`, TREE_CHANGE);
  }

  promote(): Promise<Record<string, unknown>> {
    return this.#json("/promote", z.record(z.string(), z.unknown()), {
      method: "POST",
      ifUnknown: `See whether it was: volcast status ${this.name}, whose role then is origin`,
    });
  }

  planDelete(refs: readonly string[]): Promise<DeletePlan> {
    return this.#json(`/plan?${new URLSearchParams({ delete: refs.join(",") })}`, DELETE_PLAN);
  }

  async stat(path: string, ref?: string): Promise<FileDescription> {
    const { entries: _, next: __, ...file } = await this.#listing(path, ref, { limit: "1" });
    return file;
  }

  async *list(path: string, ref?: string): AsyncGenerator<FileDescription> {
    let after: string | undefined;
    do {
      const page = await this.#listing(path, ref, {
        limit: String(LIST_LIMIT),
        ...(after === undefined ? {} : { after }),
      });
      const { entries, next, ...file } = page;
      if (entries === undefined) {
        yield file;
        return;
      }
      yield* entries;
      after = next;
    } while (after !== undefined);
  }

  async read(path: string, ref?: string): Promise<ReadableStream<Uint8Array>> {
    const info = await this.stat(path, ref);
    if (info.type === "directory") {
      throw new VolcastError("usage", `Cannot read '${path}': it is a directory, not a file`);
    }
    const query = ref === undefined ? "" : `?${new URLSearchParams({ at: ref })}`;
    return this.#body(await this.#request(`/files/${encodePath(path)}${query}`));
  }

  async image(wanted: ImageRequest): Promise<ImageBytes> {
    const response = await this.#request(`/image?${new URLSearchParams({ ...wanted })}`);
    return {
      stream: this.#body(response),
      byteCount: Number(response.headers.get("content-length")),
    };
  }

  async rangedImage(wanted: ImageRequest, signal: AbortSignal): Promise<RangedImage> {
    const url = `${this.name}/image?${new URLSearchParams({ ...wanted })}`;
    return await RemoteBytes.open(url, { ...this.#options, signal });
  }

  close(): Promise<void> {
    this.#ending.abort();
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #listing(
    path: string,
    ref: string | undefined,
    page: Record<string, string>,
  ): Promise<z.output<typeof LISTING>> {
    const query = new URLSearchParams({
      ...page,
      format: "json",
      ...(ref === undefined ? {} : { at: ref }),
    });
    return this.#json(`/files/${encodePath(path)}?${query}`, LISTING);
  }

  /** Sends a tree as tar. */
  async #send<T>(
    path: string,
    entries: Entries,
    options: Pick<ImportOptions, "into" | "checksum" | "progress">,
    { schema, ifUnknown }: { schema: z.ZodType<T>; ifUnknown: string },
  ): Promise<T> {
    const known = options.checksum ? undefined : await this.#knownFiles();
    // What goes wrong here is the reason; that the server saw its request end is not.
    let failure: unknown;
    const sent = withoutKnown(entries, known, options);
    const body = tarFromEntries(catching(sent, (error) => failure = error));
    try {
      return await this.#json(path, schema, {
        method: "POST",
        body,
        headers: { "content-type": "application/x-tar" },
        ifUnknown,
      });
    } catch (error) {
      throw failure ?? error;
    }
  }

  /** Size and mtime of the files of the active file system, by path. */
  async #knownFiles(): Promise<Map<string, string>> {
    const known = new Map<string, string>();
    for await (const line of this.#lines(`/tree?at=${ACTIVE}`, TREE_LINE)) {
      const { path, type, size, mtime } = line;
      if (type === "file") known.set(path, `${size} ${mtime}`);
    }
    return known;
  }

  /** An answer of JSON objects, one a line. */
  async *#lines<T>(path: string, schema: z.ZodType<T>): AsyncGenerator<T> {
    const lines = this.#body(await this.#request(path))
      .pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .pipeThrough(new TextLineStream());
    try {
      for await (const line of lines as AsyncIterable<string>) {
        if (line !== "") yield understood(schema, JSON.parse(line), this.name);
      }
    } catch (error) {
      throw this.#broken(error);
    }
  }

  /** What came broke off, or was not what it should be. */
  #broken(error: unknown): VolcastError {
    if (error instanceof VolcastError) return error;
    return new UnansweredError(
      `Cannot read the answer of ${this.name}: ${messageOf(error)}`,
      "Run it again",
      { isPassing: true, cause: error },
    );
  }

  get #seeSnapshots(): string {
    return `See whether it was: volcast snapshot list ${this.name}`;
  }

  #json<T>(path: string, schema: z.ZodType<T>, options: RequestOptions = {}): Promise<T> {
    return requestJson(this, path, schema, this.#with(options));
  }

  #request(path: string, options: RequestOptions = {}): Promise<Response> {
    return requestFrom(this, path, this.#with(options));
  }

  #with(options: RequestOptions): RequestOptions {
    const answerMs = ANSWER_MS[options.method === undefined ? "reading" : "writing"];
    return { answerMs, ...options, signal: this.#ending.signal };
  }

  #body(response: Response): ReadableStream<Uint8Array<ArrayBuffer>> {
    const options = { signal: this.#ending.signal, patience: this.patience };
    return bodyOf(response, this.name, options) as ReadableStream<
      Uint8Array<ArrayBuffer>
    >;
  }
}

/** The entries, files that the server has already without their content. */
async function* withoutKnown(
  entries: Entries,
  known: ReadonlyMap<string, string> | undefined,
  options: Pick<ImportOptions, "into" | "progress">,
): AsyncGenerator<TreeEntry> {
  const into = (options.into ?? "").split("/").filter((name) => name !== "" && name !== ".");
  const prefix = into.map((name) => `${name}/`).join("");
  const done = { entries: 0, bytes: 0 };
  for await (const entry of entries) {
    done.entries++;
    const isKnown = entry.type === "file" && entry.linkTo === undefined &&
      known?.get(prefix + entry.path) === `${entry.size} ${entry.mtime}`;
    if (!isKnown) done.bytes += entry.size;
    options.progress?.(done);
    const { read: _, ...header } = entry;
    yield isKnown ? { ...header, unchanged: true } : entry;
  }
}

async function* catching<T>(
  items: AsyncIterable<T>,
  caught: (error: unknown) => void,
): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (error) {
    caught(error);
    throw error;
  }
}

function jsonBody(method: string, value: unknown): RequestOptions {
  return {
    method,
    body: JSON.stringify(value),
    headers: { "content-type": "application/json" },
  };
}

function encodePath(path: string): string {
  return path.split("/").filter((name) => name !== "" && name !== ".").map(encodeURIComponent)
    .join("/");
}
