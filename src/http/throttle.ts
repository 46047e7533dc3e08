/**
 * Bandwidth: how many bytes a second go out, or come in, through all streams that share a throttle.
 *
 * The line is a queue of moments. Whoever has bytes takes the next free moment, waits for it, and only
 * then sends and asks again; a piece takes the line for as long as its bytes need.
 *
 * Invariants:
 * 1. In a time T no more bytes get a moment than T x rate, and a burst.
 * 2. Streams that have bytes get equal shares: each has one piece in the queue, and pieces are equal.
 * 3. What was not used in the past is not made up for, but for the burst.
 *
 * @module
 */

/** What a throttle needs of time. */
export interface ThrottleClock {
  /** ms since some moment; never goes back. */
  elapsed(): number;
  /** Calls `ring` once after `ms`. @returns Takes it back. */
  timer(ms: number, ring: () => void): () => void;
}

const HOST: ThrottleClock = {
  elapsed: () => performance.now(),
  timer(ms, ring): () => void {
    const timer = setTimeout(ring, ms);
    return () => clearTimeout(timer);
  },
};

/** What may go at once after a pause, ms of the rate. */
const BURST_MS = 50;
/** Bounds of a piece, bytes. */
const PIECE_BYTES = { least: 1024, most: 65_536 } as const;
/** Pieces in a second of the rate: how finely streams take turns. */
const PIECES_PER_SECOND = 50;

/** See the module. */
export class Throttle {
  readonly bytesPerSecond: number;
  /** Bytes that a stream hands over at once. */
  readonly pieceBytes: number;
  readonly #clock: ThrottleClock;
  /** When the line is free, by the clock. */
  #freeAt = -Infinity;

  /** @param bytesPerSecond At least 1. */
  constructor(bytesPerSecond: number, clock: ThrottleClock = HOST) {
    this.bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
    const piece = Math.floor(bytesPerSecond / PIECES_PER_SECOND);
    this.pieceBytes = Math.min(PIECE_BYTES.most, Math.max(PIECE_BYTES.least, piece));
  }

  /** Waits until so many bytes may go; returns early when `signal` fires. */
  take(byteCount: number, signal?: AbortSignal): Promise<void> {
    const now = this.#clock.elapsed();
    const begin = Math.max(this.#freeAt, now - BURST_MS);
    this.#freeAt = begin + byteCount * 1000 / this.bytesPerSecond;
    if (begin <= now || signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const cancel = this.#clock.timer(begin - now, done);
      signal?.addEventListener("abort", done);
    });
  }
}

/** The same bytes, as fast as a throttle lets them go; the stream itself where there is none. */
export function throttled(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  throttle: Throttle | undefined,
): ReadableStream<Uint8Array<ArrayBuffer>>;
/** The same for bytes that lie anywhere. */
export function throttled(
  stream: ReadableStream<Uint8Array>,
  throttle: Throttle | undefined,
): ReadableStream<Uint8Array>;
/** See above. */
export function throttled(
  stream: ReadableStream<Uint8Array>,
  throttle: Throttle | undefined,
): ReadableStream<Uint8Array> {
  if (throttle === undefined) return stream;
  const reader = stream.getReader();
  const ending = new AbortController();
  let rest = new Uint8Array(0);
  let isComplete = false;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      // Who comes with crumbs would have a smaller share than the others.
      while (!isComplete && rest.length < throttle.pieceBytes) {
        const { value, done } = await reader.read();
        if (done) isComplete = true;
        else rest = joined(rest, value);
      }
      if (rest.length === 0) return controller.close();
      const piece = rest.subarray(0, throttle.pieceBytes);
      rest = rest.subarray(piece.length);
      await throttle.take(piece.length, ending.signal);
      if (!ending.signal.aborted) controller.enqueue(piece);
    },
    async cancel(reason): Promise<void> {
      ending.abort();
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}

function joined(
  front: Uint8Array<ArrayBuffer>,
  back: Uint8Array,
): Uint8Array<ArrayBuffer> {
  if (front.length === 0) return back as Uint8Array<ArrayBuffer>;
  const all = new Uint8Array(front.length + back.length);
  all.set(front);
  all.set(back, front.length);
  return all;
}
