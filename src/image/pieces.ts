/**
 * Pieces of an image: plain image files (also cut off), answers of servers, segments. Any mix of them
 * that has every byte of the stream is the image.
 *
 * Invariants:
 * 1. All pieces have the same header of the stream, byte for byte: they are of one image.
 * 2. What a piece gives is not trusted: whoever reads the stream checks it, and asks again from the
 *    place where it was wrong. Then every other choice of the pieces that lie there is tried.
 * 3. A piece that fails or ends early is told of, and another one that has the same bytes goes on.
 *
 * @module
 */

import { assert, damaged, messageOf, VolcastError } from "../core/mod.ts";
import {
  BLOCK_SIZE,
  equalBytes,
  FRAME_BLOCKS,
  FRAME_LAYOUT,
  type StreamHeader,
} from "../format/mod.ts";
import type { ImageSource } from "./apply.ts";
import { CutError } from "./byte_reader.ts";
import { framesOffset } from "./image.ts";
import type { Piece } from "./piece.ts";
import { describeImage } from "./segments.ts";

/** Bytes of the largest frame: a reader that found a wrong one asks again from where it begins. */
const FRAME_BYTES = FRAME_LAYOUT.size + FRAME_BLOCKS * BLOCK_SIZE;
/** Pieces one behind the other that are suspected when something there is wrong. */
const MAX_SUSPECTS = 6;
/** Ways to put the bytes at one place together that are tried then. */
const MAX_CHOICES = 64;
/** Missing ranges that a message names. */
const MAX_NAMED = 5;

/** Bytes of a stream, `end` excluded. */
export interface StreamSpan {
  readonly start: number;
  readonly end: number;
}

/** See the module. */
export class Pieces implements ImageSource {
  readonly header: StreamHeader;
  readonly streamBytes: Uint8Array;
  readonly pieces: readonly Piece[];
  readonly #note: (text: string) => void;
  /** Pieces that failed, and from which byte of the stream on that may not be tried again. */
  readonly #failed = new Map<Piece, number[]>();
  /**
   * Where the reader found something wrong; which of the pieces there are passed over now where others
   * have the same, and what else can be tried.
   */
  #doubt: { start: number; end: number; choices: (readonly Piece[])[]; without: readonly Piece[] } =
    { start: -1, end: -1, choices: [], without: [] };
  /** What the reader found wrong, until it opens again. */
  #complaint: string | undefined;
  #opened = -1;

  /**
   * @param note Told of pieces that fail.
   * @throws {VolcastError} `diverged` where two are not of one image, naming both.
   */
  constructor(pieces: readonly Piece[], note: (text: string) => void) {
    assert(pieces.length > 0, "an image has pieces");
    const [first] = pieces;
    for (const piece of pieces) {
      if (equalBytes(piece.streamBytes, first.streamBytes)) continue;
      const volumes = piece.header.volumeId === first.header.volumeId
        ? ["", ""]
        : [piece, first].map(({ header }) => ` of volume ${header.volumeId}`);
      throw new VolcastError(
        "diverged",
        `Cannot use ${piece.name}: it is of the image ${describeImage(piece.header)}${
          volumes[0]
        }, ` +
          `${first.name} is of ${describeImage(first.header)}${volumes[1]}`,
        "Give the pieces of one image",
      );
    }
    this.header = first.header;
    this.streamBytes = first.streamBytes;
    this.pieces = pieces;
    this.#note = note;
  }

  /** The parts of the stream that no piece has. */
  missing(): StreamSpan[] {
    const missing: StreamSpan[] = [];
    let end = 0;
    for (const piece of [...this.pieces].sort((a, b) => a.start - b.start)) {
      if (piece.start > end) missing.push({ start: end, end: piece.start });
      end = Math.max(end, piece.end);
    }
    if (end < this.header.byteCount) missing.push({ start: end, end: this.header.byteCount });
    return missing;
  }

  /**
   * Checks that every byte is in some piece.
   * @throws {VolcastError} `damaged`, naming those that are not.
   */
  checkComplete(): void {
    const missing = this.missing();
    if (missing.length > 0) throw this.#missingError(missing);
  }

  // deno-lint-ignore require-await
  async open(offset: number): Promise<ReadableStream<Uint8Array>> {
    this.#opened = offset;
    if (this.#complaint !== undefined) this.#passOver(offset, this.#complaint);
    this.#complaint = undefined;
    return ReadableStream.from(this.#chunks(offset));
  }

  // deno-lint-ignore require-await
  async retry(error: unknown, progressed: boolean): Promise<boolean> {
    throwCause(error);
    const again = !progressed && this.#opened === this.#doubt.start;
    if (this.pieces.length === 1 || again && this.#doubt.choices.length === 0) return false;
    this.#complaint = messageOf(error);
    return true;
  }

  /**
   * Fills `target` with the stream's bytes from `offset` on, at once.
   * @throws {VolcastError} `damaged` where no piece has them, `usage` where none can give them at once.
   */
  readAt(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      const position = offset + done;
      const piece = this.#choose(position, (one) => one.bytes.read !== undefined);
      if (piece === undefined) throw this.#noneAt(position, true);
      const part = target.subarray(
        done,
        done + Math.min(target.length - done, piece.end - position),
      );
      try {
        piece.bytes.read!(piece.at + position - piece.start, part);
        done += part.length;
      } catch (error) {
        this.#fail(piece, position, messageOf(error));
      }
    }
  }

  /** Name of the piece that a byte of the stream is read from. */
  nameAt(offset: number): string | undefined {
    return this.#choose(offset)?.name;
  }

  async *#chunks(offset: number): AsyncGenerator<Uint8Array> {
    const { byteCount } = this.header;
    for (let position = offset; position < byteCount;) {
      const piece = this.#choose(position);
      if (piece === undefined) throw this.#noneAt(position);
      const { start, end } = this.#doubt;
      const limit = [start, end].filter((edge) => edge > position);
      const to = Math.min(piece.end, ...limit);
      const from = piece.at + position - piece.start;
      let failure = "it ended early";
      try {
        for await (const chunk of piece.bytes.stream(from, from + to - position)) {
          position += chunk.length;
          yield chunk;
        }
      } catch (error) {
        failure = messageOf(error);
      }
      if (position < to) this.#fail(piece, position, failure);
    }
  }

  /** The piece to read a byte from: one that did not fail yet, at hand, and that goes on longest. */
  #choose(
    position: number,
    fits: (piece: Piece) => boolean = () => true,
    without: readonly Piece[] = this.#passedOverAt(position),
  ): Piece | undefined {
    let best: Piece | undefined;
    let bestRank = -Infinity;
    for (const piece of this.pieces) {
      if (piece.start > position || piece.end <= position || !fits(piece)) continue;
      const failed = this.#failed.get(piece) ?? [];
      if (failed.some((at) => position >= at && position < at + FRAME_BYTES)) continue;
      // Passed over before failed before far away before short.
      const rank = (without.includes(piece) ? -4 : 0) - (failed.length > 0 ? 2 : 0) -
        (piece.bytes.read === undefined ? 1 : 0) + piece.end / 2 ** 54;
      if (rank > bestRank) [best, bestRank] = [piece, rank];
    }
    return best;
  }

  #passedOverAt(position: number): readonly Piece[] {
    const { start, end, without } = this.#doubt;
    return position >= start && position < end ? without : [];
  }

  #fail(piece: Piece, position: number, reason: string): void {
    const failed = this.#failed.get(piece) ?? [];
    this.#failed.set(piece, [...failed, position]);
    this.#note(`${piece.name}: cannot be read at byte ${position} of the image: ${reason}`);
  }

  /** Something between `offset` and the end of its frame (or of the index) is wrong: other pieces. */
  #passOver(offset: number, complaint: string): void {
    if (offset !== this.#doubt.start) {
      const end = offset === 0 ? framesOffset(this.header) : offset + FRAME_BYTES;
      this.#doubt = {
        start: offset,
        end,
        choices: this.#choices({ start: offset, end }),
        without: [],
      };
    }
    const without = this.#doubt.choices.shift();
    // The reader finds the same again, and that there is no other choice.
    if (without === undefined) return;
    this.#doubt.without = without;
    const names = without.map(({ name }) => name).join(", ");
    this.#note(`${names}: ${complaint}; taking bytes ${offset} and on from elsewhere`);
  }

  /** Which pieces to pass over so that bytes come together in ways not tried yet: few pieces first. */
  #choices(span: StreamSpan): (readonly Piece[])[] {
    const wayOf = (without: readonly Piece[]) => {
      const way: Piece[] = [];
      for (let position = span.start; position < span.end;) {
        const piece = this.#choose(position, undefined, without);
        if (piece === undefined) break;
        way.push(piece);
        position = piece.end;
      }
      return way;
    };
    const keyOf = (way: readonly Piece[]) => way.map((piece) => this.pieces.indexOf(piece)).join();
    // How they came together when they were wrong.
    const last = this.#passedOverAt(span.start);
    const tried = new Set([keyOf(wayOf(last))]);
    const choices: (readonly Piece[])[] = [];
    const queue: (readonly Piece[])[] = [[], last];
    const consider = (without: readonly Piece[]) => {
      const key = keyOf(wayOf(without));
      if (tried.has(key) || tried.size >= MAX_CHOICES) return;
      tried.add(key);
      choices.push(without);
      queue.push(without);
    };
    for (const without of queue) {
      for (const suspect of wayOf(without).slice(0, MAX_SUSPECTS)) consider([...without, suspect]);
    }
    return choices;
  }

  #noneAt(position: number, atOnce = false): VolcastError {
    const declared = this.missing();
    const isMissing = declared.some(({ start, end }) => position >= start && position < end);
    if (isMissing) return this.#missingError(declared);
    if (atOnce && this.pieces.every(({ bytes }) => bytes.read === undefined)) {
      return new VolcastError(
        "usage",
        `Cannot read single blocks from ${this.pieces[0].name}: it is no file of this host`,
        "Fetch it first, for example with curl -O",
      );
    }
    return damaged(
      `Cannot read the image: byte ${position} of ${this.header.byteCount} can be read from none of the pieces`,
      "Give another piece that has it",
    );
  }

  #missingError(missing: readonly StreamSpan[]): VolcastError {
    const spans = missing.slice(0, MAX_NAMED).map(({ start, end }) => `${start}-${end - 1}`);
    if (missing.length > MAX_NAMED) spans.push(`${missing.length - MAX_NAMED} more ranges`);
    const lost = this.missingSegments();
    const segments = lost.length === 0
      ? ""
      : ` (${
        lost.length > MAX_NAMED ? `${lost.length} segments` : `segment ${lost.join(", ")}`
      } of ${this.#segmentCount} ${lost.length === 1 ? "is" : "are"} not there)`;
    return damaged(
      `Cannot read the image ${describeImage(this.header)}: it is incomplete, bytes ${
        spans.join(", ")
      } of ${this.header.byteCount} are in none of the pieces${segments}`,
      "Give the pieces that have them too",
    );
  }

  get #segmentCount(): number | undefined {
    const counts = new Set(this.pieces.map(({ segment }) => segment?.count));
    return counts.size === 1 ? [...counts][0] : undefined;
  }

  /** Numbers of the segments that are not there, where all pieces are segments cut in one way. */
  missingSegments(): number[] {
    const count = this.#segmentCount ?? 0;
    const present = new Set(this.pieces.map(({ segment }) => segment?.number));
    const missing: number[] = [];
    // The number comes from a header that somebody else wrote.
    for (let number = 1; number <= count && missing.length <= 1000; number++) {
      if (!present.has(number)) missing.push(number);
    }
    return missing;
  }
}

/**
 * A source's answer to a stream of its own that broke: what broke it is the reason to be told. What
 * came before is kept, since the cut is the cause.
 */
export function throwCause(error: unknown): void {
  if (!(error instanceof CutError) || !(error.cause instanceof VolcastError)) return;
  const { kind, message, hint } = error.cause;
  throw new VolcastError(kind, message, hint, { cause: error });
}
