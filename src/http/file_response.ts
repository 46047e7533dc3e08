/**
 * A file of a volume as an HTTP answer.
 *
 * Invariants:
 * 1. One answer reads one root from its first to its last byte: it holds a view until it has ended.
 * 2. The entity tag is strong and equal at every node: it is made of what is replicated.
 *
 * @module
 */

import { contentType } from "@std/media-types";
import { checksum } from "../format/mod.ts";
import type { FileInfo, View } from "../volume/mod.ts";
import { checkPreconditions, rangeOf } from "./ranges.ts";

/** Bytes read at once. */
const CHUNK_BYTES = 256 * 1024;
/** Up to this size a file is read whole, without a stream. */
const SMALL_BYTES = 64 * 1024;

/**
 * The strong entity tag of a file, with quotes. The checksum of its pointers is in it, so that histories
 * that went apart (an origin restored from a backup) do not give one tag to two contents.
 */
export function fileEtag(volumeId: string, info: FileInfo, slots: Uint8Array): string {
  const parts = [info.ino, info.generation, info.version, info.size, checksum(slots)];
  return `"${volumeId.slice(0, 8)}-${parts.map((part) => part.toString(36)).join("-")}"`;
}

/** The answer to GET or HEAD for a regular file. Takes over the view. */
export function fileResponse(
  request: Request,
  view: View,
  file: { info: FileInfo; name: string; volumeId: string; headers?: HeadersInit },
): Response {
  const { info } = file;
  const lastModified = Number(info.mtime / 1_000_000n);
  const etag = fileEtag(file.volumeId, info, view.fs.open(info.ino).inode.slots);
  const headers = new Headers(file.headers);
  headers.set("etag", etag);
  headers.set("last-modified", new Date(lastModified).toUTCString());
  headers.set("accept-ranges", "bytes");
  headers.set("cache-control", "no-cache");
  headers.set("x-content-type-options", "nosniff");
  const done = (status: number): Response => {
    view.release();
    return new Response(null, { status, headers });
  };
  const precondition = checkPreconditions(request.headers, { etag, lastModified });
  if (precondition !== 200) return done(precondition);
  headers.set("content-type", typeOf(file.name));
  const range = rangeOf(request, info.size, { etag, lastModified });
  if (range === "unsatisfiable") {
    headers.set("content-range", `bytes */${info.size}`);
    return done(416);
  }
  const { start, end } = range === "whole" ? { start: 0, end: info.size } : range;
  const status = range === "whole" ? 200 : 206;
  if (range !== "whole") headers.set("content-range", `bytes ${start}-${end - 1}/${info.size}`);
  headers.set("content-length", String(end - start));
  if (request.method === "HEAD") return done(status);
  if (end - start <= SMALL_BYTES) {
    const body = new Uint8Array(end - start);
    try {
      view.fs.read(info.ino, start, body);
    } finally {
      view.release();
    }
    return new Response(body, { status, headers });
  }
  return new Response(fileStream(view, info.ino, { start, end }), { status, headers });
}

/** Content of a file as a stream that reads only when pulled, and releases the view at its end. */
export function fileStream(
  view: View,
  ino: number,
  range: { start: number; end: number },
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let position = range.start;
  return new ReadableStream({
    pull(controller): void {
      try {
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, range.end - position));
        view.fs.read(ino, position, chunk);
        position += chunk.length;
        if (chunk.length > 0) controller.enqueue(chunk);
        if (position < range.end) return;
        view.release();
        controller.close();
      } catch (error) {
        view.release();
        controller.error(error);
      }
    },
    cancel: () => view.release(),
  }, { highWaterMark: 0 });
}

const types = new Map<string, string>();

function typeOf(name: string): string {
  const dot = name.lastIndexOf(".");
  const extension = dot < 0 ? "" : name.slice(dot).toLowerCase();
  let type = types.get(extension);
  if (type === undefined) {
    type = (extension === "" ? undefined : contentType(extension) as string | undefined) ??
      "application/octet-stream";
    if (types.size < 1000) types.set(extension, type);
  }
  return type;
}
