/**
 * Images as a user names them: a file, standard input (`-`), or a URL.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import { decodeStreamHeader, STREAM_HEADER_LAYOUT, type StreamHeader } from "../format/mod.ts";
import { errorOf } from "../http/mod.ts";
import { ByteReader, CutError, type ImageSource } from "../image/mod.ts";
import { isUrl } from "./local_volume.ts";

/** Attempts in a row that bring nothing before a URL is given up. */
const ATTEMPTS = 5;
const CHUNK_BYTES = 256 * 1024;

/** An image whose header was read; the rest is read when asked for. */
export interface OpenedImage extends ImageSource {
  /** What the image says of itself; not to be trusted before it has been applied. */
  readonly header: StreamHeader;
  /** Gives everything back. */
  close(): Promise<void>;
}

/**
 * Opens an image and reads its header.
 *
 * @throws {VolcastError} `not-found`, `denied`, `io`; `damaged` when it is no image or ends within its
 *   header.
 */
export async function openImage(from: string, signal: AbortSignal): Promise<OpenedImage> {
  if (from === "-") return await openStream(Deno.stdin.readable, signal);
  return isUrl(from) ? await openUrl(from, signal) : await openFile(from, signal);
}

async function openFile(path: string, signal: AbortSignal): Promise<OpenedImage> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
    if ((await file.stat()).isDirectory) {
      file.close();
      throw new VolcastError("usage", `Cannot read ${path}: it is a directory`);
    }
  } catch (error) {
    if (error instanceof VolcastError) throw error;
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      missing ? "not-found" : error instanceof Deno.errors.PermissionDenied ? "denied" : "io",
      `Cannot read ${path}: ${missing ? "there is no such file" : messageOf(error)}`,
    );
  }
  try {
    // A pipe, say from `<(...)` of a shell, is read once, like standard input.
    if (!(await file.stat()).isFile) return await openStream(file.readable, signal);
    const open = (offset: number) => Promise.resolve(fileStream(file, offset));
    return {
      header: await headerOf(await open(0)),
      open,
      retry: () => Promise.resolve(false),
      close: () => Promise.resolve(file.close()),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** A file's bytes from an offset on. One stream at a time: there is one cursor. */
function fileStream(file: Deno.FsFile, offset: number): ReadableStream<Uint8Array> {
  let position = offset;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      await file.seek(position, Deno.SeekMode.Start);
      const chunk = new Uint8Array(CHUNK_BYTES);
      const count = await file.read(chunk);
      if (count === null) return controller.close();
      position += count;
      controller.enqueue(chunk.subarray(0, count));
    },
  }, { highWaterMark: 0 });
}

/** A stream that can be read once, as something that can be opened again a little further on. */
async function openStream(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): Promise<OpenedImage> {
  const reader = stream.getReader();
  // A pipe may stay silent for ever: who waits for it is woken.
  signal.addEventListener("abort", () => void reader.cancel().catch(() => {}));
  // What was taken last is kept: who opens again wants a part of it, or what follows.
  let kept: { start: number; bytes: Uint8Array } = { start: 0, bytes: new Uint8Array(0) };
  const open = (offset: number): Promise<ReadableStream<Uint8Array>> => {
    if (offset < kept.start) {
      throw new VolcastError("io", "Cannot read the image again: it comes from a pipe");
    }
    let position = offset;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      for (;;) {
        const rest = kept.bytes.subarray(Math.min(position - kept.start, kept.bytes.length));
        if (rest.length > 0) {
          position += rest.length;
          return controller.enqueue(rest);
        }
        const { value, done } = await reader.read();
        if (done) return controller.close();
        kept = { start: kept.start + kept.bytes.length, bytes: value };
      }
    };
    return Promise.resolve(new ReadableStream({ pull }, { highWaterMark: 0 }));
  };
  try {
    // The head alone is kept, however small the chunks are that it came in.
    const head = await headOf(await open(0));
    const end = kept.start + kept.bytes.length;
    const rest = kept.bytes.subarray(kept.bytes.length - (end - head.length));
    kept = { start: 0, bytes: joined(head, rest) };
    return {
      header: decodeStreamHeader(head),
      open,
      retry: () => Promise.resolve(false),
      close: () => reader.cancel().catch(() => {}),
    };
  } catch (error) {
    await reader.cancel().catch(() => {});
    throw error;
  }
}

async function openUrl(url: string, signal: AbortSignal): Promise<OpenedImage> {
  let target = new URL(url);
  let etag: string | undefined;
  let failures = 0;
  const open = async (
    offset: number,
    end?: number,
  ): Promise<ReadableStream<Uint8Array>> => {
    const response = await fetchImage(target, { offset, end, etag, signal });
    const location = new URL(response.headers.get("content-location") ?? target, target);
    // The name whose answers never change: what follows is of the same image, whatever is published.
    if (location.origin === target.origin) target = location;
    const tag = response.headers.get("etag") ?? undefined;
    if (etag !== undefined && tag !== etag) {
      await response.body?.cancel();
      throw new VolcastError("io", `Cannot go on reading ${url}: another image is there now`);
    }
    etag = tag;
    const body = response.body ?? new Blob([]).stream();
    const { start } = rangeOf(response);
    if (start > offset) {
      await body.cancel();
      throw new VolcastError(
        "io",
        `Cannot use the answer of ${target.host}: not the range asked for`,
      );
    }
    return offset === start ? body : skipping(body, offset - start);
  };
  return {
    header: await headerOf(await open(0, STREAM_HEADER_LAYOUT.size)),
    open: (offset) => open(offset),
    retry: async (error, progressed) => {
      failures = progressed ? 0 : failures + 1;
      if (!(error instanceof CutError) || failures >= ATTEMPTS || signal.aborted) return false;
      await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** failures));
      return !signal.aborted;
    },
    close: () => Promise.resolve(),
  };
}

async function fetchImage(
  url: URL,
  want: {
    offset: number;
    end: number | undefined;
    etag: string | undefined;
    signal: AbortSignal;
  },
): Promise<Response> {
  // No token goes along: an image's URL may be of any host, and reading needs none.
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  if (want.offset > 0 || want.end !== undefined) {
    headers.range = `bytes=${want.offset}-${want.end === undefined ? "" : want.end - 1}`;
    if (want.etag !== undefined) headers["if-range"] = want.etag;
  }
  let response: Response;
  try {
    response = await fetch(url, { headers, signal: want.signal });
  } catch (error) {
    want.signal.throwIfAborted();
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw new VolcastError("io", `Cannot read ${url}: ${messageOf(cause)}`);
  }
  if (response.ok) return response;
  throw await errorOf(response, url.origin);
}

function rangeOf(response: Response): { start: number } {
  if (response.status !== 206) return { start: 0 };
  const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  return { start: range === null ? Infinity : Number(range[1]) };
}

function skipping(
  stream: ReadableStream<Uint8Array>,
  byteCount: number,
): ReadableStream<Uint8Array> {
  let rest = byteCount;
  return stream.pipeThrough(
    new TransformStream({
      transform(chunk, controller): void {
        const kept = chunk.subarray(Math.min(rest, chunk.length));
        rest -= chunk.length - kept.length;
        if (kept.length > 0) controller.enqueue(kept);
      },
    }),
  );
}

async function headerOf(stream: ReadableStream<Uint8Array>): Promise<StreamHeader> {
  return decodeStreamHeader(await headOf(stream));
}

/** The bytes of the header; the stream is given up. */
async function headOf(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const reader = new ByteReader(stream);
  try {
    return await reader.take(STREAM_HEADER_LAYOUT.size);
  } catch (error) {
    if (!(error instanceof CutError)) throw error;
    if (error.cause !== undefined) {
      throw new VolcastError("io", `Cannot read the image: ${messageOf(error.cause)}`);
    }
    throw new VolcastError(
      "damaged",
      `Cannot read the image: it ends before its header does, which has ${STREAM_HEADER_LAYOUT.size} bytes`,
      "Check that the file is the whole output of 'volcast image' or of GET /replicate",
    );
  } finally {
    await reader.cancel();
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}
