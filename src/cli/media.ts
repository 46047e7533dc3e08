/**
 * What images and their pieces are read from: files of this host, files in volumes, URLs, and pipes.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import type { ServerOptionsOfClient } from "../http/mod.ts";
import type { Medium, PieceBytes } from "../image/mod.ts";
import type { View, Volume } from "../volume/mod.ts";
import { isUrl } from "./local_volume.ts";
import { RemoteBytes } from "./remote_bytes.ts";
import { openVolumeOf, type VolumePath, volumePathOf } from "./volume_path.ts";

/** What is read ahead grows from the first to the second: who wants a header gets little more. */
const FIRST_CHUNK_BYTES = 8 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** Something to read from; what can be read at once has `read`. */
export type OpenedMedium = Medium & Pick<PieceBytes, "read">;

/** Everything opened for one command, closed together. */
export class Media implements AsyncDisposable {
  readonly #signal: AbortSignal;
  readonly #servers: ServerOptionsOfClient;
  readonly #volumes = new Map<string, Volume>();
  readonly #closers: (() => void | Promise<void>)[] = [];

  /**
   * @param signal Ends waiting for servers and pipes.
   * @param servers How servers are asked.
   */
  constructor(signal: AbortSignal, servers: ServerOptionsOfClient = {}) {
    this.#signal = signal;
    this.#servers = servers;
  }

  /**
   * Opens what a name means: `-`, a URL, `VOLUME:/path`, or a path.
   * @throws {VolcastError} `not-found`, `denied`, `usage` (a directory), `busy` (a volume), `io`.
   */
  async open(name: string): Promise<OpenedMedium> {
    if (name === "-") return this.#input();
    if (isUrl(name)) {
      return await RemoteBytes.open(name, { ...this.#servers, signal: this.#signal });
    }
    const inVolume = volumePathOf(name);
    return inVolume === undefined ? await this.#file(name) : this.#volumeFile(name, inVolume);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
    for (const volume of this.#volumes.values()) await volume.close();
    this.#volumes.clear();
  }

  #input(): OpenedMedium {
    if (Deno.stdin.readable.locked) {
      throw new VolcastError(
        "usage",
        "Cannot read standard input twice: '-' is given more than once",
      );
    }
    return this.#pipe("standard input", Deno.stdin.readable);
  }

  async #file(path: string): Promise<OpenedMedium> {
    const file = await openFile(path);
    this.#closers.push(() => {
      try {
        file.close();
      } catch {
        // As a pipe it was closed with its end.
      }
    });
    const info = await file.stat();
    if (info.isDirectory) {
      throw new VolcastError("usage", `Cannot read ${path}: it is a directory`);
    }
    // A pipe, say from `<(...)` of a shell, or a tape drive is read once, like standard input.
    if (!info.isFile) return this.#pipe(path, file.readable);
    const readSome = (offset: number, target: Uint8Array): number => {
      try {
        // At one go: there is one cursor for all.
        file.seekSync(offset, Deno.SeekMode.Start);
        return file.readSync(target) ?? 0;
      } catch (error) {
        throw new VolcastError("io", `Cannot read ${path} at byte ${offset}: ${messageOf(error)}`);
      }
    };
    return seekable(path, info.size, readSome);
  }

  #volumeFile(name: string, inVolume: VolumePath): OpenedMedium {
    let volume = this.#volumes.get(inVolume.volume);
    if (volume === undefined) {
      this.#volumes.set(inVolume.volume, volume = openVolumeOf(inVolume));
    }
    const view: View = volume.view();
    this.#closers.push(() => view.release());
    const ino = view.fs.resolve(inVolume.path);
    const { type, size } = view.fs.stat(ino);
    if (type !== "file") {
      throw new VolcastError("usage", `Cannot read ${name}: it is a ${type}, not a file`);
    }
    return seekable(name, size, (offset, target) => view.fs.read(ino, offset, target));
  }

  #pipe(name: string, stream: ReadableStream<Uint8Array>): OpenedMedium {
    const reader = stream.getReader();
    const cancel = () => reader.cancel().catch(() => {});
    // A pipe may stay silent for ever: who waits for it is woken.
    this.#signal.addEventListener("abort", () => void cancel());
    this.#closers.push(cancel);
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const { value, done } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    };
    return {
      name,
      byteCount: Infinity,
      isSequential: true,
      stream: () => new ReadableStream({ pull }, { highWaterMark: 0 }),
    };
  }
}

/** Bytes that are read in one call wherever they lie. */
function seekable(
  name: string,
  byteCount: number,
  readSome: (offset: number, target: Uint8Array) => number,
): OpenedMedium {
  return {
    name,
    byteCount,
    stream(from: number, to: number): ReadableStream<Uint8Array> {
      let position = from;
      let step = FIRST_CHUNK_BYTES;
      return new ReadableStream({
        pull(controller): void {
          const most = Math.min(step, to - position);
          step = Math.min(step * 2, CHUNK_BYTES);
          const chunk = new Uint8Array(Math.max(0, most));
          const count = most <= 0 ? 0 : readSome(position, chunk);
          if (count === 0) return controller.close();
          position += count;
          controller.enqueue(chunk.subarray(0, count));
        },
      }, { highWaterMark: 0 });
    },
    read(offset: number, target: Uint8Array): void {
      for (let done = 0; done < target.length;) {
        const count = readSome(offset + done, target.subarray(done));
        if (count === 0) {
          throw new VolcastError(
            "damaged",
            `Cannot read ${name}: it ends at byte ${offset + done}`,
          );
        }
        done += count;
      }
    },
  };
}

async function openFile(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path);
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      missing ? "not-found" : error instanceof Deno.errors.PermissionDenied ? "denied" : "io",
      `Cannot read ${path}: ${missing ? "there is no such file" : messageOf(error)}`,
    );
  }
}
