/**
 * A directory of a host that may lose power, for all that is done with volumes as files.
 *
 * The model: a name that was made, given or removed is durable only after a sync of the directory;
 * before, each such change on its own may be there or not. Of a file's content that was not synced each
 * sector of 512 bytes is as it was or as it was written; so it is with a change of its size.
 *
 * While it is installed it answers the calls of `Deno` that the stores make, for paths below
 * {@linkcode HOST}; all others go to the real host.
 *
 * @module
 */

import { assert } from "@std/assert";
import type { Random } from "../helpers/random.ts";

/** The path of the directory. */
export const HOST = "/host-that-crashes";
const SECTOR_SIZE = 512;

/** A file, whatever its name. */
class Content {
  sectors = new Map<number, Uint8Array>();
  size = 0;
  locked = false;

  copy(): Content {
    const copy = new Content();
    copy.sectors = new Map(this.sectors);
    copy.size = this.size;
    return copy;
  }
}

type HostEvent =
  | { kind: "name"; name: string; content: Content | undefined; from?: string }
  | { kind: "write"; content: Content; sector: number; bytes: Uint8Array; size: number }
  | { kind: "resize"; content: Content; size: number }
  | { kind: "sync"; content: Content; upTo: number }
  | { kind: "sync names"; upTo: number };

/** See the module. */
export class HostDirectory implements Disposable {
  readonly events: HostEvent[] = [];
  /** Whether a sync of the directory does something; if not, that is a mistake that must be seen. */
  syncsNames = true;
  readonly #names: Map<string, Content>;
  /** What was there before the first event, with the names of that time. */
  readonly #before: { names: Map<string, Content>; contents: Map<Content, Content> };
  readonly #undo: (() => void)[] = [];

  /** @param names What is there, durable. */
  constructor(names: ReadonlyMap<string, Content> = new Map()) {
    this.#names = new Map(names);
    this.#before = {
      names: new Map(names),
      contents: new Map([...names.values()].map((content) => [content, content.copy()])),
    };
  }

  /** The directory as it may be found after the first `count` events; without `random` all of it is there. */
  found(count: number, random?: Random): HostDirectory {
    const events = this.events.slice(0, count);
    const nameSync = Math.max(0, ...events.map((one) => one.kind === "sync names" ? one.upTo : 0));
    const syncs = new Map<Content, number>();
    for (const event of events) {
      if (event.kind === "sync") syncs.set(event.content, event.upTo);
    }
    // Sometimes nearly all or nearly nothing got there.
    const keptInTen = random?.pick([0, 2, 5, 8, 10]) ?? 10;
    const isKept = () => random === undefined || random.below(10) < keptInTen;
    const names = new Map(this.#before.names);
    const contents = new Map(
      [...this.#before.contents].map(([content, before]) => [content, before.copy()]),
    );
    const contentOf = (content: Content) => {
      if (!contents.has(content)) contents.set(content, new Content());
      return contents.get(content)!;
    };
    for (const [i, event] of events.entries()) {
      if (event.kind === "name") {
        if (i >= nameSync && !isKept()) continue;
        if (event.from !== undefined && names.get(event.from) === event.content) {
          names.delete(event.from);
        }
        if (event.content === undefined) names.delete(event.name);
        else names.set(event.name, event.content);
      } else if (event.kind === "write" || event.kind === "resize") {
        if (i >= (syncs.get(event.content) ?? 0) && !isKept()) continue;
        const content = contentOf(event.content);
        if (event.kind === "write") content.sectors.set(event.sector, event.bytes);
        content.size = event.kind === "resize" ? event.size : Math.max(content.size, event.size);
      }
    }
    return new HostDirectory(new Map([...names].map(([name, one]) => [name, contentOf(one)])));
  }

  /** Takes the place of the host, until it is disposed of. */
  install(): this {
    const real = {
      openSync: Deno.openSync,
      renameSync: Deno.renameSync,
      removeSync: Deno.removeSync,
      statSync: Deno.statSync,
      lstatSync: Deno.lstatSync,
    };
    this.#undo.push(() => Object.assign(Deno, real));
    const isHere = (path: unknown): path is string => String(path).startsWith(HOST);
    const stat = (path: string) => this.#stat(this.#at(path));
    Deno.openSync = (path, options) =>
      isHere(path) ? this.#open(path, options ?? {}) : real.openSync(path, options);
    Deno.renameSync = (from, to) =>
      isHere(from) ? this.#rename(from, String(to)) : real.renameSync(from, to);
    Deno.removeSync = (path, options) =>
      isHere(path) ? this.#remove(path) : real.removeSync(path, options);
    Deno.statSync = (path) => isHere(path) ? stat(path) : real.statSync(path);
    Deno.lstatSync = (path) => isHere(path) ? stat(path) : real.lstatSync(path);
    return this;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.splice(0)) undo();
  }

  #at(path: string): Content {
    const content = this.#names.get(path);
    if (content === undefined) throw new Deno.errors.NotFound(`No such file: ${path}`);
    return content;
  }

  #stat({ size }: Content): Deno.FileInfo {
    return { isFile: true, isBlockDevice: false, size, blocks: null } as Deno.FileInfo;
  }

  #open(path: string, options: Deno.OpenOptions): Deno.FsFile {
    if (path === HOST) {
      const syncSync = () => {
        const upTo = this.events.length;
        if (this.syncsNames) this.events.push({ kind: "sync names", upTo });
      };
      return { syncSync, close() {}, [Symbol.dispose]() {} } as unknown as Deno.FsFile;
    }
    if (options.createNew) {
      if (this.#names.has(path)) throw new Deno.errors.AlreadyExists(`There is ${path}`);
      const content = new Content();
      this.#names.set(path, content);
      this.events.push({ kind: "name", name: path, content });
    }
    return this.#file(this.#at(path));
  }

  #rename(from: string, to: string): void {
    const content = this.#at(from);
    this.#names.delete(from);
    this.#names.set(to, content);
    this.events.push({ kind: "name", name: to, content, from });
  }

  #remove(path: string): void {
    this.#at(path);
    this.#names.delete(path);
    this.events.push({ kind: "name", name: path, content: undefined });
  }

  #file(content: Content): Deno.FsFile {
    let position = 0;
    let hasLock = false;
    const seekSync = (offset: number | bigint, whence: Deno.SeekMode) =>
      position = whence === Deno.SeekMode.End ? content.size + Number(offset) : Number(offset);
    const readSync = (target: Uint8Array) => {
      assert(position % SECTOR_SIZE === 0, "stores read whole sectors");
      const count = Math.min(target.length, content.size - position);
      if (count <= 0) return null;
      for (let at = 0; at < count; at += SECTOR_SIZE) {
        const sector = content.sectors.get((position + at) / SECTOR_SIZE) ?? ZEROS;
        target.set(sector.subarray(0, Math.min(SECTOR_SIZE, count - at)), at);
      }
      position += count;
      return count;
    };
    const unlockSync = () => {
      if (hasLock) content.locked = false;
      hasLock = false;
    };
    const file = {
      seekSync,
      readSync,
      unlockSync,
      seek: (offset: number, whence: Deno.SeekMode) => Promise.resolve(seekSync(offset, whence)),
      read: (target: Uint8Array) => Promise.resolve(readSync(target)),
      statSync: () => this.#stat(content),
      tryLockSync: () => {
        if (content.locked) return false;
        return content.locked = hasLock = true;
      },
      truncateSync: (size: number) => {
        content.size = size;
        this.events.push({ kind: "resize", content, size });
      },
      writeSync: (source: Uint8Array) => {
        assert(position % SECTOR_SIZE === 0, "stores write whole sectors");
        for (let at = 0; at < source.length; at += SECTOR_SIZE) {
          const bytes = source.slice(at, at + SECTOR_SIZE);
          const sector = (position + at) / SECTOR_SIZE;
          content.sectors.set(sector, bytes);
          const size = position + at + SECTOR_SIZE;
          this.events.push({ kind: "write", content, sector, bytes, size });
        }
        position += source.length;
        content.size = Math.max(content.size, position);
        return source.length;
      },
      syncData: async () => {
        const upTo = this.events.length;
        await Promise.resolve();
        this.events.push({ kind: "sync", content, upTo });
      },
      close: unlockSync,
      [Symbol.dispose]: unlockSync,
    };
    return file as unknown as Deno.FsFile;
  }
}

const ZEROS = new Uint8Array(SECTOR_SIZE);
