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
import { type ByteRange, checkPreconditions, rangeOf } from "./ranges.ts";

/** Bytes read at once. */
const CHUNK_BYTES = 256 * 1024;
/** Up to this size content is read at once, without a stream. */
export const SMALL_BYTES = 64 * 1024;

/**
 * The strong entity tag of a file, with quotes. The checksum of its pointers is in it, so that histories
 * that went apart (an origin restored from a backup) do not give one tag to two contents.
 */
export function fileEtag(volumeId: string, info: FileInfo, slots: Uint8Array): string {
  const parts = [info.ino, info.generation, info.version, info.size, checksum(slots)];
  return `"${volumeId.slice(0, 8)}-${parts.map((part) => part.toString(36)).join("-")}"`;
}

/** What answers say of a file's content, whatever was asked. */
export interface Content {
  /** Strong entity tag with quotes. */
  readonly etag: string;
  /** ms since 1970. */
  readonly lastModified: number;
  /** Bytes. */
  readonly size: number;
  /** Headers of every answer. */
  readonly headers: Fields;
  /** Headers of an answer with all of it. */
  readonly whole: Fields;
}

/** Headers as pairs. */
export type Fields = [name: string, value: string][];

/**
 * What is to be said of a regular file.
 * @param file.fields Headers that its answers get besides.
 */
export function contentOf(
  view: View,
  { info, name, volumeId, fields = [] }: FileOfVolume,
): Content {
  const lastModified = Number(info.mtime / 1_000_000n);
  const etag = fileEtag(volumeId, info, view.fs.open(info.ino).inode.slots);
  const headers: Fields = [
    ...fields,
    ["etag", etag],
    ["last-modified", new Date(lastModified).toUTCString()],
    ["accept-ranges", "bytes"],
    ["cache-control", "no-cache"],
  ];
  const { size } = info;
  const whole: Fields = [
    ...headers,
    ["content-type", typeOf(name)],
    ["content-length", String(size)],
  ];
  return { etag, lastModified, size, headers, whole };
}

/**
 * The answer to GET or HEAD for content.
 *
 * @param bodyOf Gives bytes of it; is called once, or not at all where the answer has none.
 */
export function contentResponse(
  request: Request,
  content: Content,
  bodyOf: (range: ByteRange) => BodyInit,
): Response {
  const status = checkPreconditions(request.headers, content);
  if (status !== 200) return new Response(null, { status, headers: content.headers });
  const { size } = content;
  const range = rangeOf(request, size, content);
  if (range === "whole") {
    const body = request.method === "HEAD" ? null : bodyOf({ start: 0, end: size });
    return new Response(body, { headers: content.whole });
  }
  if (range === "unsatisfiable") {
    const headers: Fields = [...content.headers, ["content-range", `bytes */${size}`]];
    return new Response(null, { status: 416, headers });
  }
  const { start, end } = range;
  const headers = new Headers(content.whole);
  headers.set("content-range", `bytes ${start}-${end - 1}/${size}`);
  headers.set("content-length", String(end - start));
  return new Response(bodyOf(range), { status: 206, headers });
}

/** A regular file of a volume. */
export interface FileOfVolume {
  readonly info: FileInfo;
  readonly name: string;
  readonly volumeId: string;
  readonly fields?: Fields;
}

/** The answer to GET or HEAD for a regular file. Takes over the view. */
export function fileResponse(request: Request, view: View, file: FileOfVolume): Response {
  const { ino } = file.info;
  let isStreamed = false;
  try {
    return contentResponse(request, contentOf(view, file), (range) => {
      if (range.end - range.start <= SMALL_BYTES) return bytesOf(view, ino, range);
      isStreamed = true;
      return fileStream(view, ino, range);
    });
  } finally {
    if (!isStreamed) view.release();
  }
}

/** Bytes of a file. */
export function bytesOf(
  view: View,
  ino: number,
  { start, end }: ByteRange,
): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(end - start);
  view.fs.read(ino, start, body);
  return body;
}

/** Content of a file as a stream that reads only when pulled, and releases the view at its end. */
export function fileStream(
  view: View,
  ino: number,
  range: ByteRange,
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
