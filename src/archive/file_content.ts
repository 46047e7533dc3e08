/**
 * The content of one file on its way into a volume: compared with what is there, and written from the
 * first difference on, so that equal blocks keep their places.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { equalBytes } from "../format/mod.ts";
import type { LiveFileSystem, Writer } from "../volume/mod.ts";
import { CHUNK_BYTES, type Content, type TreeEntry } from "./entry.ts";

/** A name for which content comes in, and what has it now. */
export interface FilePlace {
  readonly parent: number;
  readonly name: string;
  readonly ino: number | undefined;
  /** Another name of the tree has the inode already. */
  readonly taken: boolean;
}

/** Where the content of a file is now. */
export interface Taken {
  readonly ino: number;
  readonly written: boolean;
}

/** Content that is coming in. */
interface Incoming {
  readonly at: FilePlace;
  readonly entry: TreeEntry;
  /** The file that it is compared with. */
  readonly comparable: number | undefined;
  /** The file that is written; none while all that came is equal to what is there. */
  target: number | undefined;
  offset: number;
}

/** Makes the inode of an entry. @returns Its number. */
export function createEntry(
  fs: LiveFileSystem,
  parent: number,
  name: string,
  entry: TreeEntry,
): number {
  const { type, permissions, uid, gid, mtime, atime, btime, dos, rdev, target } = entry;
  return fs.create(parent, name, {
    type,
    permissions,
    uid,
    gid,
    mtime,
    atime,
    btime,
    dos,
    rdev: rdev ?? 0,
    target: target ?? "",
  });
}

/** Takes the content of files in, one file after the other. */
export class FileContents {
  /** Bytes that came. */
  bytesRead = 0;
  readonly #writer: Writer;
  readonly #fs: LiveFileSystem;
  readonly #scratch = new Uint8Array(CHUNK_BYTES);

  constructor(writer: Writer) {
    this.#writer = writer;
    this.#fs = writer.fs;
  }

  /**
   * Brings a file's content in. @returns A promise only where it has to wait.
   * @throws {UnreadableEntry} When nothing of it can be had; then nothing has changed.
   */
  take(at: FilePlace, entry: TreeEntry): Taken | Promise<Taken> {
    const incoming: Incoming = {
      at,
      entry,
      comparable: at.taken ? undefined : at.ino,
      target: undefined,
      offset: 0,
    };
    const content = entry.read?.() ?? [];
    if (Symbol.asyncIterator in content || entry.size >= CHUNK_BYTES) {
      return this.#takeLong(incoming, content);
    }
    try {
      for (const chunk of content) this.#takeChunk(incoming, chunk);
      checkWhole(incoming);
    } catch (error) {
      throw this.#givenUp(incoming, error);
    }
    return this.#finish(incoming);
  }

  /** The same with a look at whether a consistency point is due between chunks. */
  async #takeLong(incoming: Incoming, content: Content): Promise<Taken> {
    try {
      for await (const chunk of content) {
        this.#takeChunk(incoming, chunk);
        if (chunk.length >= CHUNK_BYTES) await this.#writer.checkpointIfDue();
      }
      checkWhole(incoming);
    } catch (error) {
      throw this.#givenUp(incoming, error);
    }
    return this.#finish(incoming);
  }

  #takeChunk(incoming: Incoming, chunk: Uint8Array): void {
    const { comparable, offset } = incoming;
    this.bytesRead += chunk.length;
    const equal = incoming.target === undefined && comparable !== undefined &&
      this.#isEqual(comparable, offset, chunk);
    if (!equal) this.#fs.write(incoming.target ??= this.#begin(incoming), offset, chunk);
    incoming.offset += chunk.length;
  }

  /** The file that is written from now on. */
  #begin({ at, entry, offset }: Incoming): number {
    if (at.ino === undefined) return createEntry(this.#fs, at.parent, at.name, entry);
    if (this.#fs.inodeOf(at.ino).nlink === 1) return at.ino;
    return this.leave({ ...at, ino: at.ino }, at.taken ? 0 : offset, entry);
  }

  #finish(incoming: Incoming): Taken {
    const { comparable, offset } = incoming;
    const fs = this.#fs;
    if (
      incoming.target === undefined &&
      (comparable === undefined || fs.inodeOf(comparable).size > offset)
    ) {
      incoming.target = this.#begin(incoming);
    }
    const { target } = incoming;
    if (target === undefined) return { ino: comparable!, written: false };
    if (fs.inodeOf(target).size > offset) fs.truncate(target, offset);
    return { ino: target, written: true };
  }

  /** Content broke off: a new file that is not whole must not be taken for one. @returns The error. */
  #givenUp({ at: { parent, name, ino }, target }: Incoming, error: unknown): unknown {
    if (target === undefined || ino !== undefined) return error;
    try {
      this.#fs.remove(parent, name);
    } catch (failure) {
      // As far as the volume lets anything be done: what failed before is what is told.
      if (!(failure instanceof VolcastError)) throw failure;
    }
    return error;
  }

  #isEqual(ino: number, offset: number, chunk: Uint8Array): boolean {
    const scratch = chunk.length <= this.#scratch.length
      ? this.#scratch.subarray(0, chunk.length)
      : new Uint8Array(chunk.length);
    return this.#fs.read(ino, offset, scratch) === chunk.length && equalBytes(scratch, chunk);
  }

  /**
   * Takes a name away from a file with several, for a new file with the first `byteCount` bytes of
   * its content. @returns The new file.
   */
  leave(
    at: { parent: number; name: string; ino: number },
    byteCount: number,
    entry: TreeEntry,
  ): number {
    const fs = this.#fs;
    fs.remove(at.parent, at.name);
    fs.settle(at.ino);
    const ino = createEntry(fs, at.parent, at.name, entry);
    for (let offset = 0; offset < byteCount; offset += CHUNK_BYTES) {
      const chunk = this.#scratch.subarray(0, Math.min(CHUNK_BYTES, byteCount - offset));
      fs.read(at.ino, offset, chunk);
      fs.write(ino, offset, chunk);
    }
    return ino;
  }
}

/** @throws {VolcastError} When more or less came than was announced. */
function checkWhole({ offset, entry }: Incoming): void {
  if (offset === entry.size) return;
  throw new VolcastError(
    "io",
    `Cannot take its content: ${offset} bytes came, ${entry.size} were announced`,
    "The file was changed while it was read: run the command again",
  );
}
