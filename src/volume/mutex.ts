/**
 * One at a time, in order of arrival.
 *
 * @module
 */

/** See the module. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve();

  /** Runs `work` when everything queued before it has ended, however it ended. */
  run<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#tail.then(work, work);
    this.#tail = result.catch(() => {});
    return result;
  }
}
