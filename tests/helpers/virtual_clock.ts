/**
 * Time that a test lets go on.
 *
 * @module
 */

/** Time that goes on when nothing else is to be done. */
export class VirtualClock {
  /** ms. */
  now = 0;
  /** How late timers are, ms. */
  lateMs = 0;
  readonly #timers: { at: number; ring: () => void }[] = [];

  /** As a clock. */
  elapsed(): number {
    return this.now;
  }

  /** As a clock. */
  timer(ms: number, ring: () => void): () => void {
    const timer = { at: this.now + ms, ring };
    this.#timers.push(timer);
    return () => {
      const index = this.#timers.indexOf(timer);
      if (index >= 0) this.#timers.splice(index, 1);
    };
  }

  /** Timers that have not rung. */
  get waiting(): number {
    return this.#timers.length;
  }

  /** Lets whoever can run, then goes on to the next timer, until `limitMs`. */
  async run(limitMs: number): Promise<void> {
    for (;;) {
      // Everything that follows from the last timer is done by microtasks.
      for (let i = 0; i < 2000; i++) await Promise.resolve();
      const next = this.#timers.sort((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at + this.lateMs > limitMs) break;
      this.now = next.at + this.lateMs;
      for (const timer of this.#timers.filter(({ at }) => at <= this.now)) timer.ring();
    }
    this.now = Math.max(this.now, limitMs);
  }

  /** Goes on from timer to timer for as long as something real takes. */
  async during<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = () => isDone = true;
    work.then(done, done);
    while (!isDone) {
      const next = this.#timers.sort((a, b) => a.at - b.at)[0];
      if (next !== undefined) {
        this.now = Math.max(this.now, next.at);
        next.ring();
      }
      // The network has its turn.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    return await work;
  }
}
