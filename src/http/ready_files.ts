/**
 * Small files of the release that is served, ready to be sent: most requests ask for few of them again and
 * again, and an answer out of memory costs neither a walk along its path nor a read.
 *
 * Invariants:
 * 1. What is kept is of one snapshot of one volume, whose id stands for every byte below its root: so it is
 *    never stale, and with another snapshot all of it goes.
 * 2. What is kept was read and checked like anything else (I1).
 * 3. No more than `MAX_BYTES` are kept, addresses and headers counted: one file has any number of addresses,
 *    and whoever asks chooses them. The one that was kept first goes first.
 *
 * @module
 */

import { isAscii } from "node:buffer";
import type { Content } from "./file_response.ts";
import type { ByteRange } from "./ranges.ts";

const MAX_BYTES = 20 * 2 ** 20;
/** What a file takes besides its content and its address: its headers, more than once. */
const FILE_BYTES = 1536;

/** A file with what answers say of it. */
export interface ReadyFile {
  readonly content: Content;
  /** ASCII as a string: the runtime makes a copy of bytes for each answer. */
  readonly body: string | Uint8Array<ArrayBuffer>;
}

/** A file, ready. @param bytes All of it. */
export function readyFile(content: Content, bytes: Uint8Array<ArrayBuffer>): ReadyFile {
  return { content, body: isAscii(bytes) ? new TextDecoder().decode(bytes) : bytes };
}

/** A part of it. */
export function partOf({ body }: ReadyFile, { start, end }: ByteRange): Uint8Array<ArrayBuffer> {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return bytes.subarray(start, end);
}

/** See the module. */
export class ReadyFiles {
  #release = "";
  readonly #files = new Map<string, ReadyFile>();
  #bytes = 0;

  /** The file at an address as it was sent, in a release. @param release Volume and snapshot. */
  find(release: string, address: string): ReadyFile | undefined {
    return release === this.#release ? this.#files.get(address) : undefined;
  }

  /** Keeps a file. */
  keep(release: string, address: string, file: ReadyFile): void {
    if (release !== this.#release) {
      this.#files.clear();
      this.#bytes = 0;
      this.#release = release;
    }
    if (this.#files.has(address)) return;
    this.#files.set(address, file);
    this.#bytes += costOf(address, file);
    for (const [oldest, kept] of this.#files) {
      if (this.#bytes <= MAX_BYTES) break;
      this.#files.delete(oldest);
      this.#bytes -= costOf(oldest, kept);
    }
  }
}

function costOf(address: string, { body }: ReadyFile): number {
  return FILE_BYTES + address.length + body.length;
}
