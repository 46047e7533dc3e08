/**
 * An image as an HTTP answer: exact length, strong entity tag, ranges, and the canonical URL.
 *
 * @module
 */

import { constants, createGzip, createZstdCompress } from "node:zlib";
import { VolcastError } from "../core/mod.ts";
import type { Image } from "../image/mod.ts";
import type { Traffic } from "./limits.ts";
import { checkPreconditions, rangeOf } from "./ranges.ts";
import { recoded } from "./recoded.ts";
import { HEADERS } from "./state_headers.ts";
import { throttled } from "./throttle.ts";

/** How an image is answered. */
export interface ImageResponseOptions {
  /** The canonical URL, whose answers never change. */
  readonly immutable: boolean;
  /** The byte from which on the image is wanted, compressed: what is compressed has no ranges. */
  readonly from?: number | undefined;
  /** Why the image is full although a base was named. */
  readonly fullBecause?: string | undefined;
  /** Counts it, and says how fast it may go. */
  readonly traffic: Traffic;
}

/** Path of the canonical URL of an image. */
export function canonicalPath(image: Image): string {
  const { query, name: { volumeId, base, top } } = image;
  const path = `/images/${volumeId}`;
  if (query?.name === "select") return `${path}?${new URLSearchParams({ select: query.value })}`;
  const ends = `${path}/${base ?? "full"}/${top}`;
  return query === undefined ? ends : `${ends}?${query.name}=${query.value}`;
}

/** The answer to GET or HEAD. @throws {Refusal} Where too many images are being sent. */
export function imageResponse(
  request: Request,
  image: Image,
  options: ImageResponseOptions,
): Response {
  const { from } = options;
  if (from !== undefined) checkRest(request, image, from);
  const headers = imageHeaders(image, options);
  // HEAD is the plan: it tells the exact bytes of the stream itself, whatever its asker could unpack.
  const isPlain = request.method === "HEAD" || request.headers.has("range") ||
    (options.immutable && from === undefined);
  const encoding = isPlain ? undefined : encodingFor(request.headers.get("accept-encoding"));
  const etag = encoding === undefined
    ? `"${image.etag}"`
    : encodedEtag(`"${image.etag}"`, encoding, from);
  headers.set("etag", etag);
  const status = checkPreconditions(request.headers, { etag });
  if (status === 412) headers.set("cache-control", "no-store");
  if (status !== 200) return new Response(null, { status, headers });
  const { traffic } = options;
  if (encoding !== undefined) return encoded(image, encoding, { headers, traffic, from });

  const range = rangeOf(request, image.byteCount, { etag });
  if (range === "unsatisfiable") {
    // Empty on purpose: a resuming client would append a body to its file.
    headers.set("content-range", `bytes */${image.byteCount}`);
    headers.set("content-length", "0");
    headers.set("cache-control", "no-store");
    return new Response(null, { status: 416, headers });
  }
  const { start, end } = range === "whole" ? { start: 0, end: image.byteCount } : range;
  headers.set("content-length", String(end - start));
  if (range !== "whole") {
    headers.set("content-range", `bytes ${start}-${end - 1}/${image.byteCount}`);
  }
  const body = request.method === "HEAD"
    ? null
    : throttled(sent(image, traffic, { from: start, to: end }), traffic.throttle);
  return new Response(body, { status: range === "whole" ? 200 : 206, headers });
}

/** The tag of a compressed image, or of the rest of it. @param etag That of the image, with quotes. */
export function encodedEtag(etag: string, encoding: Encoding, from = 0): string {
  return `${etag.slice(0, -1)}-${encoding}${from === 0 ? "" : `-${from}`}"`;
}

/** @throws {VolcastError} `usage` for a rest that is none, or that is asked for as it is. */
function checkRest({ headers, method }: Request, { byteCount }: Image, from: number): void {
  const isEncoded = method === "GET" && !headers.has("range") &&
    encodingFor(headers.get("accept-encoding")) !== undefined;
  if (isEncoded && from < byteCount) return;
  throw new VolcastError(
    "usage",
    `Cannot give the image from byte ${from} on: ${
      isEncoded
        ? `it has ${byteCount} bytes`
        : "that is for GET with Accept-Encoding: zstd or gzip alone"
    }`,
    "For a part as it is send a Range",
  );
}

/** The bytes of an image, counted as a transfer for as long as they are read. */
function sent(
  image: Image,
  traffic: Traffic,
  range: { from?: number; to?: number } = {},
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const onEnd = traffic.beginTransfer();
  try {
    return image.stream({ ...range, onEnd });
  } catch (error) {
    onEnd();
    throw error;
  }
}

function imageHeaders(image: Image, options: ImageResponseOptions): Headers {
  const { header } = image;
  const full = image.base === undefined;
  const headers = new Headers({
    "content-type": "application/vnd.volcast.image",
    "accept-ranges": "bytes",
    "cache-control": options.immutable
      ? "public, max-age=31536000, immutable, no-transform"
      : "no-cache, no-transform",
    "content-location": canonicalPath(image),
    "last-modified": new Date(Number(image.top.time / 1_000_000n)).toUTCString(),
    "content-disposition": `attachment; filename="${image.name.top}.img"`,
    [HEADERS.volume]: header.volumeId,
    [HEADERS.capacity]: String(header.capacity),
    [HEADERS.image]: header.fragment === true ? "fragment" : full ? "full" : "increment",
    [HEADERS.top]: image.name.top,
    [HEADERS.topName]: encodeURIComponent(image.top.name),
    [HEADERS.blocks]: String(header.blockCount),
  });
  if (image.base !== undefined) {
    headers.set(HEADERS.base, image.name.base!);
    headers.set(HEADERS.baseName, encodeURIComponent(image.base.name));
  }
  if (image.query?.name === "snapshots") headers.set(HEADERS.snapshots, image.query.value);
  if (options.fullBecause !== undefined) {
    headers.set(HEADERS.image, `full; because=${options.fullBecause}`);
  }
  if (!options.immutable) headers.set("vary", "Accept-Encoding, Authorization");
  return headers;
}

/** Encodings of images. */
type Encoding = "zstd" | "gzip";

function encodingFor(accept: string | null): Encoding | undefined {
  const accepted = (accept ?? "").split(",").map((item) => item.trim().toLowerCase());
  const has = (name: string) =>
    accepted.some((item) => {
      const [token, quality] = item.split(";");
      return token.trim() === name && !/q=0(\.0*)?$/.test(quality?.trim() ?? "");
    });
  return has("zstd") ? "zstd" : has("gzip") ? "gzip" : undefined;
}

/** Compressed on the fly: another representation, without ranges and with a tag of its own. */
function encoded(
  image: Image,
  encoding: Encoding,
  { headers, traffic, from = 0 }: {
    headers: Headers;
    traffic: Traffic;
    from?: number | undefined;
  },
): Response {
  headers.set("content-encoding", encoding);
  headers.delete("accept-ranges");
  // It is compressed already; "no-transform" would only keep proxies from undoing it.
  headers.set("cache-control", "no-cache");
  headers.set("vary", "Accept-Encoding, Authorization");
  const compressor = encoding === "gzip" ? createGzip({ level: 6 }) : createZstdCompress({
    params: { [constants.ZSTD_c_compressionLevel]: 3 },
  });
  const body = recoded(sent(image, traffic, { from }), compressor);
  return new Response(throttled(body, traffic.throttle), { headers });
}
