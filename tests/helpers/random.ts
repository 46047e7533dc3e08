/**
 * Random numbers that come again with their seed.
 *
 * @module
 */

/** A seeded source of random choices (mulberry32). */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** 32 random bits. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.word() / 2 ** 32 * limit);
  }

  /** An integer from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of `items`. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  /** Random bytes. */
  bytes(count: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) bytes[i] = this.word();
    return bytes;
  }

  /** An own source that does not disturb this one. */
  fork(): Random {
    return new Random(this.word());
  }
}

/** Runs `work` for each seed; the message of what fails names the seed. */
export async function forSeeds(
  seeds: readonly number[],
  work: (random: Random) => void | Promise<void>,
): Promise<void> {
  for (const seed of seeds) {
    try {
      await work(new Random(seed));
    } catch (error) {
      throw new Error(`With seed ${seed}: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      });
    }
  }
}

/** The seeds `first`, `first` + 1, ... */
export function seeds(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}
