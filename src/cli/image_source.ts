/**
 * Images as a user names them: by one or more pieces, each a file, a file in a volume (`b.vol:/x.img`),
 * a URL or a segment, or by a pipe (`-`) alone.
 *
 * @module
 */

import { messageOf, type Patience, VolcastError } from "../core/mod.ts";
import {
  decodeStreamHeader,
  isImageStream,
  isSegment,
  SEGMENT_MAGIC,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
} from "../format/mod.ts";
import type { Credentials } from "../http/mod.ts";
import {
  type ImageSource,
  joinSegments,
  type Piece,
  Pieces,
  piecesOf,
  throwCause,
} from "../image/mod.ts";
import { isUrl } from "./local_volume.ts";
import { Media, type OpenedMedium } from "./media.ts";
import { volumePathOf } from "./volume_path.ts";

/** An image whose header was read; the rest is read when asked for. */
export interface OpenedImage extends ImageSource {
  /** What the image says of itself; not to be trusted before it has been applied. */
  readonly header: StreamHeader;
  /** Gives everything back. */
  close(): Promise<void>;
}

/** How an image is opened. */
export interface OpenOptions {
  /** Ends waiting for servers and pipes. */
  readonly signal: AbortSignal;
  /** How servers are waited for. */
  readonly patience?: Patience;
  /** Told of pieces that are not as they should be where others may do. */
  readonly note: (text: string) => void;
  /** For servers. */
  readonly credentials?: Credentials | undefined;
}

/**
 * Opens an image and reads its header.
 *
 * @param names At least one.
 * @throws {VolcastError} `not-found`, `denied`, `io`; `damaged` when it is no image, ends within its
 *   header, or when parts of it are in none of several pieces; `diverged` for pieces of several images.
 */
export async function openImage(
  names: readonly string[],
  options: OpenOptions,
): Promise<OpenedImage> {
  const media = new Media(options.signal, options);
  try {
    const source = await sourceOf(media, names, options);
    return {
      header: source.header,
      open: (offset) => source.open(offset),
      retry: (error, progressed) => source.retry(error, progressed),
      close: () => media[Symbol.asyncDispose](),
    };
  } catch (error) {
    await media[Symbol.asyncDispose]();
    throw error;
  }
}

/** Whether a name means an image or a piece of one, as far as a look at its first bytes tells. */
export async function isImage(name: string): Promise<boolean> {
  if (name === "-" || isUrl(name) || volumePathOf(name) !== undefined) return true;
  try {
    using file = await Deno.open(name);
    const bytes = new Uint8Array(8);
    await file.read(bytes);
    return isImageStream(bytes) || isSegment(bytes);
  } catch {
    // Opening it as a volume tells what is wrong with it.
    return false;
  }
}

type Source = ImageSource & { readonly header: StreamHeader };

async function sourceOf(
  media: Media,
  names: readonly string[],
  { note }: OpenOptions,
): Promise<Source> {
  if (names.length === 1) {
    const medium = await media.open(names[0]);
    if (medium.isSequential) return await pipedImage(medium.stream(0, Infinity));
    const pieces = await piecesOf(medium, () => {});
    // A file that is cut off is taken as far as it goes, and gone on with another time.
    if (pieces[0].segment === undefined) return wholeImage(medium, pieces[0].header);
  }
  const pieces = new Pieces(await openPieces(media, names, note), note);
  pieces.checkComplete();
  return pieces;
}

/**
 * Opens pieces of images. Of several, those that cannot be read are told of and left out.
 *
 * @throws {VolcastError} Where none can be read, or one is a pipe.
 */
export async function openPieces(
  media: Media,
  names: readonly string[],
  note: (text: string) => void,
): Promise<Piece[]> {
  const pieces: Piece[] = [];
  let failure: unknown;
  for (const name of names) {
    try {
      const medium = await media.open(name);
      if (medium.isSequential) {
        throw new VolcastError(
          "usage",
          `Cannot read ${medium.name} as one of several pieces: it is a pipe and read once`,
          "Give it alone, with all segments in order, or put it into a file first",
        );
      }
      pieces.push(...await piecesOf(medium, note));
    } catch (error) {
      if (!(error instanceof VolcastError) || error.kind === "usage") throw error;
      failure ??= error;
      if (names.length > 1) note(error.message);
    }
  }
  if (pieces.length === 0) throw failure;
  return pieces;
}

function wholeImage(medium: OpenedMedium, header: StreamHeader): Source {
  return {
    header,
    open: (offset) => Promise.resolve(medium.stream(offset, Infinity)),
    retry: (error) => noRetry(error),
  };
}

/** Once is all there is; the reason why it broke is what its source says. */
// deno-lint-ignore require-await
export async function noRetry(error: unknown): Promise<boolean> {
  throwCause(error);
  return false;
}

/** An image from a stream that can be read once: as it is, or in segments one behind the other. */
async function pipedImage(stream: ReadableStream<Uint8Array>): Promise<Source> {
  const once = new Once(stream);
  const magic = await once.first(SEGMENT_MAGIC.length);
  return await onceImage(
    isSegment(magic) ? new Once(ReadableStream.from(joinSegments(once.from(0)))) : once,
  );
}

async function onceImage(once: Once): Promise<Source> {
  const head = await once.first(STREAM_HEADER_LAYOUT.size);
  if (head.length < STREAM_HEADER_LAYOUT.size) {
    throw new VolcastError(
      "damaged",
      `Cannot read the image: it ends before its header does, which has ${STREAM_HEADER_LAYOUT.size} bytes`,
      "Check that it is the whole output of 'volcast image' or of GET /replicate",
    );
  }
  return {
    header: decodeStreamHeader(head),
    // deno-lint-ignore require-await
    open: async (offset) => once.from(offset),
    retry: (error) => noRetry(error),
  };
}

/** A stream that can be read once, as something that can be opened again a little further on. */
class Once {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  /** What was taken last is kept: who opens again wants a part of it, or what follows. */
  #start = 0;
  #kept: Uint8Array = new Uint8Array(0);

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** The first bytes, fewer where there are no more; they stay. */
  async first(count: number): Promise<Uint8Array> {
    while (this.#kept.length < count) {
      const { value, done } = await this.#read();
      if (done) break;
      const kept = new Uint8Array(this.#kept.length + value.length);
      kept.set(this.#kept);
      kept.set(value, this.#kept.length);
      this.#kept = kept;
    }
    return this.#kept.subarray(0, count);
  }

  /** The stream from a byte on that was not passed yet, or is among those taken last. */
  from(offset: number): ReadableStream<Uint8Array> {
    if (offset < this.#start) {
      throw new VolcastError("io", "Cannot read the image again: it comes from a pipe");
    }
    let position = offset;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      for (;;) {
        const rest = this.#kept.subarray(Math.min(position - this.#start, this.#kept.length));
        if (rest.length > 0) {
          position += rest.length;
          return controller.enqueue(rest);
        }
        const { value, done } = await this.#read();
        if (done) return controller.close();
        this.#start += this.#kept.length;
        this.#kept = value;
      }
    };
    return new ReadableStream({ pull }, { highWaterMark: 0 });
  }

  async #read(): Promise<ReadableStreamReadResult<Uint8Array>> {
    try {
      return await this.#reader.read();
    } catch (error) {
      if (error instanceof VolcastError) throw error;
      throw new VolcastError("io", `Cannot read the image: ${messageOf(error)}`, "", {
        cause: error,
      });
    }
  }
}
