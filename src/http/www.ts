/**
 * The content-only server: files of the published snapshot at `/`, and no other route.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import type { Node } from "../replication/mod.ts";
import { type FileInfo, MASTER, type View } from "../volume/mod.ts";
import {
  bytesOf,
  contentOf,
  contentResponse,
  type Fields,
  fileResponse,
  SMALL_BYTES,
} from "./file_response.ts";
import { pathAsSent } from "./limits.ts";
import { isPlain } from "./ranges.ts";
import { partOf, type ReadyFile, readyFile, ReadyFiles } from "./ready_files.ts";
import { pathOf } from "./routes/files.ts";
import { safeFields } from "./safe_headers.ts";

const SAFE: Fields = safeFields("site");

/** Answers requests for a node's public content. */
export class ContentServer {
  readonly #node: Node;
  readonly #ready = new ReadyFiles();

  constructor(node: Node) {
    this.#node = node;
  }

  /** The answer, whatever was asked. */
  answer(request: Request): Response {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return plain(405, "Method not allowed", ["allow", "GET, HEAD"]);
    }
    try {
      const { volume } = this.#node;
      const master = volume.find(MASTER);
      if (master === undefined) return this.#read(request, volume.view());
      const release = `${volume.volumeId} ${master.id}`;
      const address = pathAsSent(request.url);
      const file = this.#ready.find(release, address);
      if (file === undefined) return this.#read(request, volume.view(master.id), release);
      return answerWith(request, file);
    } catch (error) {
      return refusalOf(error);
    }
  }

  /** Reads the file that is asked for. Takes over the view. @param release Where it may be kept. */
  #read(request: Request, view: View, release?: string): Response {
    let isHandedOver = false;
    try {
      const file = fileAt(request.url, view);
      if (file instanceof Response) return file;
      const found = { ...file, volumeId: this.#node.volume.volumeId, fields: SAFE };
      const { ino, size } = file.info;
      if (release === undefined || size > SMALL_BYTES) {
        isHandedOver = true;
        return fileResponse(request, view, found);
      }
      const content = contentOf(view, found);
      const bytes = bytesOf(view, ino, { start: 0, end: size });
      const ready = readyFile(content, bytes);
      this.#ready.keep(release, pathAsSent(request.url), ready);
      return answerWith(request, ready);
    } finally {
      if (!isHandedOver) view.release();
    }
  }
}

/** The file at a URL's path, or the answer that says where it is. @throws {VolcastError} `not-found`. */
function fileAt(url: string, { fs }: View): { info: FileInfo; name: string } | Response {
  const path = pathOf(url, "");
  const info = fs.stat(fs.resolve(path));
  if (info.type === "file") return { info, name: path };
  if (info.type !== "directory") throw new VolcastError("not-found", "not a file");
  if (!path.endsWith("/")) {
    const { pathname } = new URL(url);
    return plain(301, "Moved", ["location", `${pathname.replace(/^\/+/, "/")}/`]);
  }
  const name = `${path}index.html`;
  const index = fs.stat(fs.resolve(name));
  if (index.type !== "file") throw new VolcastError("not-found", "not a file");
  return { info: index, name };
}

function answerWith(request: Request, file: ReadyFile): Response {
  const { content, body } = file;
  if (isPlain(request)) return new Response(body, { headers: content.whole });
  return contentResponse(request, content, (range) => partOf(file, range));
}

function refusalOf(error: unknown): Response {
  if (!(error instanceof VolcastError)) throw error;
  if (error.kind === "busy") return plain(503, "Not ready yet", ["retry-after", "2"]);
  if (error.kind === "damaged") return plain(500, "Cannot read this file");
  return plain(404, "Not found");
}

function plain(status: number, text: string, ...fields: Fields): Response {
  const headers: Fields = [...SAFE, ["content-type", "text/plain; charset=utf-8"], ...fields];
  return new Response(`${text}\n`, { status, headers });
}
