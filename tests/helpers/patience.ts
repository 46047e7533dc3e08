/**
 * Patience without a clock: pauses are over at once, and silence is over when a test says that somebody
 * waits in vain. So nothing depends on how fast the machine is.
 *
 * @module
 */

import { PATIENCE, type Patience } from "../../src/core/mod.ts";
import type { FaultyProxy } from "./faulty_proxy.ts";
import { Random } from "./random.ts";

/** See the module. */
export class TestPatience implements Patience {
  readonly answerMs = PATIENCE.answerMs;
  readonly silenceMs = PATIENCE.silenceMs;
  readonly attempts: number;
  readonly firstMs = PATIENCE.firstMs;
  readonly limitMs = PATIENCE.limitMs;
  readonly askedLimitMs = PATIENCE.askedLimitMs;
  /** Pauses that were made, ms. */
  waits: number[] = [];
  readonly #random: Random;
  readonly #armed = new Set<() => void>();
  #stalls = 0;

  constructor(options: { seed?: number; attempts?: number } = {}) {
    this.#random = new Random(options.seed ?? 1);
    this.attempts = options.attempts ?? PATIENCE.attempts;
  }

  readonly random = (): number => this.#random.below(1 << 20) / (1 << 20);

  readonly timer = (_ms: number, late: () => void): () => void => {
    this.#armed.add(late);
    if (this.#stalls > 0) setTimeout(() => this.#fire(), 0);
    return () => void this.#armed.delete(late);
  };

  readonly pause = async (ms: number): Promise<void> => {
    this.waits.push(ms);
    await new Promise((resolve) => setTimeout(resolve, 0));
  };

  /** Whether somebody waits in vain. */
  get isStalled(): boolean {
    return this.#stalls > 0;
  }

  /** Lets time pass whenever a proxy stalls. */
  watch(proxy: FaultyProxy): void {
    proxy.stalled = (isStalled) => {
      this.#stalls += isStalled ? 1 : -1;
      this.#fire();
    };
  }

  #fire(): void {
    if (this.#stalls === 0) return;
    for (const late of [...this.#armed]) {
      this.#armed.delete(late);
      late();
    }
  }
}
