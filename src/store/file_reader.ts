/**
 * Reading a file beside everything else that is done with it: a handle of its own, and the host's
 * threads do the waiting.
 *
 * Invariant: one read moves the cursor at a time; the others wait for their turn.
 *
 * @module
 */

import { BLOCK_SIZE } from "../format/mod.ts";
import type { ReadPart } from "./block_store.ts";

/** See the module. */
export class FileReader {
  readonly #file: Deno.FsFile;
  #last: Promise<void> = Promise.resolve();

  /** @throws What the host says. */
  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true });
  }

  /** Reads runs one after the other; what lies behind the end of the file is zeros. */
  read(parts: readonly ReadPart[]): Promise<void> {
    const turn = this.#last.then(async () => {
      for (const part of parts) await this.#readPart(part);
    });
    // The next one does not fail because this one did.
    this.#last = turn.catch(() => {});
    return turn;
  }

  close(): void {
    this.#file.close();
  }

  async #readPart({ vbn, target }: ReadPart): Promise<void> {
    await this.#file.seek(vbn * BLOCK_SIZE, Deno.SeekMode.Start);
    for (let done = 0; done < target.length;) {
      const count = await this.#file.read(target.subarray(done));
      if (count === null) {
        target.fill(0, done);
        return;
      }
      done += count;
    }
  }
}
