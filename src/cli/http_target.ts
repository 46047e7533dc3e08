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
import { messageOf, VolcastError } from "../core/mod.ts";
import type { TypeName } from "../format/mod.ts";
import {
  authorizationOf,
  errorOf,
  nameOf,
  type ServerOptionsOfClient,
  type SnapshotInfo,
  unreachableHint,
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
export class HttpTarget implements Target {
  readonly name: string;
  readonly #options: ServerOptionsOfClient;
  readonly #ending = new AbortController();

  /** @param url Where the server listens. */
  constructor(url: string, options: ServerOptionsOfClient = {}) {
    this.name = nameOf(url);
    this.#options = options;
  }

  get #token(): string | undefined {
    return this.#options.token ?? this.#options.credentials?.tokenFor(this.name);
  }

  async importTree(entries: Entries, options: ImportOptions = {}): Promise<ImportReport> {
    const query = new URLSearchParams({
      ...(options.into === undefined ? {} : { into: options.into }),
      ...(options.prune ? { prune: "1" } : {}),
      ...(options.checksum ? { checksum: "1" } : {}),
    });
    return await this.#send(`/import?${query}`, entries, options, REPORT);
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
    return await this.#send(`/publish?${query}`, entries, options, result);
  }

  async *entries(ref?: string, path?: string): AsyncGenerator<TreeEntry> {
    const query = new URLSearchParams({
      ...(ref === undefined ? {} : { at: ref }),
      ...(path === undefined ? {} : { path }),
    });
    const response = await this.#fetch(`/archive?${query}`);
    yield* entriesFromTar(bodyOf(response));
  }

  status(): Promise<Record<string, unknown>> {
    return this.#json("/status", z.record(z.string(), z.unknown()));
  }

  async snapshots(): Promise<SnapshotInfo[]> {
    return (await this.#json("/snapshots", z.object({ snapshots: z.array(SNAPSHOT) }))).snapshots;
  }

  createSnapshot(name: string, options: { pointers?: string[] } = {}): Promise<SnapshotInfo> {
    return this.#json("/snapshots", SNAPSHOT, jsonBody("POST", { name, ...options }));
  }

  shadowSnapshot(ref: string): Promise<ShadowInfo> {
    const path = `/snapshots/${encodeURIComponent(ref)}`;
    return this.#json(path, SHADOW, jsonBody("PATCH", { kind: "shadow" }));
  }

  async deleteSnapshot(ref: string): Promise<void> {
    const path = `/snapshots/${encodeURIComponent(ref)}`;
    await (await this.#fetch(path, { method: "DELETE" })).body?.cancel();
  }

  async pointers(): Promise<PointerInfo[]> {
    return (await this.#json("/pointers", z.object({ pointers: z.array(POINTER) }))).pointers;
  }

  setPointer(name: string, ref: string): Promise<PointerInfo> {
    const path = `/pointers/${encodeURIComponent(name)}`;
    return this.#json(path, POINTER, jsonBody("PUT", { snapshot: ref }));
  }

  plan(select: string): Promise<Plan> {
    return this.#json(`/plan?${new URLSearchParams({ select })}`, PLAN);
  }

  async *diff(from: string, to: string): AsyncGenerator<TreeChange> {
    yield* this.#lines(`/diff?${new URLSearchParams({ from, to })}`, TREE_CHANGE);
  }

  promote(): Promise<Record<string, unknown>> {
    return this.#json("/promote", z.record(z.string(), z.unknown()), { method: "POST" });
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
    return bodyOf(await this.#fetch(`/files/${encodePath(path)}${query}`));
  }

  async image(wanted: ImageRequest): Promise<ImageBytes> {
    const response = await this.#fetch(`/image?${new URLSearchParams({ ...wanted })}`);
    return {
      stream: bodyOf(response),
      byteCount: Number(response.headers.get("content-length")),
    };
  }

  async rangedImage(wanted: ImageRequest, signal: AbortSignal): Promise<RangedImage> {
    const url = `${this.name}/image?${new URLSearchParams({ ...wanted })}`;
    try {
      return await RemoteBytes.open(url, { ...this.#options, signal });
    } catch (error) {
      throw this.#unreachable(error);
    }
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
    schema: z.ZodType<T>,
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
    const response = await this.#fetch(path);
    const lines = bodyOf(response).pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream());
    for await (const line of lines as AsyncIterable<string>) {
      if (line !== "") yield this.#checked(schema, JSON.parse(line));
    }
  }

  async #json<T>(path: string, schema: z.ZodType<T>, init: RequestInit = {}): Promise<T> {
    const response = await this.#fetch(path, init);
    let value: unknown;
    try {
      value = await response.json();
    } catch (error) {
      throw this.#unreachable(error);
    }
    return this.#checked(schema, value);
  }

  #checked<T>(schema: z.ZodType<T>, value: unknown): T {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new VolcastError(
      "io",
      `Cannot understand ${this.name}: ${z.prettifyError(parsed.error)}`,
      "Check that the URL is that of a volcast server, of about this version",
    );
  }

  async #fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("accept-encoding", "identity");
    const token = this.#token;
    for (const [name, value] of Object.entries(authorizationOf(token))) headers.set(name, value);
    const { signal } = this.#ending;
    const client = this.#options.credentials?.client;
    let response: Response;
    try {
      response = await fetch(this.name + path, {
        ...init,
        headers,
        signal,
        ...(client === undefined ? {} : { client }),
      });
    } catch (error) {
      throw this.#unreachable(error);
    }
    if (response.ok) return response;
    throw await errorOf(response, this.name, token);
  }

  #unreachable(error: unknown): VolcastError {
    if (error instanceof VolcastError) return error;
    const reason = reasonOf(error);
    return new VolcastError(
      "io",
      `Cannot reach ${this.name}: ${reason}`,
      unreachableHint(reason, "Check that the server runs and that the URL is its own"),
      { cause: error },
    );
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

/** What went wrong: of `fetch failed` the cause says it. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return messageOf(cause ?? error);
}

function bodyOf(response: Response): ReadableStream<Uint8Array<ArrayBuffer>> {
  return response.body ?? new Response("").body!;
}

function jsonBody(method: string, value: unknown): RequestInit {
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
